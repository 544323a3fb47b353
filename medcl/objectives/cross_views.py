"""The cross-entropy of every target with every other view, without a product for every pair."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from medcl.objectives.held import in_one_pass
from medcl.objectives.precision import widened


def cross_views(q: Tensor, scores: Tensor, temperature: float) -> Tensor:
    """Mean over targets a and views v ≠ a of −mean_i Σ_k q^a_ik log softmax_k(s^v_i/τ).

    Value and gradient are one pass; the gradient of view v is by Σ_{a≠v} q^a = Σ_a q^a − q^v, so
    its cost grows with targets + views and not with their product.

    Args:
        q: (A, B, K) targets of the first A views; constants.
        scores: (V, B, K) of all views.
        temperature: τ > 0.

    Example:
        >>> q = torch.ones(1, 2, 4) / 4
        >>> cross_views(q, torch.zeros(2, 2, 4), 0.1)  # log 4
        tensor(1.3863)
    """
    return in_one_pass(partial(_closed, q=q.detach(), temperature=temperature), widened(scores))


def _closed(scores: Tensor, *, q: Tensor, temperature: float) -> tuple[Tensor, tuple[Tensor]]:
    """The value and its gradient: (Σ w)·softmax − w by view, w the sum of the other targets."""
    targets, size = q.shape[:2]
    scale = 1 / (targets * (len(scores) - 1) * size)
    log_p = torch.log_softmax(scores / temperature, 2)  # (V, B, K)
    every = q.sum(0)  # (B, K)
    # A product for each pair, summed over samples and codes, is one small matrix product.
    pairs = q.flatten(1) @ log_p.flatten(1).T  # (A, V)
    loss = (pairs.diagonal().sum() - pairs.sum()) * scale
    step = scale / temperature
    mass = every.sum(1, keepdim=True).expand(len(scores), -1, -1).clone()  # (V, B, 1)
    mass[:targets] -= q.sum(2, keepdim=True)
    gradient = torch.addcmul(every.mul_(-step), log_p.exp_(), mass.mul_(step), out=log_p)
    gradient[:targets].add_(q, alpha=step)
    return loss, (gradient,)
