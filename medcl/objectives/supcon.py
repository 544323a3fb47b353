"""Supervised contrast: every sample of the anchor's class is a positive."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from medcl.nn.distributed import ALONE, Ranks
from medcl.objectives.checks import positive, same_length
from medcl.objectives.held import holds, in_one_pass, lengthened, through_length
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
    if labels.ndim == 1 and holds(len(z), z, 1 / temperature, ranks):
        return in_one_pass(partial(_closed, labels=labels, length=temperature**-0.5), z)
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


def _closed(z: Tensor, *, labels: Tensor, length: float) -> tuple[Tensor, tuple[Tensor]]:
    """The loss of one rank and one label a sample and its gradient, of the whole matrix."""
    u, factor = lengthened(z, length)
    s = u @ u.T
    known = labels >= 0  # neither −1 nor NaN
    same = ((labels.unsqueeze(1) == labels) & known).to(s.dtype).fill_diagonal_(0)  # (B, B)
    counts = same.sum(1)
    some = counts > 0
    pull = torch.linalg.vecdot(s, same) / counts.clamp_min(1)
    nobody = ~known
    s.masked_fill_(nobody | nobody.unsqueeze(1), -torch.inf).fill_diagonal_(-torch.inf)
    e = s.exp_()
    total = e.sum(1)
    weight = some.to(s.dtype) / some.sum().clamp_min(1)  # of each anchor in the mean
    loss = (weight * torch.where(some, total.log() - pull, 0.0)).sum()
    # e and same are symmetric, so row i and column i of the gradient by s are one row of (g + gᵀ).
    push = torch.where(some, weight / total, 0.0)
    towards = weight / counts.clamp_min(1)
    g = e.mul_(push.unsqueeze(1) + push).addcmul_(same, towards.unsqueeze(1) + towards, value=-1)
    return loss, (through_length(g @ u, u, factor, length),)


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
