"""Supervised contrast against a memory of earlier embeddings."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from medcl.nn.distributed import ALONE, Ranks
from medcl.objectives.means import mean_where
from medcl.objectives.pairs import Hidden, labelled
from medcl.objectives.tiled import row_sums
from medcl.objectives.unit import unit


@dataclass(frozen=True)
class _Same:
    """`tiled.Weights`: 1 where two labels are equal."""

    rows: Tensor  # (B,)
    cols: Tensor  # (N,)
    dtype: torch.dtype

    def __call__(self, i: slice, j: slice) -> Tensor:
        return (self.rows[i, None] == self.cols[None, j]).to(self.dtype)


def queued_supcon(
    z: Tensor,
    labels: Tensor,
    keys: Tensor,
    key_labels: Tensor,
    *,
    temperature: float = 0.1,
    ranks: Ranks = ALONE,
) -> Tensor:
    """`medcl.objectives.supcon` of the rows of ``z`` against each other and ``keys``.

    Keys are positives and negatives, but no anchors, and get no gradient (Khosla 2020, appendix on
    memory; PiCO: Wang 2022, arXiv 2201.08984, eq. 4).

    Args:
        z: (B, d), normalised here, as the keys are.
        labels: (B,), −1 where unknown: such rows take no part.
        keys: (K, d), K ≥ 0, the same on all ranks or this rank's own.
        key_labels: (K,).
        temperature: τ.
        ranks: the other processes.

    Returns:
        Scalar, a mean over anchors that have a positive; 0 where none has.

    Example:
        >>> z, labels = torch.eye(2), torch.tensor([0, 1])
        >>> round(queued_supcon(z, labels, z, labels, temperature=1.0).item(), 4)  # log(e + 2) − 1
        0.5514
    """
    scale = temperature**-0.5
    mine, my_labels, rows = labelled(unit(z, scale), labels, labels >= 0, ranks)
    cols = torch.cat((mine, unit(keys.detach(), scale).to(mine.dtype)))
    same = _Same(my_labels[rows], torch.cat((my_labels, key_labels)), mine.dtype)
    sums = row_sums(
        mine[rows], cols, hide=Hidden(columns=rows[:, None]), weights=same, bound=1 / temperature
    )
    losses, counts = sums.cross_entropy()
    return mean_where(losses, counts, ranks).to(mine.dtype)
