"""Vectors of texts about a slide, from columns of the index."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medcl.archive.scanning import LABEL
from medcl.errors import UsageError
from medcl.registry import did_you_mean


def columns(items: pl.DataFrame, name: str) -> list[str]:
    """The columns ``label.NAME.0``, ``label.NAME.1``, … in the order of their numbers."""
    start = f"{LABEL}{name}."
    found = [c for c in items.columns if c.startswith(start) and c[len(start) :].isdecimal()]
    return sorted(found, key=lambda column: int(column[len(start) :]))


def vectors(items: pl.DataFrame, names: Sequence[str]) -> NDArray[np.float32]:
    """(items, len(names), D): a vector for each text, all zero where an item lacks a number of it.

    Raises:
        UsageError: if the index has no such columns, they hold no numbers, their numbering has
            gaps, or one text's vectors are longer than another's.
    """
    out = []
    for name in names:
        held = columns(items, name)
        if not held:
            known = {c.removeprefix(LABEL).rpartition(".")[0] for c in items.columns}
            raise UsageError(
                f"dataset.texts: the index has no columns '{name}.0', '{name}.1', …; join them "
                f"with medcl index --table TEXTS.csv. {did_you_mean(name, known - {''})}"
            )
        if held != [f"{LABEL}{name}.{n}" for n in range(len(held))]:
            raise UsageError(f"dataset.texts: the columns of '{name}' are not numbered 0, 1, 2, ….")
        if not all(items[column].dtype.is_numeric() for column in held):
            raise UsageError(f"dataset.texts: the columns of '{name}' hold what is no number.")
        values = items.select(pl.col(held).cast(pl.Float32)).fill_null(np.nan).to_numpy()
        whole = np.isfinite(values).all(axis=1, keepdims=True)
        out.append(np.where(whole, values, np.float32(0)))
    if len({values.shape[1] for values in out}) > 1:
        lengths = ", ".join(f"{n} {v.shape[1]}" for n, v in zip(names, out, strict=True))
        raise UsageError(f"dataset.texts: the vectors differ in length ({lengths}).")
    return np.stack(out, axis=1).astype(np.float32, copy=False)
