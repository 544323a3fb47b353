"""Rank-N-contrast: distances in the embedding follow the order of distances in a target."""

from __future__ import annotations

import torch
from torch import Tensor

from medcl.nn.distributed import ALONE, Ranks
from medcl.objectives.checks import positive, same_length
from medcl.objectives.distances import distances
from medcl.objectives.means import mean_where
from medcl.objectives.pairs import labelled
from medcl.objectives.precision import widened
from medcl.objectives.rows import by_rows


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
    anchors = cols[rows]

    def losses(i: slice) -> Tensor:
        apart = torch.cdist(col_targets[rows[i]], col_targets, p=1.0)  # (b, N)
        apart.scatter_(1, rows[i].unsqueeze(1), -1.0)  # itself: sorted last, then dropped
        apart, order = apart.sort(dim=1, descending=True, stable=True)
        order, apart = order[:, :-1], apart[:, :-1].contiguous()
        s = -distances(anchors[i], cols).gather(1, order) / temperature
        # Σ over all at least as far: a running sum from the farthest, read where its ties end.
        at = torch.searchsorted(-apart, -apart, right=True) - 1
        return (s.logcumsumexp(1).gather(1, at) - s).mean(1)

    if len(cols) < 2:
        return (cols * 0).sum()
    counts = torch.ones(len(rows), dtype=torch.bool, device=z.device)
    return mean_where(by_rows(losses, len(rows), len(cols)), counts, ranks).to(cols.dtype)
