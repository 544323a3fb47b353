"""What is asked for, as an embedding: a sample or item of an index, files, or a row of a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medcl.archive import clinical
from medcl.archive.index import Index
from medcl.embeddings.embeddings import Embeddings, unit
from medcl.embeddings.modalities import embed_side
from medcl.errors import MedclError, UsageError
from medcl.ingestion import indexed
from medcl.plugin import Samples
from medcl.registry import did_you_mean
from medcl.run import Run, load_samples

Level = Literal["item", "sample"]


@dataclass(frozen=True)
class Query:
    """What is asked for.

    Attributes:
        name: what it may be called: an item's or sample's id, "files", or the values.
        x: (D,) its embedding.
        patients: whose it is.
        level: what it is.
        matched: whether they can be told to be patients of the index that is searched.
    """

    name: str
    x: NDArray[np.float32]
    patients: list[str]
    level: Level
    matched: bool = True


def asked_for(
    run: Run,
    index: Index,
    bank: Embeddings,
    query: str,
    look: Callable[[NDArray[np.int64]], NDArray[np.float32]],
    *,
    side: str | None = None,
    task: str | None = None,
    key_file: Path | None = None,
    batch_size: int = 512,
    device: str = "auto",
) -> Query:
    """Find a query, or read it.

    Args:
        run: a finished run.
        index: where ids and paths are looked up.
        bank: all samples of that index, by whichever side.
        query: an item's or sample's id, an item's path in the archive, or a file or folder
            elsewhere, which is read here and leaves nothing behind; of a side that is a clinical
            table also its values, ``"sex=F, age=63"``, where the rest is missing.
        look: positions in ``bank`` → those samples by ``side``; not asked for other queries.
        side: by which it is looked at, see `medcl.embeddings.modalities`.
        task: whose samples they are.
        key_file: of files elsewhere, see `medcl.ingestion.indexed`.
        batch_size: samples a forward pass.
        device: see `medcl.embeddings.embeddings.embed`.

    Raises:
        UsageError: if it is not found, gives no samples, or has not this side.
    """
    place = {sample: p for p, sample in enumerate(bank.ids)}
    items = np.asarray(bank.items)
    if query in place:
        at = np.array([place[query]])
        return Query(query, _mean(look(at), query, side), [bank.patients[at[0]]], "sample")
    item = query if query in set(bank.items) else _by_path(index, query)
    if item is not None:
        at = np.flatnonzero(items == item)
        if not len(at):
            raise UsageError(f"{query} is in the index, but gives no samples to compare.")
        return Query(item, _mean(look(at), query, side), [bank.patients[at[0]]], "item")
    if not Path(query).exists():
        if side is not None and "=" in query:
            return _described(run, query, side, device)
        raise UsageError(
            f"{query} is no item or sample of {index.path}, and no file. "
            f"{did_you_mean(query, list(index.items['id'][:1000]))}"
        )
    with indexed(run, [Path(query)], key_file=key_file) as visited:
        samples = load_samples(run.recipe, visited.path, task=task)
        if not len(samples):
            raise UsageError(f"{query} gives no samples to compare.")
        x = embed_side(run, samples, side, batch_size=batch_size, device=device, label="query")
        matched = visited.key_check is not None and visited.key_check == index.key_check
        who = sorted(set(samples.patients))
        return Query("files", _mean(x, query, side), who, "item", matched)


def _described(run: Run, query: str, side: str, device: str) -> Query:
    """A row of the clinical table that is written out."""
    pairs = [part.partition("=") for part in query.split(",")]
    given = {name.strip(): value.strip() for name, _, value in pairs}
    row = clinical.row(
        given, run.recipe.dataset.get("categories") or {}, run.recipe.dataset.get("numbers") or {}
    )
    alone = Samples([query], [query], [""], lambda rows: {side: row[None][rows]})
    x = embed_side(run, alone, side, device=device, label="query")
    return Query(", ".join(f"{n}={v}" for n, v in given.items()), _mean(x, query, side), [], "item")


def _mean(x: NDArray[np.float32], query: str, side: str | None) -> NDArray[np.float32]:
    """The mean of unit rows: (N, D) → (D,); rows of zeros, which have not the side, left out."""
    there = x if side is None else x[x.any(axis=1)]
    if not len(there):
        raise UsageError(f"{query} has no {side}: ask by the other side, or for another case.")
    mean: NDArray[np.float32] = unit(there).mean(0)
    return mean


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
