"""Calibration error of probabilities, temperature scaling, and the decision threshold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_expit, log_softmax

from medcl.metrics.metrics import Counted, Floats

BINS = 15


@dataclass(frozen=True)
class Reliability:
    """Predictions binned by confidence.

    Attributes:
        confidence: (bins,) mean probability in a bin; NaN in an empty one.
        right: (bins,) share of correct predictions.
        samples: (bins,) number of predictions.
    """

    confidence: NDArray[np.float64]
    right: NDArray[np.float64]
    samples: NDArray[np.int64]

    @property
    def error(self) -> float:
        """Expected calibration error: Σ share of a bin · |right − confidence| (Guo 2017)."""
        used = self.samples > 0
        gap = np.abs(self.right[used] - self.confidence[used])
        return float((gap * self.samples[used]).sum() / self.samples.sum())


def reliability(confidence: Floats, right: NDArray[np.bool_], bins: int = BINS) -> Reliability:
    """Sort predictions into bins of equal width (Guo 2017, arXiv 1706.04599).

    Args:
        confidence: (N,) the probability of the prediction.
        right: (N,) True where it is correct.
        bins: number of bins.
    """
    bin_of = np.minimum((np.asarray(confidence) * bins).astype(np.int64), bins - 1)
    samples = np.bincount(bin_of, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(bin_of, weights=confidence, minlength=bins) / samples
        share = np.bincount(bin_of, weights=right, minlength=bins) / samples
    return Reliability(mean, share, samples)


def expected_error(
    confidence: Floats, right: NDArray[np.bool_], weight: Counted, bins: int = BINS
) -> NDArray[np.float64]:
    """`Reliability.error` under weights, for intervals: (R,).

    Few samples bias it upwards, since every bin then deviates at random;
    resampling does so slightly.
    """
    bin_of = np.minimum((np.asarray(confidence) * bins).astype(np.int64), bins - 1)
    gaps = weight.by_row(bin_of, bins, right - np.asarray(confidence))
    total = weight.total(np.ones(len(bin_of)))
    return np.asarray(np.abs(gaps).sum(0) / total, np.float64)


def temperature(scores: Floats, target: NDArray, *, low: float = 0.05, high: float = 20.0) -> float:
    """The T > 0 by which to divide logits: least negative log-likelihood (Guo 2017).

    Args:
        scores: (N, C) logits of classes, or (N, L) of labels.
        target: (N,) codes, or (N, L) of 1, 0 and NaN. Not of training patients.
        low: lower bound of T: for few samples, all correct, the best T is 0.
        high: upper bound.
    """
    from scipy.optimize import minimize_scalar  # 0.6 s of import, for training alone

    def loss(log_t: float) -> float:
        z = scores / np.exp(log_t)
        if target.ndim == 1:
            return float(-log_softmax(z, axis=1)[np.arange(len(z)), target].mean())
        terms = np.where(target == 1, log_expit(z), log_expit(-z))
        return float(-terms[np.isfinite(target)].mean())

    fit = minimize_scalar(loss, bounds=(np.log(low), np.log(high)), method="bounded")
    return float(np.exp(fit.x))


def threshold(probability: Floats, positive: NDArray[np.bool_]) -> float:
    """The threshold with the best balanced accuracy; 0.5 if one of the classes is absent.

    Candidates lie halfway between neighbouring probabilities; ties go to the nearest to 0.5.

    Args:
        probability: (N,) of the positive class. Not of training patients.
        positive: (N,) True for positive samples.
    """
    if positive.all() or not positive.any():
        return 0.5
    values = np.unique(probability)
    cuts = np.concatenate([[0.5], (values[1:] + values[:-1]) / 2])
    over = probability[None] >= cuts[:, None]  # (cuts, N)
    balanced = over[:, positive].mean(1) + 1 - over[:, ~positive].mean(1)
    best = np.flatnonzero(balanced >= balanced.max() - 1e-12)
    return float(cuts[best[np.abs(cuts[best] - 0.5).argmin()]])
