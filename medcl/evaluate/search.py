"""Similar cases: the nearest items of an index by embedding, one a patient.

Similarity is (1 − pull) · cosine + pull · label agreement. At 0 it is the self-supervised space as
it was pretrained; at 1 the label-shaped one: the overlap Σ √(p_c · q_c) (Bhattacharyya 1943) of the
class probabilities that a linear model, fitted on training patients, gives to both. A knob at query
time between the two is the idea of Stewart 2024 (arXiv 2412.05831), who train a second head for it.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medcl.archive.index import Index
from medcl.errors import UsageError
from medcl.evaluate.embeddings import Embeddings, embed, embed_run, take, unit
from medcl.evaluate.knn import neighbours
from medcl.predict.inputs import indexed
from medcl.registry import did_you_mean
from medcl.run import Run, load_samples

Level = Literal["item", "sample"]
Backend = Literal["auto", "exact", "faiss", "hnswlib"]
FOLDER = "search"
"""In the run: the embeddings that are searched, made once."""
LARGE = 1_000_000
"""From so many rows on "auto" lets a library approximate, if one is installed."""
_FILTER = re.compile(r"^\s*([\w.-]+)\s*(<=|>=|!=|=|<|>)\s*(.*?)\s*$")
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


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
        backend: what searched.
    """

    query: str
    hits: list[Hit]
    searched: int
    patients: int
    level: Level
    pull: float
    backend: str

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
        backend: "exact", "faiss" or "hnswlib" (the last approximates), or "auto": exact up to a
            million rows.
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
    asked, own, found_as = _query(run, index, bank, query, task, batch_size, device)
    level = level or found_as
    allowed = np.flatnonzero(_allowed(index, bank, where))
    if not own_patient:
        patients = np.asarray(bank.patients)
        allowed = allowed[~np.isin(patients[allowed], own)]
    if not len(allowed):
        raise UsageError("No sample is left to search: loosen --where.")
    rows, members = _rows(bank, allowed, level)
    similarity, used = _similar(run, bank, asked, rows, task, pull, backend)
    hits = _hits(index, bank, similarity, members, asked, k, per_patient)
    return Found(
        query=query if found_as != "item" or query in set(bank.items) else "files",
        hits=hits,
        searched=len(allowed),
        patients=len({bank.patients[p] for p in allowed.tolist()}),
        level=level,
        pull=pull,
        backend=used,
    )


def _cache(run: Run, index: Index, task: str | None) -> Path:
    import hashlib

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
) -> tuple[NDArray[np.float32], list[str], Level]:
    """The query's embedding (D,), its patients, and whether it is an item or a sample."""
    items = np.asarray(bank.items)
    place = {sample: p for p, sample in enumerate(bank.ids)}
    if query in place:
        return unit(bank.x[[place[query]]])[0], [bank.patients[place[query]]], "sample"
    item = query if query in set(bank.items) else _by_path(index, query)
    if item is not None:
        at = np.flatnonzero(items == item)
        if not len(at):
            raise UsageError(f"{query} is in the index, but gives no samples to compare.")
        return unit(bank.x[at]).mean(0), [bank.patients[at[0]]], "item"
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
        return unit(x).mean(0), sorted(set(samples.patients)), "item"


def _by_path(index: Index, query: str) -> str | None:
    """The item with that key in the archive, given relative to it or as a whole path."""
    try:
        table, archive = index.paths, index.archive
    except Exception:  # an index without its private folder is searched by ids alone
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


def _allowed(index: Index, bank: Embeddings, where: Sequence[str]) -> NDArray[np.bool_]:
    """Which samples' items meet all conditions."""
    table = index.items
    keep = pl.Series([True] * len(table))
    for condition in where:
        match = _FILTER.match(condition)
        if match is None:
            raise UsageError(
                f"'{condition}' is no condition: write column=value, or <, <=, >, >=, !=."
            )
        name, sign, value = match.groups()
        if name not in table.columns:
            raise UsageError(
                f"The index has no column '{name}'. {did_you_mean(name, table.columns)}"
            )
        column = table[name]
        if column.dtype == pl.List:
            keep &= _holds(name, column, sign, value)
            continue
        try:
            wanted = float(value) if column.dtype.is_numeric() else value
        except ValueError:
            raise UsageError(f"Column '{name}' holds numbers; '{value}' is none.") from None
        if column.dtype == pl.Boolean:
            wanted, column = value.lower(), column.cast(pl.String)
        keep &= _COMPARE[sign](column, wanted).fill_null(False)
    kept = set(table["id"].filter(keep))
    return np.array([item in kept for item in bank.items], bool)


def _holds(name: str, column: pl.Series, sign: str, value: str) -> pl.Series:
    """Which lists (of findings, say) hold a value, or do not."""
    if sign not in ("=", "!=") or column.dtype != pl.List(pl.String):
        raise UsageError(f"Column '{name}' holds lists: only {name}=VALUE and != can be asked.")
    held = column.list.contains(value).fill_null(False)
    return held if sign == "=" else ~held


