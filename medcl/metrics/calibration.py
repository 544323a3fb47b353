"""Whether probabilities mean what they say, one number that mends them, and where to cut."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_expit, log_softmax

from medcl.metrics.metrics import Counted, Floats

BINS = 15


@dataclass(frozen=True)
class Reliability:
    """Predictions by how sure they are.

    Attributes:
        confidence: (bins,) mean probability in a bin; NaN in an empty one.
        right: (bins,) share that came true.
        samples: (bins,) how many.
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
        confidence: (N,) the probability of what was predicted.
        right: (N,) whether it came true.
        bins: how many.
    """
    place = np.minimum((np.asarray(confidence) * bins).astype(np.int64), bins - 1)
    samples = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(place, weights=confidence, minlength=bins) / samples
        share = np.bincount(place, weights=right, minlength=bins) / samples
    return Reliability(mean, share, samples)


def expected_error(
    confidence: Floats, right: NDArray[np.bool_], weight: Counted, bins: int = BINS
) -> NDArray[np.float64]:
    """`Reliability.error` under weights, for intervals: (R,).

    Few samples make it large, since every bin then errs by chance; so do resamples, a little.
    """
    place = np.minimum((np.asarray(confidence) * bins).astype(np.int64), bins - 1)
    gaps = weight.by_row(place, bins, right - np.asarray(confidence))
    total = weight.total(np.ones(len(place)))
    return np.asarray(np.abs(gaps).sum(0) / total, np.float64)


def temperature(scores: Floats, truth: NDArray, *, low: float = 0.05, high: float = 20.0) -> float:
    """The T > 0 by which to divide logits: least negative log-likelihood (Guo 2017).

    Args:
        scores: (N, C) logits of classes, or (N, L) of labels.
        truth: (N,) codes, or (N, L) of 1, 0 and NaN. Patients who were not trained on.
        low: bound of T: on few samples without a mistake, the best T is 0.
        high: the other bound.
    """

    def loss(log_t: float) -> float:
        z = scores / np.exp(log_t)
        if truth.ndim == 1:
            return float(-log_softmax(z, axis=1)[np.arange(len(z)), truth].mean())
        terms = np.where(truth == 1, log_expit(z), log_expit(-z))
        return float(-terms[np.isfinite(truth)].mean())

    found = minimize_scalar(loss, bounds=(np.log(low), np.log(high)), method="bounded")
    return float(np.exp(found.x))


def threshold(probability: Floats, positive: NDArray[np.bool_]) -> float:
    """Where to cut for the best balanced accuracy; 0.5 where one of the classes is absent.

    Cuts lie halfway between neighbouring probabilities; of equally good ones the nearest to 0.5.

    Args:
        probability: (N,) of the positive class. Patients who were not trained on.
        positive: (N,) the truth.
    """
    if positive.all() or not positive.any():
        return 0.5
    values = np.unique(probability)
    cuts = np.concatenate([[0.5], (values[1:] + values[:-1]) / 2])
    over = probability[None] >= cuts[:, None]  # (cuts, N)
    balanced = over[:, positive].mean(1) + 1 - over[:, ~positive].mean(1)
    best = np.flatnonzero(balanced >= balanced.max() - 1e-12)
    return float(cuts[best[np.abs(cuts[best] - 0.5).argmin()]])
