"""Supervised contrast: every sample of the anchor's class is a positive."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from medcl.nn.distributed import ALONE, Ranks
from medcl.objectives.checks import positive, same_length
from medcl.objectives.means import mean_where
from medcl.objectives.pairs import Hidden, labelled, numbered
from medcl.objectives.precision import exact
from medcl.objectives.tiled import row_sums
from medcl.objectives.unit import unit


def supcon(z: Tensor, labels: Tensor, *, temperature: float = 0.1, ranks: Ranks = ALONE) -> Tensor:
    """Mean over anchors i of −Σ_j w_ij log( e^{s_ij} / Σ_{k≠i} e^{s_ik} ) / Σ_j w_ij, s = z zᵀ/τ.

    Khosla 2020 (arXiv 2004.11362, eq. 2, L_out), w_ij = 1 for the other samples of i's class. With
    several labels a sample, w_ij is the overlap |labels_i ∩ labels_j| / |labels_i ∪ labels_j|, so
    that a sample that shares all labels pulls the most. (The authors' code also multiplies by
    τ / 0.07; that is left to the loss weight.)

    Embeddings are L2-normalised inside. For SupCon on two views pass both, with labels repeated.
    With patients as labels this is participant-level contrast with all windows of a patient.

    Args:
        z: (B, d).
        labels: (B,) integers, −1 or NaN where unknown; or (B, L) zeros and ones, a row of zeros
            or with any −1 or NaN where unknown. Samples of unknown label are ignored, as anchors
            and as negatives.
        temperature: τ > 0.
        ranks: the other processes; their samples are positives and negatives.

    Returns:
        Scalar. Anchors alone in their class do not count; where no anchor counts it is zero, with
        zero gradient.

    Raises:
        UsageError: if the lengths differ or τ is not positive.

    Example:
        >>> import torch
        >>> round(supcon(torch.eye(2).repeat(2, 1), torch.tensor([0, 1, 0, 1])).item(), 4)
        0.0001
    """
    same_length("supcon", z=z, labels=labels)
    positive("supcon", temperature=temperature)
    known = labels >= 0  # neither −1 nor NaN
    if labels.ndim == 2:
        known = known.all(1) & labels.any(1)
    cols, col_labels, rows = labelled(unit(z, temperature**-0.5), labels, known, ranks)
    alone = ranks.world == 1
    anchors, others = (cols, None) if alone else (cols[rows], cols)
    hidden = Hidden(columns=rows.unsqueeze(1), all_exist=True)
    weights = (
        Overlap(col_labels[rows].to(cols.dtype), col_labels.to(cols.dtype))
        if labels.ndim == 2
        else None
    )
    sums = row_sums(anchors, others, hide=hidden, weights=weights, bound=1 / temperature)
    if weights is not None:
        losses, counts = sums.cross_entropy()
        return mean_where(losses, counts, ranks).to(cols.dtype)
    # Σ_p s_ip over the class is one product with the class's sum: no tile needs labels.
    group = numbered(col_labels)  # (N,)
    total = torch.zeros_like(cols).index_add(0, group, cols)  # (N, d): a row a class, then zeros
    size = torch.zeros_like(group).index_add(0, group, torch.ones_like(group))
    positives = size[group[rows]] - 1
    pull = (anchors * (total[group[rows]] - anchors)).sum(1, dtype=exact(cols))
    return mean_where(sums.lse - pull / positives.clamp_min(1), positives > 0, ranks).to(cols.dtype)


@dataclass(frozen=True)
class Overlap:
    """`tiled.Weights`: |labels_i ∩ labels_j| / |labels_i ∪ labels_j| of sets of labels."""

    rows: Tensor  # (B, L) zeros and ones
    cols: Tensor  # (N, L)

    def __call__(self, i: slice, j: slice) -> Tensor:
        """One tile of weights; two empty sets do not overlap."""
        rows, cols = self.rows[i], self.cols[j]
        both = rows @ cols.T
        either = rows.sum(1, keepdim=True) + cols.sum(1) - both
        return both / either.clamp_min(1.0)
