"""The probes of the online evaluation: nearest neighbours, and a linear model."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from medcl.embeddings import linear as linear_models
from medcl.labels.target import Target


def knn(
    bank: Tensor, bank_label: Tensor, query: Tensor, query_label: Tensor, *, neighbours: int = 20
) -> float:
    """Mean recall over the classes of ``query`` of a weighted nearest-neighbour vote.

    Votes are weighted with exp(cosine / 0.07) (Wu 2018, arXiv 1805.01978). Classes may be
    imbalanced, so recall is averaged over classes; chance level is 1/classes.

    Args:
        bank: (N, D) embeddings with known labels.
        bank_label: (N,) int64, ≥ 0.
        query: (M, D) embeddings.
        query_label: (M,) int64, ≥ 0.
        neighbours: how many vote.
    """
    classes = int(torch.cat([bank_label, query_label]).max()) + 1
    cosine = normalize(query.float(), dim=1) @ normalize(bank.float(), dim=1).T  # (M, N)
    near, which = cosine.topk(min(neighbours, len(bank)), dim=1)  # (M, k)
    weight = ((near - 1) / 0.07).exp()  # −1 keeps the numbers small
    votes = (one_hot(bank_label[which], classes) * weight[..., None]).sum(dim=1)  # (M, C)
    return _balanced_accuracy(votes.argmax(dim=1), query_label)


def linear(bank: Tensor, bank_label: Tensor, query: Tensor, query_label: Tensor) -> float:
    """Mean recall over the classes of ``query`` of a logistic regression fitted to ``bank``.

    Standardised, classes of equal weight, the penalty fixed (`medcl.embeddings.linear`); the
    arguments are those of `knn`.
    """
    classes = int(torch.cat([bank_label, query_label]).max()) + 1
    target = Target("multiclass", tuple(map(str, range(classes))), bank_label.numpy())
    rows = np.arange(len(bank))
    model = linear_models.fit(bank.float().numpy(), target, rows, c=linear_models.FIXED)
    scores = torch.from_numpy(model.predict(query.float().numpy()))
    return _balanced_accuracy(scores.argmax(dim=1), query_label)


def _balanced_accuracy(predicted: Tensor, label: Tensor) -> float:
    correct = (predicted == label).double()
    return float(torch.stack([correct[label == c].mean() for c in label.unique()]).mean())
