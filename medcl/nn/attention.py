"""Attention pooling: one vector out of a set of vectors."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class AttentionPool(nn.Module):
    """Gated attention pooling of a set (Ilse 2018, arXiv 1802.04712): (B, N, D) → (B, D).

    a = softmax_n(wᵀ(tanh(V h_n) ⊙ σ(U h_n))), pooled = Σ_n a_n h_n.

    Args:
        width: D.
        hidden: width of V and U.
    """

    def __init__(self, width: int, hidden: int = 128) -> None:
        super().__init__()
        self.content, self.gate = nn.Linear(width, hidden), nn.Linear(width, hidden)
        self.score = nn.Linear(hidden, 1)

    def weights(self, x: Tensor, present: Tensor | None = None) -> Tensor:
        """The attention (B, N), summing to 1 over ``present`` (B, N) members; 0 elsewhere.

        A set with no present member gets all zeros.
        """
        score = self.score(torch.tanh(self.content(x)) * self.gate(x).sigmoid())[..., 0]
        if present is None:
            return score.softmax(dim=-1)
        weight = score.masked_fill(~present, -torch.inf).softmax(dim=-1)
        return torch.where(present, weight, 0.0)

    def forward(self, x: Tensor, present: Tensor | None = None) -> Tensor:
        """(B, N, D), and optionally which members exist (B, N) bool → (B, D)."""
        return (self.weights(x, present)[:, None] @ x)[:, 0]
