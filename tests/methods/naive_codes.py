"""Sinkhorn's balance as DINOv2's code does it: on the exponentials, without logarithms."""

from __future__ import annotations

from torch import Tensor


def sinkhorn(scores: Tensor, temperature: float, rounds: int) -> Tensor:
    """(B, K) → (B, K): columns made alike, rows made distributions, by turns."""
    q = (scores.detach().double() / temperature).exp()
    q = q / q.sum()
    for _ in range(rounds):
        q = q / q.sum(0, keepdim=True) / q.shape[1]
        q = q / q.sum(1, keepdim=True) / q.shape[0]
    return (q * q.shape[0]).to(scores.dtype)
