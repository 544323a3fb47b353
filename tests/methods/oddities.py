"""One kind of digit to learn, and all others to be told from it; what `digits` offers of all."""

from __future__ import annotations

from functools import cache

import digits
import torch
import torch.nn.functional as F
from torch import Tensor

NORMAL = 3
NEIGHBOURS = 3
augment, embed = digits.augment, digits.embed


@cache
def normal() -> Tensor:
    """Which of the digits to learn from are of the kind."""
    return (digits.digits()[1][: digits.TRAIN] == NORMAL).nonzero()[:, 0]


def draw(batch: int = 48) -> tuple[Tensor, dict[str, Tensor]]:
    at = normal()[torch.randint(len(normal()), (batch,))]
    return digits.digits()[0][at], {"patient": at}


def knn_accuracy(features: Tensor) -> float:
    """AUROC of the other kinds by their distance to the nearest that were learnt from."""
    from sklearn.metrics import roc_auc_score

    z = F.normalize(features, dim=1)
    near = (z[digits.TRAIN :] @ z[normal()].T).topk(NEIGHBOURS).values.mean(dim=1)
    odd = digits.digits()[1][digits.TRAIN :] != NORMAL
    return float(roc_auc_score(odd.numpy(), -near.numpy()))
