"""Maximum mean discrepancy: a kernel distance between the distributions of two samples."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from medcl.nn.distributed import ALONE, Ranks
from medcl.objectives.distances import squared_distances
from medcl.objectives.precision import widened
from medcl.objectives.rows import by_rows


def mmd(
    x: Tensor,
    y: Tensor,
    *,
    variances: Sequence[float] = (10.0, 15.0, 20.0, 50.0),
    ranks: Ranks = ALONE,
) -> Tensor:
    """mean k(x, x′) + mean k(y, y′) − 2 mean k(x, y), k = Σ_v exp(−‖·‖²/(2v)).

    Gretton 2012 (A kernel two-sample test), the biased estimate, over all pairs; kernels of the
    authors' code of ConDA (Bhattacharjee 2023, arXiv 2309.03992). Embeddings are not normalised:
    choose variances that fit their scale (for unit vectors 0.1…2).

    Args:
        x: (B, d) one domain.
        y: (M, d) the other.
        variances: v of each kernel.
        ranks: the other processes, whose samples belong to the two domains as well.

    Returns:
        Scalar ≥ 0.

    Example:
        >>> x = torch.randn(5, 3)
        >>> round(abs(mmd(x, x).item()), 4)
        0.0
    """
    x, y = widened(x), widened(y)
    every_x, every_y = ranks.gather(x), ranks.gather(y)
    return (
        _mean_kernel(x, every_x, variances)
        + _mean_kernel(y, every_y, variances)
        - 2 * _mean_kernel(x, every_y, variances)
    )


def _mean_kernel(a: Tensor, b: Tensor, variances: Sequence[float]) -> Tensor:
    """Mean over all pairs of the kernel: (A, d), (B, d) → scalar."""

    def rows(i: slice) -> Tensor:
        squared = squared_distances(a[i], b)
        return torch.stack([(-squared / (2 * v)).exp() for v in variances]).sum(0).mean(1)

    return by_rows(rows, len(a), len(b)).mean().to(a.dtype)
