"""95% intervals by resampling patients, never samples.

Samples of one patient resemble each other, so patients are drawn with replacement, each with all
its samples (the cluster bootstrap: Field & Welsh 2007, doi 10.1111/j.1467-9868.2007.00593.x).
Intervals are percentiles of the resampled figures. With few patients such intervals are too narrow:
for the mean of values with a patient effect we measured that 95% intervals covered the true value
in 86% of trials with 5 patients, 89% with 7, 92% with 22 and 95% with 60. Read them as a lower
bound of the uncertainty.

A resample in which a figure is undefined (a class without a sample) is left out of that figure's
interval and counted in `Interval.undefined`: the interval is then conditional on all classes being
present.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medcl.metrics.metrics import Counted, Floats, Measures, once

CELLS = 2**22
"""Samples × resamples processed at once: bounds the memory (a few arrays of 16 MiB)."""


@dataclass(frozen=True)
class Interval:
    """A figure and its 95% interval; None if undefined.

    Attributes:
        value: the figure on the original samples.
        low: 2.5th percentile over resamples, None if there was no usable resample.
        high: 97.5th percentile.
        undefined: resamples left out because the figure was undefined.
    """

    value: float | None
    low: float | None
    high: float | None
    undefined: int = 0


@dataclass(frozen=True)
class Resampled:
    """What `bootstrap` returns: figures (…) and their resamples (…, R) by name."""

    values: dict[str, NDArray[np.float64]]
    draws: dict[str, NDArray[np.float64]]

    def interval(self, name: str, at: int | None = None) -> Interval:
        """The interval of a measure; ``at`` picks the class of a per-class one."""
        value, draws = self.values[name], self.draws[name]
        return summarise(value, draws) if at is None else summarise(value[at], draws[at])

    def minus(self, other: Resampled, name: str) -> Interval:
        """The paired difference: both figures are taken on the same resamples.

        Raises:
            ValueError: if the two do not have the same number of resamples.
        """
        difference = self.draws[name] - other.draws[name]
        return summarise(self.values[name] - other.values[name], difference)


def summarise(value: Floats | float, draws: Floats) -> Interval:
    """A figure with the 2.5th and 97.5th percentile of its resamples; NaN ones are left out."""
    defined = draws[np.isfinite(draws)]
    low, high = (None, None)
    if len(defined):
        low, high = (float(q) for q in np.quantile(defined, (0.025, 0.975)))
    number = float(value)
    figure = number if np.isfinite(number) else None
    return Interval(figure, low, high, len(draws) - len(defined))


def resample(clusters: int, resamples: int, seed: int) -> NDArray[np.float32]:
    """How often each of P clusters is drawn in each of R resamples: (P, R); columns sum to P."""
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=resamples)
    return np.ascontiguousarray(counts.T, np.float32)


def bootstrap(
    measures: Callable[[Counted], Measures],
    patients: Sequence[str] | NDArray,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Resampled:
    """Measure the original samples, and every resample of patients.

    The same patients, number and seed give the same resamples: two predictors measured this way are
    paired, and `Resampled.minus` is the interval of their difference.

    Args:
        measures: weights with R columns → measures with R in the last place; see
            `medcl.metrics.metrics`.
        patients: (N,) keys, one per sample.
        resamples: their number.
        seed: of the draws.
    """
    _, code = np.unique(np.asarray(patients), return_inverse=True)
    counts = resample(int(code.max()) + 1, resamples, seed)
    step = max(1, CELLS // len(code))
    parts = [
        measures(Counted(code, counts[:, start : start + step]))
        for start in range(0, resamples, step)
    ]
    return Resampled(
        values={name: v[..., 0] for name, v in measures(once(len(code))).items()},
        draws={name: np.concatenate([p[name] for p in parts], axis=-1) for name in parts[0]},
    )
