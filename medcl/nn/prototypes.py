"""Prototypes: learned unit vectors, and spherical k-means."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Prototypes(nn.Module):
    """Cosine scores with learned prototypes: (..., width) → (..., count).

    Call `normalise` after each optimiser step, as SwAV does (Caron 2020, arXiv 2006.09882).
    """

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(count, width))
        self.normalise()

    @torch.no_grad()
    def normalise(self) -> None:
        """Rescale prototypes to unit length."""
        self.weight.copy_(F.normalize(self.weight, dim=1))

    def forward(self, z: Tensor, *, held: bool = False) -> Tensor:
        """Scores of ``z`` (..., width), which is normalised here.

        ``held``: the prototypes get a gradient of zero. Without any gradient DDP would wait.
        """
        weight = self.weight.detach() + 0 * self.weight if held else self.weight
        return F.normalize(z, dim=-1) @ weight.T


def cluster_sphere(points: Tensor, centroids: Tensor, rounds: int = 10) -> Tensor:
    """Spherical k-means (DeepCluster-v2, arXiv 2006.09882): unit points (N, d) → (K, d).

    Starts from ``centroids`` (K, d); a centroid without points does not move.
    """
    for _ in range(rounds):
        nearest = (points @ centroids.T).argmax(dim=1)  # (N,)
        sums = torch.zeros_like(centroids).index_add_(0, nearest, points)
        centroids = torch.where(
            sums.norm(dim=1, keepdim=True) > 0, F.normalize(sums, dim=1), centroids
        )
    return centroids
