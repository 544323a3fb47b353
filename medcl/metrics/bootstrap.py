"""95% intervals by resampling patients, never samples.

Samples of one patient resemble each other, so patients are drawn with replacement, each with all
its samples (the cluster bootstrap: Field & Welsh 2007, doi 10.1111/j.1467-9868.2007.00593.x).
The interval is the figure ± Student's t (patients − 1 degrees of freedom) times the standard
deviation of the resampled figures, which is enlarged by sqrt(P / (P − 1)), as the bootstrap divides
by P (Hesterberg 2015, doi 10.1080/00031305.2015.1089789). Shares, such as AUROC and F1, have it on
the logit scale (Pepe 2003, The Statistical Evaluation of Medical Tests, chapter 5), so it stays
within 0 and 1. Percentiles and BCa are too narrow with few patients: of nominally 95 %, percentiles
hold the truth in 74–89 % with 5 patients, these in 92–98 % (`benchmarks/interval_coverage.py`).

Where all resamples give 0 or 1 they say nothing of the uncertainty; there the other end is the
exact one of a share of so many patients without an exception (Clopper & Pearson 1934, doi
10.1093/biomet/26.4.404): 0.63 for 8 patients.

A resample in which a figure is undefined (a class without a sample) is left out of that figure's
interval and counted in `Interval.undefined`: the interval is then conditional on all classes being
present.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medcl.metrics.metrics import Counted, Floats, Measures, once

CELLS = 2**22
"""Samples × resamples processed at once: bounds the memory (a few arrays of 16 MiB)."""

SHARES = frozenset(
    ("auroc", "auprc", "balanced_accuracy", "f1", "accuracy", "sensitivity", "specificity", "ppv")
    + ("c_index", "dice", "surface_dice", "success", "rate", "own", "ece")
)
"""Measures within 0 and 1, by name; of a class with ``class_`` before it."""


@dataclass(frozen=True)
class Interval:
    """A figure and its 95% interval; None if undefined.

    Attributes:
        value: the figure on the original samples.
        low, high: its ends, None if there was no usable resample.
        undefined: resamples left out because the figure was undefined.
    """

    value: float | None
    low: float | None
    high: float | None
    undefined: int = 0


@dataclass(frozen=True)
class Resampled:
    """What `bootstrap` returns: figures (…) and their resamples (…, R) by name, and how many
    patients were resampled."""

    values: dict[str, NDArray[np.float64]]
    draws: dict[str, NDArray[np.float64]]
    patients: int

    def interval(self, name: str, at: int | None = None) -> Interval:
        """The interval of a measure; ``at`` picks the class of a per-class one."""
        value, draws = self.values[name], self.draws[name]
        if at is not None:
            value, draws = value[at], draws[at]
        share = name.removeprefix("class_") in SHARES
        return summarise(value, draws, self.patients, share=share)

    def minus(self, other: Resampled, name: str, at: int | None = None) -> Interval:
        """The paired difference: both figures are taken on the same resamples.

        Raises:
            ValueError: if the two do not have the same number of resamples.
        """
        value = self.values[name] - other.values[name]
        draws = self.draws[name] - other.draws[name]
        if at is not None:
            value, draws = value[at], draws[at]
        return summarise(value, draws, min(self.patients, other.patients))


def summarise(
    value: Floats | float, draws: Floats, patients: int, *, share: bool = False
) -> Interval:
    """A figure with its 95% interval; see the module's docstring.

    Args:
        value: the figure on the original samples.
        draws: (R,) on the resamples; NaN ones are left out.
        patients: that were resampled.
        share: whether it lies within 0 and 1.
    """
    from scipy.stats import t

    defined = draws[np.isfinite(draws)]
    undefined = len(draws) - len(defined)
    number = float(value)
    if not np.isfinite(number) or not len(defined):
        return Interval(number if np.isfinite(number) else None, None, None, undefined)
    spread = float(np.std(defined, ddof=1)) if len(defined) > 1 else 0.0
    if share and spread == 0 and number in (0.0, 1.0) and patients > 1:
        far = 0.025 ** (1 / patients)  # the exact bound if none of so many patients was an error
        low, high = (far, 1.0) if number == 1.0 else (0.0, 1 - far)
        return Interval(number, low, high, undefined)
    if patients < 2 or spread == 0 or (share and not 0 < number < 1):
        # one patient, or all resamples alike: nothing to measure the uncertainty by
        ends = float(defined.min()), float(defined.max())
        return Interval(number, min(number, ends[0]), max(number, ends[1]), undefined)
    reach = spread * (patients / (patients - 1)) ** 0.5 * float(t.ppf(0.975, patients - 1))
    if not share:
        return Interval(number, number - reach, number + reach, undefined)
    odds, reach = np.log(number / (1 - number)), reach / (number * (1 - number))
    low, high = (1 / (1 + np.exp(-(odds + side * reach))) for side in (-1, 1))
    return Interval(number, float(low), float(high), undefined)


def resample(
    clusters: int, resamples: int, seed: int, step: int | None = None
) -> Iterator[NDArray[np.float32]]:
    """How often each of P clusters is drawn in each of R resamples; columns sum to P.

    Args:
        clusters: P.
        resamples: R.
        seed: of the draws.
        step: resamples at a time, which changes nothing but the memory; None: all.

    Yields:
        (P, R) in blocks (P, ``step``).
    """
    rng = np.random.default_rng(seed)
    even = np.full(clusters, 1 / clusters)
    step = step or resamples
    for start in range(0, resamples, step):
        counts = rng.multinomial(clusters, even, size=min(step, resamples - start))
        yield np.ascontiguousarray(counts.T, np.float32)


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
    patients_drawn = int(code.max()) + 1
    step = max(1, CELLS // len(code))
    draws = resample(patients_drawn, resamples, seed, step)
    parts = [measures(Counted(code, counts)) for counts in draws]
    return Resampled(
        values={name: v[..., 0] for name, v in measures(once(len(code))).items()},
        draws={name: np.concatenate([p[name] for p in parts], axis=-1) for name in parts[0]},
        patients=patients_drawn,
    )
