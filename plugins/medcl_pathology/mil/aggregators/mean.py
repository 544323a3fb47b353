"""The mean of a bag's instances."""

from __future__ import annotations

import torch
from torch import nn

from medcl.labels.outputs import Outputs
from medcl_pathology.mil.bags import Bags, Pooled
from medcl_pathology.mil.segments import segment_mean


class Mean(nn.Module):
    """z = (1/n) Σ_i x_i: the baseline that every aggregator has to beat.

    Args:
        features: F, width of the instances.
        outputs: not used.
    """

    classwise = False

    def __init__(self, features: int, outputs: Outputs) -> None:
        super().__init__()
        self.width = features

    def forward(self, bags: Bags) -> Pooled:
        """Every instance counts alike."""
        size = torch.bincount(bags.bag, minlength=bags.count).to(bags.x.dtype)
        return Pooled(segment_mean(bags.x, bags.bag, bags.count), 1 / size[bags.bag])
