"""Figures by subgroup: sex, age band, site, scanner, or another column of the index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medcl.audit.compare import Predictions
from medcl.metrics.bootstrap import Interval

AGES = (18, 40, 65, 80)
"""Edges of age bands in years, for a column named as an age."""
FEW = 5
"""Groups of fewer patients are listed but not measured: their figures would be noise."""
MOST = 12
"""Maximum number of values of a column, the most frequent; the rest become "other"."""


@dataclass(frozen=True)
class Subgroup:
    """One group of test patients.

    Attributes:
        column: of the index.
        value: of that column; "missing" if it has none.
        patients: number in the group.
        samples: their number.
        metrics: figures with intervals over its patients; empty for fewer than `FEW`.
        difference: the group's minus all others', same measures, groups resampled independently.
    """

    column: str
    value: str
    patients: int
    samples: int
    metrics: dict[str, Interval]
    difference: dict[str, Interval]


def subgroups(
    predictions: Predictions,
    columns: Mapping[str, Sequence[object]],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> list[Subgroup]:
    """Measure each group of each column.

    Args:
        predictions: of test samples.
        columns: name → (N,) values of the same samples; numbers are put into bands (ages at
            `AGES`, others at their quartiles).
        resamples: of patients.
        seed: of the resamples.
    """
    groups = []
    for column, values in columns.items():
        bands = banded(column, values)
        names, counts = np.unique(bands, return_counts=True)
        by_frequency = names[np.argsort(-counts, kind="stable")]
        if len(names) > MOST:
            bands = np.where(np.isin(bands, by_frequency[: MOST - 1]), bands, "other")
            names = np.unique(bands)
        if len(names) < 2:
            continue  # a single group: nothing to compare
        for name in names:
            groups.append(_one(predictions, column, str(name), bands == name, resamples, seed))
    return groups


def banded(column: str, values: Sequence[object]) -> NDArray[np.str_]:
    """Values as names of groups: (N,)."""
    series = pl.Series(values, strict=False)
    missing = series.is_null().to_numpy()
    if series.dtype.is_numeric() and series.n_unique() > MOST:
        numbers = series.cast(pl.Float64).fill_null(np.nan).to_numpy()
        missing = ~np.isfinite(numbers)
        is_age = column.lower().split(".")[-1] in ("age", "patient_age", "age_years")
        edges = (
            np.array(AGES, float)
            if is_age
            else np.unique(np.quantile(numbers[~missing], (0.25, 0.5, 0.75)))
        )
        names = [f"below {edges[0]:g}"]
        names += [f"{low:g} to {high:g}" for low, high in pairwise(edges)]
        names += [f"{edges[-1]:g} and above"]
        band_of = np.searchsorted(edges, np.where(missing, edges[0], numbers), side="right")
        out = np.array(names)[band_of]
    else:
        out = np.array([str(v) for v in series.to_list()])
    return np.where(missing | (out == ""), "missing", out)


def _one(
    predictions: Predictions,
    column: str,
    value: str,
    inside: NDArray[np.bool_],
    resamples: int,
    seed: int,
) -> Subgroup:
    patients = predictions.patients
    count = len(np.unique(patients[inside]))
    group = Subgroup(column, value, count, int(inside.sum()), {}, {})
    if count < FEW or len(np.unique(patients[~inside])) < FEW:
        return group
    own, others = (
        predictions.at(np.flatnonzero(rows)).resampled(resamples, seed + shift)
        for shift, rows in enumerate((inside, ~inside))
    )
    names = [name for name in own.values if not name.startswith("class_")]
    return Subgroup(
        column,
        value,
        count,
        group.samples,
        {name: own.interval(name) for name in names},
        {name: own.minus(others, name) for name in names},
    )
