"""Similar cases: the nearest items of an index by embedding, one per patient.

Similarity is (1 − pull) · cosine + pull · label agreement. At 0 it is cosine in the pretrained
self-supervised space; at 1 it is label agreement: the overlap Σ √(p_c · q_c) (Bhattacharyya 1943)
of the class probabilities that a linear model, fitted on training patients, gives to both.
Interpolation at query time follows Stewart 2024 (arXiv 2412.05831), who train a second head for it.

If the run's method sees two modalities of a sample (`medcl.embeddings.modalities`), the query can
be embedded in one and the cases in the other: an ECG finds PPGs, an image finds clinical tables.

Of more than 100,000 cases an index lies beside the embeddings, see `medcl.retrieval.bank`.
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

from medcl import nearest
from medcl.archive.conditions import meeting
from medcl.archive.index import Index
from medcl.embeddings.embeddings import Embeddings, unit
from medcl.embeddings.modalities import bank_of, embed_modality, query_and_result
from medcl.errors import UsageError
from medcl.private import other_key
from medcl.retrieval.bank import Bank, Groups, Level, random_pairs
from medcl.retrieval.query import asked_for
from medcl.run import Run, load_samples

FOLDER = "search"
"""In the run: the embeddings that are searched, computed once."""
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
        key_file: for a query outside the archive, see `medcl.ingestion.indexed`.
        batch_size: samples a forward pass.
        device: see `medcl.embeddings.embeddings.embed`.

    Raises:
        UsageError: if the query is not found, a condition cannot be read or leaves nothing,
            ``pull`` lacks a task, or the run has no such modalities.
        MedclError: if the run's method cannot be restored.
    """
    if not 0 <= pull <= 1 or k < 1:
        raise UsageError("pull must lie between 0 and 1, and k be at least 1.")
    if pull and task is None:
        raise UsageError("Say which labels to pull towards: --task.")
    modalities = query_and_result(run, source, target)
    query_modality, bank_modality = modalities or (None, None)
    how: _How = {"task": task, "batch_size": batch_size, "device": device}
    bank = _bank(run, data or run.data, bank_modality, how)
    index = bank.index

    def embed(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        if query_modality == bank_modality:
            return bank.embeddings.x[rows]
        samples = load_samples(run.recipe, index.path, task=task).at(rows)
        return embed_modality(
            run, samples, query_modality, batch_size=batch_size, device=device, label="query"
        )

    asked = asked_for(
        run, index, bank, query, embed, modality=query_modality, key_file=key_file, **how
    )
    level = level or asked.level
    if level not in get_args(Level):
        raise UsageError(f"Unknown level '{level}': take {' or '.join(get_args(Level))}.")
    groups = bank.groups(level)
    meets = _meeting(groups, where)
    allowed = meets if own_patient else meets & ~groups.of_patients(asked.patients)
    if not allowed.any():
        raise UsageError("No sample is left to search: loosen --where.")
    if pull:
        assert task is not None
        theirs = ours = _probabilities(run, bank.embeddings, task, bank_modality)
        if query_modality != bank_modality:
            other = _bank(run, index.path, query_modality, how)
            ours = _probabilities(run, other.embeddings, task, query_modality)
        some = np.flatnonzero(allowed)
        classes = np.stack(
            [theirs(bank.embeddings.x[groups.members(int(g))]).mean(0) for g in some]
        )
        near = _pulled(groups.directions(some), asked.x, classes, ours(asked.x[None])[0], pull)
        ranked = [(int(some[g]), float(near[g])) for g in np.argsort(-near, kind="stable")]
        chosen = _first(ranked, groups.owners, k, per_patient)
    else:
        chosen = _nearest(groups, unit(asked.x[None])[0], allowed, k, per_patient)
    return Found(
        query=asked.name,
        hits=_hits(groups, asked.x, chosen),
        searched=int(groups.sizes()[allowed].sum()),
        patients=int(np.count_nonzero(np.bincount(groups.owners[allowed]))),
        level=level,
        pull=pull,
        sides=modalities,
        notes=() if asked.matched or own_patient else (OTHER_KEY,),
        random=None if pull else _random(groups, where, meets),
    )


def _random(
    groups: Groups, where: Sequence[str], meets: NDArray[np.bool_]
) -> tuple[float, float, float] | None:
    return random_pairs(groups, np.flatnonzero(meets)) if where else groups.random_pairs


class _How(TypedDict):
    task: str | None
    batch_size: int
    device: str


_banks: dict[tuple[Any, ...], Bank] = {}
"""The bank that was searched last, for the next query of this process."""


def _bank(run: Run, data: Path, modality: str | None, how: _How) -> Bank:
    """All samples of an index in one modality, cached in the run."""
    tables = (data / name for name in ("index.json", "items.parquet", "store/rejects.jsonl"))
    files = (run.encoder_file(), run.path / FOLDER, *tables)
    key = (*(_stamp(file) for file in files), modality, *how.values())
    if key not in _banks:
        index = Index.open(data)
        out = _cache(run, index, how["task"], modality)
        embeddings = bank_of(run, index.path, out, modality, **how)
        if len(embeddings) > nearest.EXACT and not isinstance(embeddings.x, np.memmap):
            embeddings = Embeddings.load(out)  # not in memory
        _banks.clear()
        key = (*(_stamp(file) for file in files), modality, *how.values())
        _banks[key] = Bank(index, embeddings, out, modality is not None)
    return _banks[key]


def _stamp(path: Path) -> tuple[str, int, int, int] | str:
    """Changes when a file is replaced."""
    try:
        status = path.stat()
    except OSError:
        return str(path)
    return str(path.resolve()), status.st_ino, status.st_size, status.st_mtime_ns


def _meeting(groups: Groups, where: Sequence[str]) -> NDArray[np.bool_]:
    """(G,) whether a group's item meets all conditions."""
    if not where:
        return np.ones(len(groups), bool)
    items = meeting(groups.bank.index.items, where)["id"]
    return groups.items.is_in(items.implode()).to_numpy()


def _pulled(
    means: NDArray[np.float32],
    asked: NDArray[np.float32],
    classes: NDArray[np.float32],
    ours: NDArray[np.float32],
    pull: float,
) -> NDArray[np.float32]:
    """Similarity of unit groups (G, D), of probabilities (G, C), to the query (D,), (C,): (G,)."""
    cosine = means @ unit(asked[None])[0]
    overlap = np.sqrt(np.clip(ours * classes, 0, None)).sum(1)
    near: NDArray[np.float32] = (1 - pull) * cosine + pull * overlap
    return near


def _nearest(
    groups: Groups,
    asked: NDArray[np.float32],
    allowed: NDArray[np.bool_],
    k: int,
    per_patient: bool,
) -> list[tuple[int, float]]:
    """(group, similarity) of the k nearest; the search widens until it holds k patients."""
    wanted = 4 * k if per_patient else k
    while True:
        ranked, all_of_them = groups.similar(asked, wanted, allowed)
        chosen = _first(ranked, groups.owners, k, per_patient)
        if len(chosen) == k or all_of_them:
            return chosen
        wanted *= 4


def _first(
    ranked: Sequence[tuple[int, float]], owners: NDArray[np.int64], k: int, per_patient: bool
) -> list[tuple[int, float]]:
    """The first k, at most one per patient."""
    chosen: list[tuple[int, float]] = []
    seen: set[int] = set()
    for group, similarity in ranked:
        if len(chosen) == k:
            break
        if per_patient and int(owners[group]) in seen:
            continue
        seen.add(int(owners[group]))
        chosen.append((group, similarity))
    return chosen


def _cache(run: Run, index: Index, task: str | None, modality: str | None) -> Path:
    what = f"{index.path.resolve()}\0{task}" + (f"\0{modality}" if modality is not None else "")
    name = hashlib.sha256(what.encode()).hexdigest()[:12]
    return run.path / FOLDER / name


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


def _hits(
    groups: Groups, asked: NDArray[np.float32], chosen: Sequence[tuple[int, float]]
) -> list[Hit]:
    """The groups, each represented by its sample nearest to the query."""
    embeddings, index = groups.bank.embeddings, groups.bank.index
    best = [
        int(members[np.argmax(unit(embeddings.x[members]) @ asked)])
        for members in (groups.members(group) for group, _ in chosen)
    ]
    items = [str(embeddings.items[position]) for position in best]
    rows = index.items.filter(pl.col("id").is_in(items)).select("id", *index.fields)
    fields = {row.pop("id"): row for row in rows.to_dicts()}
    return [
        Hit(
            rank=rank,
            similarity=round(similarity, 4),
            item=item,
            sample=embeddings.ids[position],
            patient=embeddings.patients[position],
            labels={n: _known(np.asarray(v)[position]) for n, v in embeddings.labels.items()},
            fields=fields.get(item, {}),
            position=position,
        )
        for rank, (position, item, (_, similarity)) in enumerate(
            zip(best, items, chosen, strict=True), 1
        )
    ]
