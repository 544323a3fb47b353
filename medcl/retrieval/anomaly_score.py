"""An anomaly score for embeddings: dissimilarity to the training samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medcl.embeddings.embeddings import evenly, unit
from medcl.retrieval.anomaly import score

NEIGHBOURS = 5
BANK = 4096
"""Training embeddings kept as reference, an even share of every patient's."""
Floats = NDArray[np.float32]


class Scores(NamedTuple):
    """See `AnomalyScorer.score`."""

    knn: Floats
    mahalanobis: Floats
    anomaly: Floats


@dataclass(frozen=True)
class AnomalyScorer:
    """Reference of the training samples.

    Attributes:
        mean: (D,) of their embeddings, and
        scale: (D,) their standard deviation: embeddings are standardised before comparison, since
            a common component would make any two similar.
        bank: (N, D) standardised rows of unit length.
        whitener: (D, D); the length of its product with a row is the Mahalanobis distance.
        usual: (N,) ascending kNN scores of the bank against *other* patients' rows: scores
            expected of a normal, unseen patient.
    """

    mean: Floats
    scale: Floats
    bank: Floats
    whitener: Floats
    usual: Floats

    def score(self, x: Floats) -> Scores:
        """Three scores of embeddings (N, D), each (N,); higher is more unusual.

        ``knn`` (1 − mean cosine to the nearest) and ``mahalanobis`` are scores of
        `medcl.retrieval.anomaly`, on standardised embeddings. ``anomaly`` is the share
        of training samples with a lower kNN score against other patients: above 0.99 a sample is
        more unusual than 99 in 100 of those.
        """
        rows = (x - self.mean) / self.scale
        knn = score(unit(rows), self.bank, how="knn", k=NEIGHBOURS)
        mahalanobis = np.linalg.norm(rows @ self.whitener, axis=1)
        anomaly = np.searchsorted(self.usual, knn) / len(self.usual)
        return Scores(*(np.asarray(a, np.float32) for a in (knn, mahalanobis, anomaly)))


def learn(x: Floats, patients: NDArray, *, seed: int = 0) -> AnomalyScorer:
    """Fit a scorer on training samples.

    Args:
        x: (N, D) embeddings.
        patients: (N,) keys. With a single patient, ``usual`` compares its own samples.
        seed: of the selection of samples.
    """
    from sklearn.covariance import LedoitWolf

    mean, scale = x.mean(axis=0), x.std(axis=0)
    scale[scale == 0] = 1
    selected = evenly(patients, BANK, seed)
    rows = (x[selected] - mean) / scale
    precision = LedoitWolf(assume_centered=True).fit(rows.astype(np.float64)).precision_
    values, vectors = np.linalg.eigh(precision)
    bank = unit(rows)
    several = len(np.unique(patients[selected])) > 1
    groups = (
        patients[selected] if several else np.arange(len(selected))
    )  # a sample is never its own neighbour
    usual = np.sort(score(bank, bank, how="knn", k=NEIGHBOURS, groups=(groups, groups)))
    whitener = (vectors * np.sqrt(np.maximum(values, 0))).astype(np.float32)
    return AnomalyScorer(mean.astype(np.float32), scale.astype(np.float32), bank, whitener, usual)
