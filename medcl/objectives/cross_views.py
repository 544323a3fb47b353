"""The cross-entropy of every target with every other view, without a product for every pair."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from medcl.objectives.eager import eager
from medcl.objectives.precision import full, widened

AT_ONCE = 2**20
"""Scores that are made probabilities at once: 4 MiB stay in the caches, and are not new memory."""


@eager
def cross_views(q: Tensor, scores: Tensor, temperature: float) -> Tensor:
    """Mean over targets a and views v ≠ a of −mean_i Σ_k q^a_ik log softmax_k(s^v_i/τ).

    The gradient of view v is by Σ_{a≠v} q^a = Σ_a q^a − q^v, so the cost grows with targets + views
    and not with their product. Second derivatives are refused.

    Args:
        q: (A, B, K) targets of the first A views; constants.
        scores: (V, B, K) of all views.
        temperature: τ > 0.

    Example:
        >>> q = torch.ones(1, 2, 4) / 4
        >>> cross_views(q, torch.zeros(2, 2, 4), 0.1)  # log 4
        tensor(1.3863)
    """
    with full(scores):
        loss: Tensor = _CrossViews.apply(widened(scores), q.detach(), temperature)
    return loss


class _CrossViews(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, q: Tensor, temperature: float) -> Tensor:
        targets, size = q.shape[:2]
        ctx.scale = 1 / (targets * (len(scores) - 1) * size)
        p = torch.empty_like(scores)
        step = max(1, AT_ONCE // scores[0].numel())
        for some, out in zip(scores.split(step), p.split(step), strict=True):
            torch.softmax(some / temperature, 2, out=out)
        # log p = s/τ − log Σ exp s/τ, and the latter is known from a row's largest s and p.
        log_sum = scores.amax(2) / temperature - p.amax(2).log()  # (V, B)
        # A product for each pair, summed over samples and codes, is one small matrix product.
        pairs = scores.flatten(1) @ q.flatten(1).T / temperature - log_sum @ q.sum(2).T  # (V, A)
        ctx.temperature = temperature
        ctx.save_for_backward(p, q)
        return (pairs.diagonal().sum() - pairs.sum()) * ctx.scale

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        p, q = ctx.saved_tensors
        step = grads[0] * (ctx.scale / ctx.temperature)
        q = q * step
        every = q.sum(0)  # (B, K)
        mass = every.sum(1, keepdim=True).expand(len(p), -1, -1).clone()  # (V, B, 1)
        mass[: len(q)] -= q.sum(2, keepdim=True)
        gradient = torch.addcmul(-every, p, mass)
        gradient[: len(q)] += q
        return gradient, None, None
