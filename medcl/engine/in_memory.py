"""Samples in memory or in a torch data set, for pretraining without an index."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from medcl.errors import UsageError
from medcl.plugin import Samples
from medcl.strings import Formatted, encoded

Source = np.ndarray | Tensor | Dataset[Any]
"""(N, ...) samples; or a data set of N, whose entries are x, a tuple (x, …), or a mapping with "x".
"""


@dataclass(frozen=True)
class InMemory:
    """Samples in memory.

    Attributes:
        samples: all of them.
        items: a row for each, from which the split is drawn: ``id``, ``patient``, ``site`` (null),
            and labels ``label.NAME``.
        patients_known: whether patients were given; if not, each sample counts as one patient.
    """

    samples: Samples
    items: pl.DataFrame
    patients_known: bool


def given(
    source: Source,
    patients: Sequence[Any] | None = None,
    labels: Mapping[str, Any] | None = None,
) -> InMemory:
    """Samples in memory, in the form that pretraining takes.

    Args:
        source: (N, ...) as the recipe's views take them; see `Source`. Entries of a data set have
            one shape, and are read on demand.
        patients: (N,) patient keys of any type; None: unknown. The run replaces them by p0, p1, …
            in order of first appearance; the keys themselves are written nowhere.
        labels: name → (N,), for parts of the recipe that need labels.

    Raises:
        UsageError: if the source has no length, or the numbers of entries differ.
    """
    if isinstance(source, IterableDataset) or not hasattr(source, "__len__"):
        raise UsageError(
            "Each epoch reads the samples in a new order, so the source needs a length and "
            "positions: give an array, or a data set with __len__ and __getitem__."
        )
    count = len(source)
    if not count:
        raise UsageError("There are no samples.")
    name, read = _reader(source, count)
    columns = {key: np.asarray(values) for key, values in (labels or {}).items()}
    for what, values in {"patients": patients, **columns}.items():
        if values is not None and len(values) != count:
            raise UsageError(f"{what}: {len(values):,} entries for {count:,} samples.")
    items = encoded([name], np.zeros(count, np.uint8))
    ids = Formatted("{}:{}", items, (np.arange(count, dtype=np.uint32),))
    keys = ids.tolist() if patients is None else [_key(patient) for patient in patients]
    number = {key: n for n, key in enumerate(dict.fromkeys(keys))}
    codes = [f"p{number[key]}" for key in keys]
    samples = Samples(ids, items, codes, read, columns)
    rows = {f"label.{key}": values.tolist() for key, values in columns.items()}
    frame = pl.DataFrame({"id": ids.tolist(), "patient": codes, **rows}).with_columns(
        pl.lit(None, pl.String).alias("site")
    )
    return InMemory(samples, frame, patients is not None)


def _key(patient: Any) -> str:
    """A patient's key as text; 7 and 7.0 are the same key.

    Raises:
        UsageError: if it is missing.
    """
    number = isinstance(patient, float | np.floating)
    if patient is None or (number and not np.isfinite(patient)) or patient == "":
        raise UsageError(
            "Some samples have no patient: leave them out, or give no patients at all: then the "
            "split is by sample."
        )
    return str(int(patient)) if number and float(patient).is_integer() else str(patient)


def _reader(source: Source, count: int) -> tuple[str, Any]:
    """A name, which depends on the content of an array, and the function that reads batches."""
    if not isinstance(source, np.ndarray | Tensor):
        return f"dataset-{count}", partial(_of_dataset, source)
    array = source.detach().cpu().numpy() if isinstance(source, Tensor) else source
    if array.dtype.kind not in "fiub":
        raise UsageError(f"The samples are of type {array.dtype}: give numbers.")
    content = hashlib.sha256(f"{array.shape} {array.dtype}".encode())
    for row in array:
        content.update(np.ascontiguousarray(row).tobytes())
    return f"array-{content.hexdigest()[:16]}", partial(_of_array, array)


def _of_array(array: np.ndarray, positions: np.ndarray) -> dict[str, np.ndarray]:
    return {"x": np.asarray(array[positions], np.float32)}


def _of_dataset(source: Dataset[Any], positions: np.ndarray) -> dict[str, np.ndarray]:
    entries = [_x(source[int(position)]) for position in positions]
    if len({entry.shape for entry in entries}) > 1:
        shapes = ", ".join(sorted({str(tuple(entry.shape)) for entry in entries}))
        raise UsageError(
            f"The data set's samples differ in shape ({shapes}): give all of them one shape."
        )
    return {"x": np.stack(entries)}


def _x(entry: Any) -> np.ndarray:
    """The input in an entry of a data set, float32."""
    if isinstance(entry, Mapping):
        if "x" not in entry:
            raise UsageError(f"The data set's entries hold {', '.join(map(str, entry))}, no x.")
        entry = entry["x"]
    elif isinstance(entry, tuple | list):
        entry = entry[0]
    return torch.as_tensor(entry).detach().cpu().float().numpy()
