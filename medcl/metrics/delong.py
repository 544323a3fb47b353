"""Comparison of two AUROCs on the same samples: DeLong's test, and its form for clustered samples.

DeLong 1988 (doi 10.2307/2531595) assumes independent samples. With several samples per patient the
interval is too narrow: Obuchowski 1997 (doi 10.2307/2533958) first sums the same structural
components within each patient. With one sample per patient the two agree up to the factor
I / (I − 1) of their variances. Components are computed from mid-ranks (Sun & Xu 2014, doi
10.1109/LSP.2014.2337313): O(n log n).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medcl.errors import UsageError


@dataclass(frozen=True)
class Compared:
    """A paired comparison of two AUROCs.

    Attributes:
        a, b: the two AUROCs.
        difference: a − b, with its 95% interval ``low`` … ``high`` (normal approximation).
        p: two-sided; 1 if the two scores never differ.
        patients: clusters; the approximation needs about twenty with and twenty without the class.
    """

    a: float
    b: float
    difference: float
    low: float
    high: float
    p: float
    patients: int


def delong(
    target: NDArray[np.bool_], a: NDArray, b: NDArray, patients: NDArray | None = None
) -> Compared:
    """Test whether two scores' AUROCs differ.

    Args:
        target: (N,) True for positive samples.
        a: (N,) a score, higher for positive.
        b: (N,) another, of the same samples.
        patients: (N,) keys; None: one sample per patient.

    Raises:
        UsageError: if positives or negatives are missing, or there are fewer than two patients.
    """
    target = np.asarray(target, bool)
    if not target.any() or target.all():
        raise UsageError("AUROCs need positive and negative samples.")
    code = np.arange(len(target))
    if patients is not None:
        code = np.unique(patients, return_inverse=True)[1]
    clusters = int(code.max()) + 1
    if clusters < 2:
        raise UsageError("A comparison needs two patients or more.")
    scores = np.stack([np.asarray(a, np.float64), np.asarray(b, np.float64)])
    v10, v01, auc = _components(target, scores)  # (2, m), (2, n), (2,)
    m, n = v10.shape[1], v01.shape[1]
    # Each patient's sums of centred components over their positives and over their negatives.
    x, y = np.zeros((2, clusters)), np.zeros((2, clusters))
    for row in range(2):
        x[row] = np.bincount(code[target], v10[row] - auc[row], clusters)
        y[row] = np.bincount(code[~target], v01[row] - auc[row], clusters)
    both = x / m + y / n  # each patient's contribution to the AUROCs' deviation
    if patients is None:
        positive, negative = x[:, target] / m, y[:, ~target] / n
        s = positive @ positive.T * m / (m - 1) if m > 1 else np.zeros((2, 2))
        s = s + (negative @ negative.T * n / (n - 1) if n > 1 else 0)
    else:
        s = both @ both.T * clusters / (clusters - 1)
    variance = float(s[0, 0] + s[1, 1] - 2 * s[0, 1])
    difference = float(auc[0] - auc[1])
    width = 1.959963984540054 * np.sqrt(max(variance, 0.0))
    return Compared(
        a=float(auc[0]),
        b=float(auc[1]),
        difference=difference,
        low=difference - float(width),
        high=difference + float(width),
        p=_p(difference, variance),
        patients=clusters,
    )


def _components(
    target: NDArray[np.bool_], scores: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """For each score: the share of negatives below each positive, the share of positives above each
    negative (a tie counts half), and their common mean, the AUROC."""
    from scipy.stats import rankdata

    m, n = int(target.sum()), int((~target).sum())
    every = rankdata(scores, axis=1)  # (2, N)
    positive, negative = scores[:, target], scores[:, ~target]
    v10 = (every[:, target] - rankdata(positive, axis=1)) / n
    v01 = 1 - (every[:, ~target] - rankdata(negative, axis=1)) / m
    return v10, v01, v10.mean(1)


def _p(difference: float, variance: float) -> float:
    from scipy.stats import norm

    if variance <= 1e-18:
        return 1.0 if abs(difference) < 1e-12 else 0.0
    return float(2 * norm.sf(abs(difference) / np.sqrt(variance)))
