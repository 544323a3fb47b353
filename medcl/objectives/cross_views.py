"""The cross-entropy of every target with every other view, without a product for every pair."""

from __future__ import annotations

from torch import Tensor


def cross_views(q: Tensor, log_p: Tensor) -> Tensor:
    """Mean over targets a and views v ≠ a of −mean_i Σ_k q^a_ik log p^v_ik.

    Σ_{v≠a} q^a·log p^v = q^a·Σ_v log p^v − q^a·log p^a: the sum over views is made once, so the
    cost grows with targets + views and not with their product.

    Args:
        q: (A, B, K) targets of the first A views.
        log_p: (V, B, K) of all views.

    Example:
        >>> q = torch.ones(1, 2, 4) / 4
        >>> cross_views(q, q.repeat(2, 1, 1).log())  # log 4
        tensor(1.3863)
    """
    targets, size = q.shape[:2]
    own = (q * log_p[:targets]).sum()
    every = (q.sum(0) * log_p.sum(0)).sum()
    return (own - every) / (targets * (len(log_p) - 1) * size)
