"""Similar cases: the nearest items of an index by embedding, one a patient.

Similarity is (1 − pull) · cosine + pull · label agreement. At 0 it is the self-supervised space as
it was pretrained; at 1 the label-shaped one: the overlap Σ √(p_c · q_c) (Bhattacharyya 1943) of the
class probabilities that a linear model, fitted on training patients, gives to both. A knob at query
time between the two is the idea of Stewart 2024 (arXiv 2412.05831), who train a second head for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medcl.archive.conditions import meeting
from medcl.archive.index import Index
from medcl.errors import MedclError, UsageError
from medcl.evaluate.embeddings import Embeddings, embed, embed_run, take, unit
from medcl.evaluate.nearest import Backend, nearest
from medcl.predict.inputs import indexed
from medcl.registry import did_you_mean
from medcl.run import Run, load_samples

Level = Literal["item", "sample"]
FOLDER = "search"
"""In the run: the embeddings that are searched, made once."""


@dataclass(frozen=True)
class Hit:
    """A case that was found.

    Attributes:
        rank: 1 is the nearest.
        similarity: see the module's docstring.
        item: its item in the index (``Index.locate`` tells its owner the file).
        sample: its nearest sample.
        patient: keyed hash.
        labels: its labels, where there are any.
        fields: the index's technical columns.
        position: of the sample among the searched ones.
    """

    rank: int
    similarity: float
    item: str
    sample: str
    patient: str
    labels: dict[str, Any]
    fields: dict[str, Any]
    position: int


@dataclass(frozen=True)
class Found:
    """The answer to a query.

    Attributes:
        query: what was asked for: an item's or sample's id, or "files".
        hits: nearest first, at most one a patient unless all were asked for.
        searched: samples that passed the filters.
        patients: whose.
        level: what was compared.
        pull: towards the labels.
    """

    query: str
    hits: list[Hit]
    searched: int
    patients: int
    level: Level
    pull: float

    def as_dict(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return asdict(self)


def search(
    run: Run,
    query: str,
    *,
    data: Path | None = None,
    k: int = 10,
    where: Sequence[str] = (),
    level: Level | None = None,
    per_patient: bool = True,
    own_patient: bool = False,
    task: str | None = None,
    pull: float = 0.0,
    backend: Backend = "auto",
    batch_size: int = 512,
    device: str = "auto",
) -> Found:
    """The cases that are most like the query.

    Args:
        run: a finished run.
        query: an item's or sample's id of the index, an item's path in the archive, or a file or
            folder outside of it, which is read here and leaves nothing behind.
        data: the index to search; None for the run's own.
        k: how many are wanted.
        where: conditions on columns of the index, such as ``kvp>=100`` or ``label.aami=V``.
        level: "item": means of an item's samples are compared; "sample": single ones. None: as the
            query is.
        per_patient: at most one hit a patient.
        own_patient: whether the query's own patient may be found.
        task: whose samples are searched, and whose labels ``pull`` follows.
        pull: 0 … 1, see the module's docstring.
        backend: see `medcl.evaluate.nearest.nearest`.
        batch_size: samples a forward pass.
        device: see `medcl.evaluate.embeddings.embed`.

    Raises:
        UsageError: if the query is not found, a condition cannot be read or leaves nothing,
            ``pull`` lacks a task, or the backend is not installed.
    """
    if not 0 <= pull <= 1 or k < 1:
        raise UsageError("pull must lie between 0 and 1, and k be at least 1.")
    if pull and task is None:
        raise UsageError("Say which labels to pull towards: --task.")
    index = Index.open(data or run.data)
    bank = embed_run(
        run, index.path, _cache(run, index, task), task=task, batch_size=batch_size, device=device
    )
    name, asked, own, found_as = _query(run, index, bank, query, task, batch_size, device)
    level = level or found_as
    kept = set(meeting(index.items, where)["id"])
    fits = np.array([item in kept for item in bank.items], bool)
    if not own_patient:
        fits &= ~np.isin(np.asarray(bank.patients), own)
    allowed = np.flatnonzero(fits)
    if not len(allowed):
        raise UsageError("No sample is left to search: loosen --where.")
    groups = _groups(bank, allowed, level)
    owners = [bank.patients[members[0]] for members in groups]
    if pull:
        assert task is not None
        near = _pulled(run, bank, asked, groups, task, pull)
        ranked = [(int(g), float(near[g])) for g in np.argsort(-near, kind="stable")]
        chosen = _first(ranked, owners, k, per_patient)
    else:
        chosen = _nearest(_means(bank, groups), asked, owners, k, per_patient, backend)
    return Found(
        query=name,
        hits=[
            _hit(index, bank, asked, groups[group], rank, similarity)
            for rank, (group, similarity) in enumerate(chosen, 1)
        ],
        searched=len(allowed),
        patients=len(set(owners)),
        level=level,
        pull=pull,
    )


def _nearest(
    means: NDArray[np.float32],
    asked: NDArray[np.float32],
    owners: Sequence[str],
    k: int,
    per_patient: bool,
    backend: Backend,
) -> list[tuple[int, float]]:
    """(group, similarity) of the k nearest: ever more are asked for until k patients are there."""
    wanted = 4 * k if per_patient else k
    while True:
        near, where = nearest(asked[None], means, wanted, backend=backend)
        ranked = [(int(g), float(s)) for g, s in zip(where[0], near[0], strict=True)]
        chosen = _first(ranked, owners, k, per_patient)
        if len(chosen) == k or wanted >= len(means):
            return chosen
        wanted *= 4


def _first(
    ranked: Sequence[tuple[int, float]], owners: Sequence[str], k: int, per_patient: bool
) -> list[tuple[int, float]]:
    """The first k, at most one a patient."""
    chosen: list[tuple[int, float]] = []
    seen: set[str] = set()
    for group, similarity in ranked:
        if len(chosen) == k:
            break
        if per_patient and owners[group] in seen:
            continue
        seen.add(owners[group])
        chosen.append((group, similarity))
    return chosen


def _cache(run: Run, index: Index, task: str | None) -> Path:
    name = hashlib.sha256(f"{index.path.resolve()}\0{task}".encode()).hexdigest()[:12]
    return run.path / FOLDER / name


def _query(
    run: Run,
    index: Index,
    bank: Embeddings,
    query: str,
    task: str | None,
    batch_size: int,
    device: str,
) -> tuple[str, NDArray[np.float32], list[str], Level]:
    """What the query may be called, its embedding (D,), its patients, and what it is."""
    items = np.asarray(bank.items)
    place = {sample: p for p, sample in enumerate(bank.ids)}
    if query in place:
        return query, unit(bank.x[[place[query]]])[0], [bank.patients[place[query]]], "sample"
    item = query if query in set(bank.items) else _by_path(index, query)
    if item is not None:
        at = np.flatnonzero(items == item)
        if not len(at):
            raise UsageError(f"{query} is in the index, but gives no samples to compare.")
        return item, unit(bank.x[at]).mean(0), [bank.patients[at[0]]], "item"
    if not Path(query).exists():
        raise UsageError(
            f"{query} is no item or sample of {index.path}, and no file. "
            f"{did_you_mean(query, list(index.items['id'][:1000]))}"
        )
    with indexed(run, [Path(query)]) as visited:
        samples = load_samples(run.recipe, visited.path, task=task)
        if not len(samples):
            raise UsageError(f"{query} gives no samples to compare.")
        x = embed(run.encoder(), samples, batch_size=batch_size, device=device, label="query").x
        return "files", unit(x).mean(0), sorted(set(samples.patients)), "item"


def _by_path(index: Index, query: str) -> str | None:
    """The item with that key in the archive, given relative to it or as a whole path."""
    try:
        table, archive = index.paths, index.archive
    except MedclError:  # an index without its private folder is searched by ids alone
        return None
    given = Path(query)
    names = {query}
    if given.is_absolute() and given.is_relative_to(archive):
        names.add(given.relative_to(archive).as_posix())
    elif given.exists() and given.resolve().is_relative_to(archive):
        names.add(given.resolve().relative_to(archive).as_posix())
    found = table.filter(
        pl.col("key").is_in(names) | pl.col("files").list.eval(pl.element().is_in(names)).list.any()
    )
    return str(found["id"][0]) if len(found) else None


def _groups(bank: Embeddings, allowed: NDArray[np.int64], level: Level) -> list[NDArray[np.int64]]:
    """Positions of the samples that are compared as one."""
    if level not in get_args(Level):
        raise UsageError(f"Unknown level '{level}': take {' or '.join(get_args(Level))}.")
    if level == "sample":
        return [np.array([p]) for p in allowed]
    items = np.asarray(bank.items)[allowed]
    order = np.argsort(items, kind="stable")
    _, starts = np.unique(items[order], return_index=True)
    return np.split(allowed[order], starts[1:])


def _pulled(
    run: Run,
    bank: Embeddings,
    asked: NDArray[np.float32],
    groups: Sequence[NDArray[np.int64]],
    task: str,
    pull: float,
) -> NDArray[np.float32]:
    """Similarity of every group to the query, part of it by labels: (G,)."""
    cosine = unit(_means(bank, groups)) @ unit(asked[None])[0]
    probability = _probabilities(run, bank, task)
    ours = probability(asked[None])[0]  # (C,)
    theirs = np.stack([probability(bank.x[members]).mean(0) for members in groups])  # (G, C)
    agreement = np.sqrt(np.clip(ours * theirs, 0, None)).sum(1)
    return ((1 - pull) * cosine + pull * agreement).astype(np.float32)


def _means(bank: Embeddings, groups: Sequence[NDArray[np.int64]]) -> NDArray[np.float32]:
    return np.stack([unit(bank.x[members]).mean(0) for members in groups])


def _probabilities(
    run: Run, bank: Embeddings, task: str
) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Class probabilities by a linear model of unit embeddings, fitted on training patients."""
    from medcl.evaluate import linear
    from medcl.evaluate.targets import target

    samples = load_samples(run.recipe, run.data, task=task)
    truth = target(run.plugin.tasks[task], samples)
    if truth.kind not in ("binary", "multiclass"):
        raise UsageError(f"Task '{task}' has no classes to pull towards.")
    side = run.split()
    known = np.array([side.get(p) == "train" for p in samples.patients]) & truth.known
    train = np.flatnonzero(known)
    if not len(train):
        raise UsageError(f"No training patient carries a label of task '{task}'.")
    if list(bank.ids) == list(samples.ids):
        x = bank.x[train]
    else:  # another index is searched
        x = embed(run.encoder(), take(samples, train), label="labels").x
    patients = np.asarray(samples.patients)[train]
    fitted = linear.fit(unit(x), truth.at(train), patients, seed=run.recipe.seed)
    return lambda features: fitted.predict(unit(features))


def _hit(
    index: Index,
    bank: Embeddings,
    asked: NDArray[np.float32],
    members: NDArray[np.int64],
    rank: int,
    similarity: float,
) -> Hit:
    """A group, shown by its sample that is nearest to the query."""
    best = int(members[np.argmax(unit(bank.x[members]) @ asked)])
    item = bank.items[best]
    row = index.items.filter(pl.col("id") == item).select(index.fields)
    return Hit(
        rank=rank,
        similarity=round(similarity, 4),
        item=item,
        sample=bank.ids[best],
        patient=bank.patients[best],
        labels={n: np.asarray(v)[best].tolist() for n, v in bank.labels.items()},
        fields=row.row(0, named=True) if len(row) else {},
        position=best,
    )
