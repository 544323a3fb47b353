"""Rank-N-contrast: distances in the embedding follow the order of distances in a target."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from medcl.nn.distributed import ALONE, Ranks
from medcl.objectives.checks import positive, same_length
from medcl.objectives.distances import distances
from medcl.objectives.eager import eager
from medcl.objectives.pairs import labelled
from medcl.objectives.precision import exact, full, widened
from medcl.objectives.rows import blocks


def rank_n_contrast(
    z: Tensor, targets: Tensor, *, temperature: float = 2.0, ranks: Ranks = ALONE
) -> Tensor:
    """−mean over i and j≠i of log( e^{s_ij} / Σ_{k≠i, |y_i−y_k| ≥ |y_i−y_j|} e^{s_ik} ).

    Zha 2023 (arXiv 2210.01189, eq. 1), s_ij = −‖z_i − z_j‖₂/τ: for ages, ejection fractions,
    grades. Embeddings are *not* normalised, as in the paper. Two views: pass both, targets
    repeated. Memory is that of some rows of the B×N matrix; time is O(N log N) a row.

    Args:
        z: (B, d).
        targets: (B,) or (B, T) numbers, compared by L1 distance; NaN where unknown: such samples
            take no part.
        temperature: τ > 0.
        ranks: the other processes; their samples are compared with.

    Returns:
        Scalar; zero, with zero gradient, where fewer than two samples are known.

    Raises:
        UsageError: if the lengths differ or τ is not positive.

    Example:
        >>> z = torch.tensor([[0.0], [1.0], [3.0]])
        >>> in_order = rank_n_contrast(z, torch.tensor([20.0, 30.0, 50.0]))
        >>> bool(in_order < rank_n_contrast(z, torch.tensor([20.0, 50.0, 30.0])))
        True
    """
    same_length("rank_n_contrast", z=z, targets=targets)
    positive("rank_n_contrast", temperature=temperature)
    targets = (targets.unsqueeze(1) if targets.ndim == 1 else targets).double()
    known = ~targets.isnan().any(1)
    cols, col_targets, rows = labelled(widened(z), targets, known, ranks)
    if len(cols) < 2:
        return (cols * 0).sum()
    total = _total(cols[rows], cols, col_targets, rows, temperature)
    number = ranks.mean(torch.tensor(len(rows), dtype=total.dtype, device=z.device))
    return (total / number).to(cols.dtype)


class _Total(torch.autograd.Function):
    """Σ over anchors of their losses, some rows of the matrix at a time.

    The forward pass also computes the gradient, in closed form from sorted rows: sorting dominates
    the cost, so it is done once.
    """

    @staticmethod
    def forward(
        ctx: Any, anchors: Tensor, cols: Tensor, targets: Tensor, rows: Tensor, temperature: float
    ) -> Tensor:
        a, c = anchors.to(exact(cols)), cols.to(exact(cols))
        total, d_a, d_c = c.new_zeros(()), torch.zeros_like(a), torch.zeros_like(c)
        for i in blocks(len(rows), len(cols)):
            apart = torch.cdist(targets[rows[i]], targets, p=1.0)  # (b, N)
            apart.scatter_(1, rows[i].unsqueeze(1), -1.0)  # itself: sorted last, then dropped
            away, order = apart.sort(dim=1, descending=True, stable=True)
            order, nearness = order[:, :-1], -away[:, :-1].contiguous()
            distance = distances(a[i], c)
            s = -distance.gather(1, order) / temperature
            # Σ over all at least as far: a running sum from the farthest, read where its ties end.
            last = torch.searchsorted(nearness, nearness, right=True) - 1
            log_sum = s.logcumsumexp(1).gather(1, last)
            total += (log_sum - s).mean(1).sum()
            # k is in the sums of all that are at most as far, from where its ties begin.
            first = torch.searchsorted(nearness, nearness)
            share = (-log_sum).flip(1).logcumsumexp(1).flip(1).gather(1, first)
            d_s = ((s + share).exp() - 1) / s.shape[1]
            pull = torch.zeros_like(distance).scatter_(1, order, d_s / -temperature)
            pull = torch.where(distance > 0, pull / distance, 0.0)  # no gradient where they meet
            d_a[i] = a[i] * pull.sum(1, keepdim=True) - pull @ c
            d_c += c * pull.sum(0).unsqueeze(1) - pull.T @ a[i]
        ctx.save_for_backward(d_a.to(anchors.dtype), d_c.to(cols.dtype))
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        d_a, d_c = ctx.saved_tensors
        return (grad * d_a).to(d_a.dtype), (grad * d_c).to(d_c.dtype), None, None, None


@eager
def _total(
    anchors: Tensor, cols: Tensor, targets: Tensor, rows: Tensor, temperature: float
) -> Tensor:
    with full(cols):
        out: Tensor = _Total.apply(anchors, cols, targets, rows, temperature)
    return out
