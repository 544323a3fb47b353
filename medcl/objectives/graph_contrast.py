"""Graph contrast: the positives of every sample are listed, or weighted."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from medcl.errors import UsageError
from medcl.nn.distributed import ALONE, Ranks
from medcl.nn.host import refuse
from medcl.objectives.checks import positive, same_length
from medcl.objectives.means import mean_where
from medcl.objectives.pairs import Hidden, own_columns
from medcl.objectives.precision import exact, widened
from medcl.objectives.tiled import row_sums
from medcl.objectives.unit import unit


def graph_contrast(
    z: Tensor,
    positives: Tensor,
    *,
    temperature: float = 0.1,
    ranks: Ranks = ALONE,
) -> Tensor:
    """Mean over anchors i of −Σ_j w_ij log( e^{s_ij} / Σ_{k≠i} e^{s_ik} ) / Σ_j w_ij, s = z zᵀ/τ.

    Khosla 2020 (arXiv 2004.11362, eq. 2, L_out) with the positives named one by one instead of by
    class, as in the similarity graphs of Sobal 2024 (arXiv 2407.18134): tiles that touch, slices
    next to each other, nearest neighbours, pairs that an expert marked. Memory is linear in the
    samples and in the edges.

    Embeddings are L2-normalised inside. Columns count the samples of all ranks, in rank order:
    sample i of rank r is column r·B + i.

    Args:
        z: (B, d).
        positives: (B, P) integers, the columns of each sample's positives, −1 where there are
            fewer (each weighs one; named twice, two); or a sparse tensor (B, W·B), COO or CSR, of
            weights w ≥ 0, W the number of ranks; a constant. An edge to oneself does not count.
        temperature: τ > 0.
        ranks: the other processes; their samples are positives and negatives.

    Returns:
        Scalar. Anchors without positives do not count (they are negatives of the others); where no
        anchor counts it is zero, with zero gradient.

    Raises:
        UsageError: if the lengths differ, τ is not positive, or a column does not exist.

    Example:
        >>> edges = torch.tensor([[1], [0], [-1]])  # the third sample has no positive
        >>> round(graph_contrast(torch.eye(3), edges, temperature=1.0).item(), 4)  # log 2
        0.6931
    """
    same_length("graph_contrast", z=z, positives=positives)
    positive("graph_contrast", temperature=temperature)
    own = own_columns(len(z), ranks, z.device)
    z = unit(z, temperature**-0.5)
    width, positives = ranks.world * len(z), positives.detach()
    others: Tensor | None = ranks.gather(z)
    weights: Listed | Tensor
    if positives.layout == torch.strided:
        weights = _listed(positives, own, width, widened(z).dtype)
    else:
        weights = _weighted(positives, own, width, exact(z))
        others = None if ranks.world == 1 else others  # half of the tiles
    sums = row_sums(
        z,
        others,
        hide=Hidden(columns=own.unsqueeze(1), all_exist=True),
        weights=weights,
        bound=1 / temperature,
    )
    losses, counts = sums.cross_entropy()
    return mean_where(losses, counts, ranks).to(z.dtype)


@dataclass(frozen=True)
class Listed:
    """`tiled.Weights`: how often each row lists a column."""

    positives: Tensor  # (B, P), −1 where none
    dtype: torch.dtype

    def __call__(self, i: slice, j: slice) -> Tensor:
        """One tile of weights."""
        at = self.positives[i] - j.start  # (b, P)
        width = j.stop - j.start
        at = torch.where((at >= 0) & (at < width), at, width)  # all others: a column more
        tile = torch.zeros(len(at), width + 1, dtype=self.dtype, device=at.device)
        one = torch.ones((), dtype=self.dtype, device=at.device).expand_as(at)
        return tile.scatter_add_(1, at, one)[:, :width]


def _listed(positives: Tensor, own: Tensor, width: int, dtype: torch.dtype) -> Listed:
    """Lists of columns, without edges to oneself."""
    wrong = UsageError(f"graph_contrast: positives name a column beyond a batch of {width}.")
    refuse(positives >= width, wrong)
    return Listed(positives.masked_fill(positives == own[:, None], -1), dtype)


def _weighted(positives: Tensor, own: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    """A sparse tensor's weights as one sparse (B, width) matrix, without edges to oneself."""
    if positives.shape[1] != width:
        raise UsageError(
            f"graph_contrast needs one column for each of the {width} samples of all ranks, "
            f"not positives {tuple(positives.shape)}."
        )
    edges = positives.to_sparse_coo().to(dtype).coalesce()
    (row, col), weight = edges.indices(), edges.values()
    weight = weight.masked_fill(col == own[row], 0.0)
    at, shape = torch.stack([row, col]), (len(own), width)
    return torch.sparse_coo_tensor(at, weight, shape, check_invariants=True).coalesce()
