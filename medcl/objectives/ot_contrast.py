"""Soft labels by optimal transport from the similarities of an encoder trained with labels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from medcl.nn.distributed import ALONE, Ranks
from medcl.objectives.checks import positive, same_length
from medcl.objectives.eager import eager
from medcl.objectives.means import mean_where
from medcl.objectives.pairs import labelled
from medcl.objectives.precision import exact
from medcl.objectives.tiled import row_sums
from medcl.objectives.unit import unit


def ot_contrast(
    z: Tensor,
    reference: Tensor,
    *,
    temperature: float = 0.07,
    reference_temperature: float = 0.1,
    iterations: int = 20,
    ranks: Ranks = ALONE,
) -> Tensor:
    """−mean_i Σ_j P_ij log softmax_j(z_i·z_j/τ), P the transport plan of reference similarities.

    Zhou 2024 (S-MolSearch, arXiv 2409.07462): an encoder trained on labelled pairs gives, through
    (inverse) optimal transport with equal marginals, soft labels for unlabelled samples, which a
    second encoder learns. Here P is the entropic plan: P_ij = exp(r_i·r_j/τ_r + f_i + f_j) with
    every row and column summing to one. The authors' code takes the L2-regularised plan of POT's
    ``smooth_ot_dual`` instead, whose rows have exact zeros. As there, i itself is among the j.

    Both are L2-normalised inside.

    Args:
        z: (B, d) embeddings of the encoder in training.
        reference: (B, e) the labelled encoder's embeddings of the same samples; a constant. NaN
            where missing; such samples are ignored.
        temperature: τ > 0.
        reference_temperature: τ_r > 0; smaller gives harder labels.
        iterations: of Sinkhorn, each one pass over the tiles. Rows are exactly normalised after.
        ranks: the other processes; the plan is over all samples.

    Returns:
        Scalar; zero where no sample has a reference.

    Raises:
        UsageError: if the lengths differ or a temperature is not positive.

    Example:
        >>> z = torch.eye(3)
        >>> round(ot_contrast(z, torch.ones(3, 2), temperature=1.0).item(), 4)  # log(2 + e) - 1/3
        1.2181
    """
    same_length("ot_contrast", z=z, reference=reference)
    positive("ot_contrast", temperature=temperature, reference_temperature=reference_temperature)
    known = ~reference.isnan().any(1)
    r = unit(reference.detach().masked_fill(~known.unsqueeze(1), 0.0), reference_temperature**-0.5)
    f = _potentials(r, known, 1 / reference_temperature, iterations, ranks)
    targets = torch.cat([r.to(f.dtype), f.unsqueeze(1)], dim=1)
    cols, targets, rows = labelled(unit(z, temperature**-0.5), targets, known, ranks)
    r, f = targets[:, :-1].to(r.dtype), targets[:, -1]
    plan = Plan(r[rows], r, f[rows], f)
    anchors, others = (cols, None) if ranks.world == 1 else (cols[rows], cols)
    sums = row_sums(anchors, others, weights=plan, bound=1 / temperature)
    losses, counts = sums.cross_entropy()
    return mean_where(losses, counts, ranks).to(cols.dtype)


@eager  # its passes are graph breaks anyway
@torch.no_grad()
def _potentials(r: Tensor, known: Tensor, bound: float, iterations: int, ranks: Ranks) -> Tensor:
    """Symmetric Sinkhorn: f ← (f − log Σ_j exp(r_i·r_j + f_j)) / 2; −∞ where unknown: (B,)."""
    cols = ranks.gather(r)
    f = torch.full((len(r),), -bound / 2, dtype=exact(r), device=r.device)
    f = f.masked_fill(~known, -torch.inf)
    for _ in range(iterations):
        # r_i·r_j + f_j is the product of (r_i, 1) with (r_j, f_j).
        rows = torch.cat([r, torch.ones_like(r[:, :1])], dim=1)
        with_f = torch.cat([cols, ranks.gather(f).unsqueeze(1).to(r.dtype)], dim=1)
        f = (f - row_sums(rows, with_f).lse.masked_fill(~known, 0.0)) / 2
    return f


@dataclass(frozen=True)
class Plan:
    """`tiled.Weights`: exp(r_i·r_j + f_i + f_j)."""

    rows: Tensor  # (B, e)
    cols: Tensor  # (N, e)
    row_f: Tensor  # (B,)
    col_f: Tensor  # (N,)

    def __call__(self, i: slice, j: slice) -> Tensor:
        """One tile of weights."""
        s = self.rows[i] @ self.cols[j].T
        return (s + self.row_f[i, None].to(s.dtype) + self.col_f[j].to(s.dtype)).exp_()
