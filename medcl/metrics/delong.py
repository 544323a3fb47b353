"""Two AUROCs of the same samples compared: DeLong's test, and its form for several a patient.

DeLong 1988 (doi 10.2307/2531595) takes samples as independent. Of several samples a patient that is
wrong, and the interval too narrow: Obuchowski 1997 (doi 10.2307/2533958) sums the same structural
components within each patient first. With one sample a patient the two agree but for the factor
I / (I − 1) of their variances. Components are made by mid-ranks (Sun & Xu 2014, doi
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
        a, b: the two.
        difference: a − b, with its 95% interval ``low`` … ``high`` (normal approximation).
        p: two-sided; 1 where the two never differ.
        patients: clusters; the approximation wants some twenty with and twenty without the class.
    """

    a: float
    b: float
    difference: float
    low: float
    high: float
    p: float
    patients: int


def delong(
    truth: NDArray[np.bool_], a: NDArray, b: NDArray, patients: NDArray | None = None
) -> Compared:
    """Is one score's AUROC larger than the other's?

    Args:
        truth: (N,) which samples are positive.
        a: (N,) a score, higher for positive.
        b: (N,) another, of the same samples.
        patients: (N,) whose they are; None: one sample a patient.

    Raises:
        UsageError: if there are not positives and negatives, or fewer than two patients.
    """
    truth = np.asarray(truth, bool)
    if not truth.any() or truth.all():
        raise UsageError("AUROCs need positive and negative samples.")
    who = np.arange(len(truth)) if patients is None else np.unique(patients, return_inverse=True)[1]
    clusters = int(who.max()) + 1
    if clusters < 2:
        raise UsageError("A comparison needs two patients or more.")
    scores = np.stack([np.asarray(a, np.float64), np.asarray(b, np.float64)])
    v10, v01, auc = _components(truth, scores)  # (2, m), (2, n), (2,)
    m, n = v10.shape[1], v01.shape[1]
    # Each patient's sums of centred components over their positives and over their negatives.
    x, y = np.zeros((2, clusters)), np.zeros((2, clusters))
    for row in range(2):
        x[row] = np.bincount(who[truth], v10[row] - auc[row], clusters)
        y[row] = np.bincount(who[~truth], v01[row] - auc[row], clusters)
    both = x / m + y / n  # what each patient adds to the AUROCs' deviation
    if patients is None:
        positive, negative = x[:, truth] / m, y[:, ~truth] / n
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
    truth: NDArray[np.bool_], scores: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """For each score: of every positive the share of negatives below it, of every negative the
    share of positives above it (a tie counts half), and their common mean, the AUROC."""
    from scipy.stats import rankdata

    m, n = int(truth.sum()), int((~truth).sum())
    every = rankdata(scores, axis=1)  # (2, N)
    positive, negative = scores[:, truth], scores[:, ~truth]
    v10 = (every[:, truth] - rankdata(positive, axis=1)) / n
    v01 = 1 - (every[:, ~truth] - rankdata(negative, axis=1)) / m
    return v10, v01, v10.mean(1)


def _p(difference: float, variance: float) -> float:
    from scipy.stats import norm

    if variance <= 1e-18:
        return 1.0 if abs(difference) < 1e-12 else 0.0
    return float(2 * norm.sf(abs(difference) / np.sqrt(variance)))
