"""The largest value of each feature in a bag."""

from __future__ import annotations

import torch
from torch import nn

from medcl.labels.outputs import Outputs
from medcl_pathology.mil.bags import Bags, Pooled
from medcl_pathology.mil.segments import segment_max


class Maximum(nn.Module):
    """z_d = max_i x_id; an instance counts for the share of features in which it is the largest.

    Args:
        features: F, width of the instances.
        outputs: not used.
    """

    classwise = False

    def __init__(self, features: int, outputs: Outputs) -> None:
        super().__init__()
        self.width = features

    def forward(self, bags: Bags) -> Pooled:
        """See the class."""
        largest, where = segment_max(bags.x, bags.bag, bags.count)  # (B, F), (B, F)
        wins = torch.bincount(where.flatten(), minlength=len(bags.x)).to(largest.dtype)
        return Pooled(largest, wins / self.width)
