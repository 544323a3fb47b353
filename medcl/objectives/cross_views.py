"""The cross-entropy of every target with every other view, without a product for every pair."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from medcl.objectives.held import in_one_pass
from medcl.objectives.precision import widened


def cross_views(q: Tensor, scores: Tensor, temperature: float) -> Tensor:
    """Mean over targets a and views v ≠ a of −mean_i Σ_k q^a_ik log softmax_k(s^v_i/τ).

    Σ_{v≠a} q^a·log p^v = q^a·Σ_v log p^v − q^a·log p^a: the sum over views is made once, so the
    cost grows with targets + views and not with their product. Value and gradient are one pass.

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
    loss = torch.zeros((), dtype=log_p.dtype, device=log_p.device)
    for view, own in enumerate(log_p):  # a view at a time stays in the caches
        others = every - q[view] if view < targets else every
        loss -= torch.dot(others.flatten(), own.flatten())
        total = others.sum(1, keepdim=True) * (scale / temperature)
        own.exp_().mul_(total).sub_(others, alpha=scale / temperature)
    return loss * scale, (log_p,)