def _rows(
    bank: Embeddings, allowed: NDArray[np.int64], level: Level
) -> tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]]:
    """Groups of samples that are compared as one, and the same again as members."""
    if level not in get_args(Level):
        raise UsageError(f"Unknown level '{level}': take {' or '.join(get_args(Level))}.")
    if level == "sample":
        rows = [np.array([p]) for p in allowed]
        return rows, rows
    items = np.asarray(bank.items)[allowed]
    order = np.argsort(items, kind="stable")
    _, starts = np.unique(items[order], return_index=True)
    rows = np.split(allowed[order], starts[1:])
    return rows, rows


def _similar(
    run: Run,
    bank: Embeddings,
    asked: NDArray[np.float32],
    rows: Sequence[NDArray[np.int64]],
    task: str | None,
    pull: float,
    backend: Backend,
) -> tuple[NDArray[np.float32], str]:
    """Similarity of every row to the query: (R,)."""
    means = np.stack([unit(bank.x[members]).mean(0) for members in rows])
    if pull == 0:
        near, where, backend = nearest(asked[None], means, len(means), backend=backend)
        similarity = np.full(len(means), -np.inf, np.float32)
        similarity[where[0]] = near[0]
        return similarity, backend
    cosine = unit(means) @ unit(asked[None])[0]
    assert task is not None
    probability = _probabilities(run, bank, task)
    ours = probability(asked[None])[0]  # (C,)
    theirs = np.stack([probability(bank.x[members]).mean(0) for members in rows])  # (R, C)
    agreement = np.sqrt(np.clip(ours * theirs, 0, None)).sum(1)
    return ((1 - pull) * cosine + pull * agreement).astype(np.float32), "exact"


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


def nearest(
    query: NDArray[np.float32], bank: NDArray[np.float32], k: int, *, backend: Backend = "auto"
) -> tuple[NDArray[np.float32], NDArray[np.int64], Backend]:
    """The k bank rows of highest cosine to every query: similarity (M, k), positions (M, k).

    Raises:
        UsageError: if the backend is unknown or not installed.
    """
    import importlib.util

    if backend not in get_args(Backend):
        raise UsageError(f"Unknown backend '{backend}': take {', '.join(get_args(Backend))}.")
    if backend == "auto":
        there = [name for name in ("faiss", "hnswlib") if importlib.util.find_spec(name)]
        backend = there[0] if there and len(bank) > LARGE else "exact"  # type: ignore[assignment]
    if backend != "exact" and importlib.util.find_spec(backend) is None:
        package = {"faiss": "faiss-cpu", "hnswlib": "hnswlib"}[backend]
        raise UsageError(f"{backend} is not installed: pip install {package}, or --backend exact.")
    q, b, k = unit(query), unit(bank), min(k, len(bank))
    if backend == "faiss":
        import faiss

        flat = faiss.IndexFlatIP(b.shape[1])
        flat.add(b)
        near, where = flat.search(q, k)
        return near, where, backend
    if backend == "hnswlib":
        import hnswlib

        graph = hnswlib.Index(space="ip", dim=b.shape[1])
        graph.init_index(max_elements=len(b), ef_construction=200, M=32, random_seed=0)
        graph.add_items(b, num_threads=1)
        graph.set_ef(max(200, 2 * k))
        where, distance = graph.knn_query(q, k=k)
        return 1 - distance, where.astype(np.int64), backend
    near, where = neighbours(q, b, k=k)
    return near, where, backend


def _hits(
    index: Index,
    bank: Embeddings,
    similarity: NDArray[np.float32],
    members: Sequence[NDArray[np.int64]],
    asked: NDArray[np.float32],
    k: int,
    per_patient: bool,
) -> list[Hit]:
    fields = {
        row["id"]: row for row in index.items.select("id", *index.fields).iter_rows(named=True)
    }
    hits: list[Hit] = []
    seen: set[str] = set()
    for row in np.argsort(-similarity, kind="stable"):
        mine = members[row]
        patient = bank.patients[mine[0]]
        if not np.isfinite(similarity[row]) or (per_patient and patient in seen):
            continue
        seen.add(patient)
        best = int(mine[np.argmax(unit(bank.x[mine]) @ asked)])
        item = bank.items[best]
        hits.append(
            Hit(
                rank=len(hits) + 1,
                similarity=round(float(similarity[row]), 4),
                item=item,
                sample=bank.ids[best],
                patient=patient,
                labels={n: np.asarray(v)[best].tolist() for n, v in bank.labels.items()},
                fields={n: v for n, v in fields.get(item, {}).items() if n != "id"},
                position=best,
            )
        )
        if len(hits) == k:
            break
    return hits
