"""Samples that are in memory, or in a torch data set: what pretraining needs of an index."""

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
class Given:
    """Samples in memory.

    Attributes:
        samples: all of them.
        items: a row for each: ``id``, ``patient``, ``site`` (null), and its labels ``label.NAME``;
            from these the split is drawn.
        patients_known: whether patients were given; if not, every sample stands for one.
    """

    samples: Samples
    items: pl.DataFrame
    patients_known: bool


def given(
    source: Source,
    patients: Sequence[Any] | None = None,
    labels: Mapping[str, Any] | None = None,
) -> Given:
    """Samples in memory, as pretraining takes them.

    Args:
        source: (N, ...) as the recipe's views take them; see `Source`. Entries of a data set have
            one shape, and are read when they are needed.
        patients: (N,) whose each sample is, by any key. None: unknown. The run knows them as p0,
            p1, … in the order in which they first appear: the keys are written nowhere.
        labels: name → (N,), for what the recipe asks labels for.

    Raises:
        UsageError: for a source without length, or entries of another number.
    """
    if isinstance(source, IterableDataset) or not hasattr(source, "__len__"):
        raise UsageError(
            "The samples are read in another order every epoch, so they need a length and "
            "positions: give an array, or a data set with __len__ and __getitem__."
        )
    count = len(source)
    if not count:
        raise UsageError("There are no samples.")
    name, read = _opened(source, count)
    columns = {key: np.asarray(values) for key, values in (labels or {}).items()}
    for what, values in {"patients": patients, **columns}.items():
        if values is not None and len(values) != count:
            raise UsageError(f"{what}: {len(values):,} entries for {count:,} samples.")
    items = encoded([name], np.zeros(count, np.uint8))
    ids = Formatted("{}:{}", items, (np.arange(count, dtype=np.uint32),))
    keys = ids.tolist() if patients is None else [_key(patient) for patient in patients]
    number = {key: n for n, key in enumerate(dict.fromkeys(keys))}
    who = [f"p{number[key]}" for key in keys]
    samples = Samples(ids, items, who, read, columns)
    rows = {f"label.{key}": values.tolist() for key, values in columns.items()}
    frame = pl.DataFrame({"id": ids.tolist(), "patient": who, **rows}).with_columns(
        pl.lit(None, pl.String).alias("site")
    )
    return Given(samples, frame, patients is not None)


def _key(patient: Any) -> str:
    """A patient's key as text; 7 and 7.0 are one.

    Raises:
        UsageError: if it is missing.
    """
    number = isinstance(patient, float | np.floating)
    if patient is None or (number and not np.isfinite(patient)) or patient == "":
        raise UsageError(
            "Some samples have no patient: leave them out, or give no patients at all, in which "
            "case the split is by sample."
        )
    return str(int(patient)) if number and float(patient).is_integer() else str(patient)


def _opened(source: Source, count: int) -> tuple[str, Any]:
    """A name that tells arrays of other content apart, and what reads batches."""
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
        raise UsageError(f"The data set's samples differ in shape ({shapes}): make them alike.")
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
