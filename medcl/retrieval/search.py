"""Similar cases: the nearest items of an index by embedding, one per patient.

Similarity is (1 − pull) · cosine + pull · label agreement. At 0 it is cosine in the pretrained
self-supervised space; at 1 it is label agreement: the overlap Σ √(p_c · q_c) (Bhattacharyya 1943)
of the class probabilities that a linear model, fitted on training patients, gives to both.
Interpolation at query time follows Stewart 2024 (arXiv 2412.05831), who train a second head for it.

If the run's method sees two modalities of a sample (`medcl.embeddings.modalities`), the query can
be embedded in one and the cases in the other: an ECG finds PPGs, an image finds clinical tables.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypedDict, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medcl.archive.conditions import meeting
from medcl.archive.index import Index
from medcl.embeddings.embeddings import Embeddings, unit
from medcl.embeddings.modalities import bank_of, embed_modality, query_and_result
from medcl.embeddings.nearest import Backend, nearest
from medcl.errors import UsageError
from medcl.private import other_key
from medcl.retrieval.query import Level, asked_for
from medcl.run import Run, load_samples

FOLDER = "search"
"""In the run: the embeddings that are searched, computed once."""
PAIRS = 4000
"""Drawn to see what similarity random pairs have."""
OTHER_KEY = other_key(
    "The query and the searched index", "the query's own patient may be among the cases."
)


@dataclass(frozen=True)
class Hit:
    """A retrieved case.

    Attributes:
        rank: 1 is the nearest.
        similarity: see the module's docstring.
        item: its item in the index (``Index.locate`` tells its owner the file).
        sample: its nearest sample.
        patient: keyed hash.
        labels: its labels, where there are any; None for a missing one.
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
        query: an item's or sample's id, or "files".
        hits: nearest first, at most one per patient unless all were requested.
        searched: samples that passed the filters.
        patients: their number.
        level: items or samples were compared.
        pull: towards the labels.
        sides: modality of the query and of the cases; None for the encoder's space.
        notes: for the reader.
        random: similarity of random pairs of cases of different patients: the 5th, 50th and 95th
            percentile. None if it was pulled, or there are too few patients.
    """

    query: str
    hits: list[Hit]
    searched: int
    patients: int
    level: Level
    pull: float
    sides: tuple[str, str] | None = None
    notes: tuple[str, ...] = ()
    random: tuple[float, float, float] | None = None

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
    source: str | None = None,
    target: str | None = None,
    backend: Backend = "auto",
    key_file: Path | None = None,
    batch_size: int = 512,
    device: str = "auto",
) -> Found:
    """The cases most similar to the query.

    Args:
        run: a finished run.
        query: an item's or sample's id of the index, an item's path in the archive, or a file or
            folder outside of it, which is read here and leaves nothing behind.
        data: the index to search; None for the run's own.
        k: number of hits.
        where: conditions on columns of the index, such as ``kvp>=100`` or ``label.aami=V``.
        level: "item" compares means of an item's samples; "sample" compares single samples. None:
            the query's level.
        per_patient: at most one hit per patient.
        own_patient: whether the query's own patient may be a hit.
        task: whose samples are searched, and whose labels ``pull`` follows.
        pull: 0 … 1, see the module's docstring.
        source: modality of the query, such as "ecg" or "table".
        target: modality of the cases. If one is given, the other follows; if both are None, the
            run's encoder embeds query and cases.
        backend: see `medcl.embeddings.nearest.nearest`.
        key_file: for a query outside the archive, see `medcl.ingestion.indexed`.
        batch_size: samples a forward pass.
        device: see `medcl.embeddings.embeddings.embed`.

    Raises:
        UsageError: if the query is not found, a condition cannot be read or leaves nothing,
            ``pull`` lacks a task, the run has no such modalities, or the backend is not installed.
        MedclError: if the run's method cannot be restored.
    """
    if not 0 <= pull <= 1 or k < 1:
        raise UsageError("pull must lie between 0 and 1, and k be at least 1.")
    if pull and task is None:
        raise UsageError("Say which labels to pull towards: --task.")
    index = Index.open(data or run.data)
    modalities = query_and_result(run, source, target)
    query_modality, bank_modality = modalities or (None, None)
    how: _How = {"task": task, "batch_size": batch_size, "device": device}
    bank = _bank(run, index, bank_modality, how)

    def embed(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        if query_modality == bank_modality:
            return bank.x[rows]
        samples = load_samples(run.recipe, index.path, task=task).at(rows)
        return embed_modality(
            run, samples, query_modality, batch_size=batch_size, device=device, label="query"
        )

    asked = asked_for(
        run, index, bank, query, embed, modality=query_modality, key_file=key_file, **how
    )
    level = level or asked.level
    allowed = _allowed(bank, index, where, bank_modality, () if own_patient else asked.patients)
    groups = _groups(bank, allowed, level)
    owners = [bank.patients[members[0]] for members in groups]
    means = _means(bank, groups)
    if pull:
        assert task is not None
        theirs = ours = _probabilities(run, bank, task, bank_modality)
        if query_modality != bank_modality:
            ours = _probabilities(run, _bank(run, index, query_modality, how), task, query_modality)
        classes = np.stack([theirs(bank.x[members]).mean(0) for members in groups])  # (G, C)
        near = _pulled(means, asked.x, classes, ours(asked.x[None])[0], pull)
        ranked = [(int(g), float(near[g])) for g in np.argsort(-near, kind="stable")]
        chosen = _first(ranked, owners, k, per_patient)
    else:
        chosen = _nearest(means, asked.x, owners, k, per_patient, backend)
    return Found(
        query=asked.name,
        hits=[
            _hit(index, bank, asked.x, groups[group], rank, similarity)
            for rank, (group, similarity) in enumerate(chosen, 1)
        ],
        searched=len(allowed),
        patients=len(set(owners)),
        level=level,
        pull=pull,
        sides=modalities,
        notes=() if asked.matched or own_patient else (OTHER_KEY,),
        random=None if pull else _random_pairs(means, owners),
    )


def _random_pairs(
    means: NDArray[np.float32], owners: Sequence[str]
) -> tuple[float, float, float] | None:
    """Percentiles of the similarity of random pairs of groups (G, D) of different patients."""
    draw = np.random.default_rng(0).integers(0, len(means), (2, PAIRS))
    patients = np.unique(np.asarray(owners), return_inverse=True)[1]
    one, other = draw[:, patients[draw[0]] != patients[draw[1]]]
    if not len(one):
        return None
    unit_means = unit(means)
    low, middle, high = np.percentile((unit_means[one] * unit_means[other]).sum(1), (5, 50, 95))
    return round(float(low), 4), round(float(middle), 4), round(float(high), 4)


class _How(TypedDict):
    task: str | None
    batch_size: int
    device: str


def _bank(run: Run, index: Index, modality: str | None, how: _How) -> Embeddings:
    """All samples of an index in one modality, cached in the run."""
    out = _cache(run, index, how["task"], modality)
    return bank_of(run, index.path, out, modality, **how)


def _allowed(
    bank: Embeddings,
    index: Index,
    where: Sequence[str],
    modality: str | None,
    without: Sequence[str],
) -> NDArray[np.int64]:
    """Positions of the samples that are searched.

    Raises:
        UsageError: if there are none.
    """
    matching = set(meeting(index.items, where)["id"])
    fits = np.array([item in matching for item in bank.items], bool)
    if modality is not None:
        fits &= bank.x.any(axis=1)  # the others lack this modality
    fits &= ~np.isin(np.asarray(bank.patients), without)
    allowed = np.flatnonzero(fits)
    if not len(allowed):
        raise UsageError("No sample is left to search: loosen --where.")
    return allowed


def _pulled(
    means: NDArray[np.float32],
    asked: NDArray[np.float32],
    classes: NDArray[np.float32],
    ours: NDArray[np.float32],
    pull: float,
) -> NDArray[np.float32]:
    """Similarity of each group (G, D), of probabilities (G, C), to the query (D,), (C,): (G,)."""
    cosine = unit(means) @ unit(asked[None])[0]
    overlap = np.sqrt(np.clip(ours * classes, 0, None)).sum(1)
    near: NDArray[np.float32] = (1 - pull) * cosine + pull * overlap
    return near


def _nearest(
    means: NDArray[np.float32],
    asked: NDArray[np.float32],
    owners: Sequence[str],
    k: int,
    per_patient: bool,
    backend: Backend,
) -> list[tuple[int, float]]:
    """(group, similarity) of the k nearest; the search widens until it holds k patients."""
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
    """The first k, at most one per patient."""
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


def _cache(run: Run, index: Index, task: str | None, modality: str | None) -> Path:
    what = f"{index.path.resolve()}\0{task}" + (f"\0{modality}" if modality is not None else "")
    name = hashlib.sha256(what.encode()).hexdigest()[:12]
    return run.path / FOLDER / name


def _groups(bank: Embeddings, allowed: NDArray[np.int64], level: Level) -> list[NDArray[np.int64]]:
    """Positions of the samples of each group that is compared as one."""
    if level not in get_args(Level):
        raise UsageError(f"Unknown level '{level}': take {' or '.join(get_args(Level))}.")
    if level == "sample":
        return [np.array([p]) for p in allowed]
    items = np.asarray(bank.items)[allowed]
    order = np.argsort(items, kind="stable")
    _, starts = np.unique(items[order], return_index=True)
    return np.split(allowed[order], starts[1:])


def _means(bank: Embeddings, groups: Sequence[NDArray[np.int64]]) -> NDArray[np.float32]:
    return np.stack([unit(bank.x[members]).mean(0) for members in groups])


def _probabilities(
    run: Run, bank: Embeddings, task: str, modality: str | None
) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Class probabilities by a linear model of unit embeddings, fitted on training patients."""
    from medcl.embeddings import linear
    from medcl.labels import target as targets

    samples = load_samples(run.recipe, run.data, task=task)
    target = targets.target(run.plugin.tasks[task], samples)
    if target.kind not in ("binary", "multiclass"):
        raise UsageError(f"Task '{task}' has no classes to pull towards.")
    part = run.split()
    known = np.array([part.get(p) == "train" for p in samples.patients]) & target.known
    train = np.flatnonzero(known)
    if not len(train):
        raise UsageError(f"No training patient carries a label of task '{task}'.")
    if list(bank.ids) == list(samples.ids):
        x = bank.x[train]
    else:  # another index is searched
        x = embed_modality(run, samples.at(train), modality, label="labels")
    present = x.any(axis=1)  # a sample without this modality has no features to learn from
    x, train = x[present], train[present]
    patients = np.asarray(samples.patients)[train]
    fitted = linear.fit(unit(x), target.at(train), patients, seed=run.recipe.seed)
    return lambda features: fitted.predict(unit(features))


def _known(value: Any) -> Any:
    """A label; None for what stands for a missing one: −1, NaN, no text."""
    plain = value.tolist()
    if isinstance(plain, str):
        return plain or None
    missing = isinstance(plain, int | float) and (plain == -1 or plain != plain)
    return None if missing and not isinstance(plain, bool) else plain


def _hit(
    index: Index,
    bank: Embeddings,
    asked: NDArray[np.float32],
    members: NDArray[np.int64],
    rank: int,
    similarity: float,
) -> Hit:
    """A group, represented by its sample nearest to the query."""
    best = int(members[np.argmax(unit(bank.x[members]) @ asked)])
    item = bank.items[best]
    row = index.items.filter(pl.col("id") == item).select(index.fields)
    return Hit(
        rank=rank,
        similarity=round(similarity, 4),
        item=item,
        sample=bank.ids[best],
        patient=bank.patients[best],
        labels={n: _known(np.asarray(v)[best]) for n, v in bank.labels.items()},
        fields=row.row(0, named=True) if len(row) else {},
        position=best,
    )
