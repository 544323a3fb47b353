"""Attention scores of instances, (I, F) → (I, C), with little memory."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from medcl.nn.recording import recording
from medcl_pathology.mil.dropout import Dropout

PIECE = 1024
"""Instances scored at a time: what the backward pass doesn't need lives for one piece only."""


class Attention(nn.Module):
    """w·tanh(V x), or gated w·(tanh(V x) ⊙ σ(U x)) (Ilse 2018, arXiv 1802.04712, eqs. 8 and 9).

    Args:
        features: F.
        hidden: rows of V and U.
        scores: C, rows of w.
        gated: with U.
        dropout: of the hidden units.
        bias: whether w has a bias: within one bag's softmax it changes nothing.
    """

    def __init__(
        self,
        features: int,
        hidden: int = 128,
        scores: int = 1,
        *,
        gated: bool = False,
        dropout: float = 0.0,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.gated = gated
        self.hidden = nn.Linear(features, hidden * (2 if gated else 1))  # V, and U below it
        self.dropout = Dropout(dropout)
        self.out = nn.Linear(hidden, scores, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Scores before the softmax: (I, F) → (I, C)."""
        if recording():  # the number of pieces would become part of the graph
            return self._piece(x)
        return torch.cat([self._piece(piece) for piece in x.split(PIECE)])

    def _piece(self, x: Tensor) -> Tensor:
        h: Tensor = self.hidden(x)  # (P, hidden), or both halves in one product
        if self.gated and torch.is_grad_enabled():
            # Four tensors of this size would be kept for the backward pass: one is, and what is
            # cheap is computed again.
            again: Tensor = checkpoint(
                self._score, h, use_reentrant=False, preserve_rng_state=self.dropout.p > 0
            )
            return again
        return self._score(h)

    def _score(self, h: Tensor) -> Tensor:
        if self.gated:
            value, gate = h.chunk(2, dim=1)
            h = value.tanh() * gate.sigmoid()
        else:
            h = h.tanh()
        out: Tensor = self.out(self.dropout(h))
        return out
