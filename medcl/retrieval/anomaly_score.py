"""How unlike the training samples something is: an anomaly score for embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medcl.embeddings.embeddings import evenly, unit
from medcl.retrieval.anomaly import score

NEIGHBOURS = 5
BANK = 4096
"""Training embeddings that are kept to compare with, an even share of every patient's."""
Floats = NDArray[np.float32]


class Scores(NamedTuple):
    """See `AnomalyScorer.score`."""

    knn: Floats
    mahalanobis: Floats
    anomaly: Floats


@dataclass(frozen=True)
class AnomalyScorer:
    """What is remembered of the training samples.

    Attributes:
        mean: (D,) of their embeddings, and
        scale: (D,) their standard deviation: embeddings are compared after both are taken off, for
            what all have in common would make any two of them alike.
        bank: (N, D) such rows, of unit length.
        whitener: (D, D) its product with a row has the Mahalanobis distance for a length.
        usual: (N,) ascending kNN scores of the bank against *other* patients' rows: what samples of
            an ordinary, unseen person get.
    """

    mean: Floats
    scale: Floats
    bank: Floats
    whitener: Floats
    usual: Floats

    def score(self, x: Floats) -> Scores:
        """Three scores of embeddings (N, D), each (N,); all rise with strangeness.

        ``knn`` (1 − mean cosine to the nearest) and ``mahalanobis`` are scores of
        `medcl.retrieval.anomaly`, on standardised embeddings. ``anomaly`` is the share
        of training samples that are less strange to other patients by kNN: above 0.99 a sample is
        stranger than 99 in 100 of those.
        """
        rows = (x - self.mean) / self.scale
        knn = score(unit(rows), self.bank, how="knn", k=NEIGHBOURS)
        mahalanobis = np.linalg.norm(rows @ self.whitener, axis=1)
        anomaly = np.searchsorted(self.usual, knn) / len(self.usual)
        return Scores(*(np.asarray(a, np.float32) for a in (knn, mahalanobis, anomaly)))


def learn(x: Floats, patients: NDArray, *, seed: int = 0) -> AnomalyScorer:
    """Remember training samples.

    Args:
        x: (N, D) embeddings.
        patients: (N,) whose they are. With one patient alone, ``usual`` is among its own samples.
        seed: which samples are kept.
    """
    from sklearn.covariance import LedoitWolf

    mean, scale = x.mean(axis=0), x.std(axis=0)
    scale[scale == 0] = 1
    kept = evenly(patients, BANK, seed)
    rows = (x[kept] - mean) / scale
    precision = LedoitWolf(assume_centered=True).fit(rows.astype(np.float64)).precision_
    values, vectors = np.linalg.eigh(precision)
    bank = unit(rows)
    several = len(np.unique(patients[kept])) > 1
    groups = patients[kept] if several else np.arange(len(kept))  # none is its own neighbour
    usual = np.sort(score(bank, bank, how="knn", k=NEIGHBOURS, groups=(groups, groups)))
    whitener = (vectors * np.sqrt(np.maximum(values, 0))).astype(np.float32)
    return AnomalyScorer(mean.astype(np.float32), scale.astype(np.float32), bank, whitener, usual)
