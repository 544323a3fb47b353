"""KoLeo: spread embeddings, by the distance of each to its nearest neighbour."""

from __future__ import annotations

import torch
from torch import Tensor

from medcl.nn.distributed import ALONE, Ranks
from medcl.objectives.pairs import Hidden, own_columns
from medcl.objectives.precision import full
from medcl.objectives.rows import blocks
from medcl.objectives.unit import unit


def koleo(
    z: Tensor, *, group: Tensor | None = None, eps: float = 1e-8, ranks: Ranks = ALONE
) -> Tensor:
    """−mean_i log( min_{j≠i} ‖z_i − z_j‖ + ε ).

    Sablayrolles 2019 (arXiv 1806.03198), on L2-normalised embeddings (done inside), ε as in
    DINOv2. Unlike DINOv2 the neighbour is looked for among all ranks, so that the loss does not
    depend on how a batch is cut. Twins at distance 0 add −log ε and get no gradient.

    Args:
        z: (B, d).
        group: (B,) integers, e.g. the patient: neighbours are sought in other groups only.
        eps: ε ≥ 0.
        ranks: the other processes.

    Returns:
        Scalar; embeddings without any neighbour add zero.

    Example:
        >>> round(koleo(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])).item(), 4)  # −log 2
        -0.6931
    """
    z = unit(z)
    cols = ranks.gather(z)
    own = own_columns(len(z), ranks, z.device)
    groups = None if group is None else ranks.gather(group)
    nearest, some = _nearest(z.detach(), cols.detach(), Hidden(own.unsqueeze(1), group, groups))
    apart = torch.linalg.vector_norm(z - cols[nearest], dim=1)
    return torch.where(some, -(apart + eps).log(), 0.0).mean()


def _nearest(rows: Tensor, cols: Tensor, hide: Hidden) -> tuple[Tensor, Tensor]:
    """Index of the most similar column for each row, and whether one exists: (B,), (B,)."""
    best, index = [], []
    for i in blocks(len(rows), len(cols)):
        with full(rows):
            s = rows[i] @ cols.T
        hide(s, i, slice(0, len(cols)))
        value, at = s.max(1)
        best.append(value != -torch.inf)  # NaN is not absent
        index.append(at)
    return torch.cat(index), torch.cat(best)
