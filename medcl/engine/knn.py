"""The k-nearest-neighbour probe of the online evaluation, which trains nothing."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot


def balanced_accuracy(
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
    correct = (votes.argmax(dim=1) == query_label).double()
    recalls = [correct[query_label == c].mean() for c in query_label.unique()]
    return float(torch.stack(recalls).mean())
