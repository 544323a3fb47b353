"""A search query as an embedding: a sample or item of an index, files, or a row of a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medcl.archive import clinical
from medcl.archive.index import Index
from medcl.embeddings.embeddings import unit
from medcl.embeddings.modalities import embed_modality
from medcl.errors import MedclError, UsageError
from medcl.ingestion import indexed
from medcl.plugin import Samples
from medcl.registry import did_you_mean
from medcl.retrieval.bank import Bank, Level
from medcl.run import Run, load_samples
from medcl.strings import storable


@dataclass(frozen=True)
class Query:
    """A query.

    Attributes:
        name: to show: an item's or sample's id, "files", or the values.
        x: (D,) its embedding.
        patients: its patients' keys.
        level: an item or a sample.
        matched: whether patient keys are comparable with those of the searched index.
    """

    name: str
    x: NDArray[np.float32]
    patients: list[str]
    level: Level
    matched: bool = True


def asked_for(
    run: Run,
    index: Index,
    bank: Bank,
    query: str,
    embed: Callable[[NDArray[np.int64]], NDArray[np.float32]],
    *,
    modality: str | None = None,
    task: str | None = None,
    key_file: Path | None = None,
    batch_size: int = 512,
    device: str = "auto",
) -> Query:
    """Find a query, or read it.

    Args:
        run: a finished run.
        index: where ids and paths are looked up.
        bank: all samples of that index, in whichever modality.
        query: an item's or sample's id, an item's path in the archive, or a file or folder
            elsewhere, which is read here and leaves nothing behind; if the modality is a clinical
            table also its values, ``"sex=F, age=63"``, where the rest is missing.
        embed: positions in ``bank`` → those samples in ``modality``; unused for other queries.
        modality: in which it is embedded, see `medcl.embeddings.modalities`.
        task: which task's samples.
        key_file: of files elsewhere, see `medcl.ingestion.indexed`.
        batch_size: samples a forward pass.
        device: see `medcl.embeddings.embeddings.embed`.

    Raises:
        UsageError: if it is not found, gives no samples, or lacks this modality.
    """
    rows = (bank.ids == query).arg_true().to_numpy()[:1].astype(np.int64)
    if len(rows):
        patient = bank.embeddings.patients[int(rows[0])]
        return Query(query, _mean(embed(rows), query, modality), [patient], "sample")
    item = query if (bank.items == query).any() else _by_path(index, query)
    if item is not None:
        rows = (bank.items == item).arg_true().to_numpy().astype(np.int64)
        if not len(rows):
            raise UsageError(f"{query} is in the index, but gives no samples to compare.")
        patient = bank.embeddings.patients[int(rows[0])]
        return Query(item, _mean(embed(rows), query, modality), [patient], "item")
    if not Path(query).exists():
        if modality is not None and "=" in query:
            return _described(run, query, modality, device)
        raise UsageError(
            f"{query} is neither an item or sample of {index.path} nor a file. "
            f"{did_you_mean(query, list(index.items['id'][:1000]))}"
        )
    with indexed(run, [Path(query)], key_file=key_file) as visited:
        samples = load_samples(run.recipe, visited.path, task=task)
        if not len(samples):
            raise UsageError(f"{query} gives no samples to compare.")
        x = embed_modality(
            run, samples, modality, batch_size=batch_size, device=device, label="query"
        )
        matched = visited.key_check is not None and visited.key_check == index.key_check
        patients = sorted(set(samples.patients))
        return Query("files", _mean(x, query, modality), patients, "item", matched)


def _described(run: Run, query: str, modality: str, device: str) -> Query:
    """A row of the clinical table, given as ``name=value, ...``."""
    pairs = [part.partition("=") for part in query.split(",")]
    values = {name.strip(): value.strip() for name, _, value in pairs}
    row = clinical.row(
        values, run.recipe.dataset.get("categories") or {}, run.recipe.dataset.get("numbers") or {}
    )
    sample = Samples([query], [query], [""], lambda rows: {modality: row[None][rows]})
    x = embed_modality(run, sample, modality, device=device, label="query")
    name = ", ".join(f"{n}={v}" for n, v in values.items())
    return Query(name, _mean(x, query, modality), [], "item")


def _mean(x: NDArray[np.float32], query: str, modality: str | None) -> NDArray[np.float32]:
    """Mean of unit rows: (N, D) → (D,); rows of zeros lack the modality and are left out."""
    present = x if modality is None else x[x.any(axis=1)]
    if not len(present):
        raise UsageError(
            f"{query} has no {modality}: query by the other modality, or with another case."
        )
    mean: NDArray[np.float32] = unit(present).mean(0)
    return mean


def _by_path(index: Index, query: str) -> str | None:
    """The item with that key in the archive: a path relative to it, or an absolute path."""
    try:
        table, archive = index.paths, index.archive
    except MedclError:  # an index without its private folder is searched by ids alone
        return None
    path = Path(query)
    names = {query}
    if path.is_absolute() and path.is_relative_to(archive):
        names.add(path.relative_to(archive).as_posix())
    elif path.exists() and path.resolve().is_relative_to(archive):
        names.add(path.resolve().relative_to(archive).as_posix())
    names = {storable(name) for name in names}
    rows = table.filter(
        pl.col("key").is_in(names) | pl.col("files").list.eval(pl.element().is_in(names)).list.any()
    )
    return str(rows["id"][0]) if len(rows) else None
