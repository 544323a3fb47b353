"""SimCLR's NT-Xent: every other view of the batch is a negative."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import softplus

from medcl.nn.distributed import ALONE, Ranks
from medcl.objectives.checks import positive, same_shape
from medcl.objectives.held import holds, in_one_pass, lengthened, through_length
from medcl.objectives.info_nce import against_negatives
from medcl.objectives.pairs import Hidden, own_columns
from medcl.objectives.precision import exact
from medcl.objectives.tiled import row_sums
from medcl.objectives.unit import unit


def nt_xent(
    z1: Tensor,
    z2: Tensor,
    *,
    temperature: float = 0.1,
    group: Tensor | None = None,
    decoupled: bool = False,
    ranks: Ranks = ALONE,
) -> Tensor:
    """−mean over the 2B views i of log( e^{s_ip} / Σ_{j≠i} e^{s_ij} ), p the other view of i.

    Chen 2020 (SimCLR, arXiv 2002.05709, eq. 1). With ``decoupled`` j ≠ p too: Yeh 2022 (DCL,
    arXiv 2110.06848). The 2B×2B matrix is symmetric: in one process half of it is computed.

    Embeddings are L2-normalised inside; a zero vector has similarity 0 and gets no gradient.
    A view with no negative at all adds zero.

    Args:
        z1: (B, d) this rank's first views.
        z2: (B, d) second views; ``z2[i]`` is the positive of ``z1[i]``.
        temperature: τ > 0.
        group: (B,) integers, e.g. the patient: other samples of a view's group are no negatives.
        decoupled: leave the positive out of the denominator.
        ranks: the other processes; their views are negatives.

    Returns:
        Scalar, float32 (float64 for float64 inputs).

    Raises:
        UsageError: if the shapes differ or τ is not positive.

    Example:
        >>> round(nt_xent(torch.eye(4), torch.eye(4), temperature=1.0).item(), 4)  # log(1 + 6/e)
        1.1654
    """
    same_shape("nt_xent", 2, z1=z1, z2=z2)
    positive("nt_xent", temperature=temperature)
    n = len(z1)
    if holds(2 * n, z1, 1 / temperature, ranks):
        closed = partial(_closed, length=temperature**-0.5, group=group, decoupled=decoupled)
        return in_one_pass(closed, z1, z2)
    z = unit(torch.cat([z1, z2]), temperature**-0.5)  # (2B, d)
    partner = (z[:n] * z[n:]).sum(1, dtype=exact(z)).repeat(2)
    # Order of gathered views: for each rank its z1, then its z2.
    mine = own_columns(2 * n, ranks, z.device)
    hidden = Hidden(
        columns=torch.stack([mine, mine.roll(n)], dim=1),
        row_group=None if group is None else group.repeat(2),
        col_group=None if group is None else ranks.gather(group.repeat(2)),
        all_exist=True,
    )
    others = None if ranks.world == 1 else ranks.gather(z)
    negative = row_sums(z, others, hide=hidden, bound=1 / temperature).lse
    return against_negatives(partner, negative, decoupled).to(z.dtype)


def _closed(
    z1: Tensor, z2: Tensor, *, length: float, group: Tensor | None, decoupled: bool
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The loss of one rank and its gradients, of the whole matrix."""
    n = len(z1)
    u, factor = lengthened(torch.cat([z1, z2]), length)
    s = u @ u.T
    partner = s.diagonal(n).clone()  # (B,): of each view and of its other view
    if group is not None:
        group = group.repeat(2)
        s.masked_fill_(group[:, None] == group, -torch.inf)
    for offset in (-n, 0, n):
        s.diagonal(offset).fill_(-torch.inf)
    e = s.exp_()
    total = e.sum(1).view(2, n)  # zero without negatives
    margin = total.log() - partner
    if decoupled:
        some = total != 0
        loss = torch.where(some, margin, 0.0).mean()
        share = torch.where(some, 1 / total, 0.0) / (2 * n)
    else:
        loss = softplus(margin, threshold=torch.inf).mean()
        share = 1 / (total + partner.exp()) / (2 * n)
    # e is symmetric, so row i and column i of the gradient by s are one row of (g + gᵀ).
    flat = share.view(-1)
    g = e.mul_(flat.unsqueeze(1) + flat)
    pull = -(total * share).sum(0)
    for offset in (-n, n):
        g.diagonal(offset).copy_(pull)
    d_z1, d_z2 = through_length(g @ u, u, factor, length).split(n)
    return loss, (d_z1, d_z2)
