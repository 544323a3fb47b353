"""Contrast by a tree of labels: two samples attract by the overlap of their label paths."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from medcl.nn.distributed import ALONE, Ranks
from medcl.objectives.checks import positive, same_length, same_shape
from medcl.objectives.means import mean_where
from medcl.objectives.pairs import Hidden, own_columns
from medcl.objectives.precision import exact
from medcl.objectives.tiled import row_sums
from medcl.objectives.unit import unit


def tree_contrast(
    z1: Tensor,
    z2: Tensor,
    paths: Tensor,
    *,
    temperature: float = 0.07,
    unlabelled_weight: float = 1.0,
    ranks: Ranks = ALONE,
) -> Tensor:
    """−mean over views i of Σ_j f_ij log( e^{s_ij} / Σ_{k≠i} e^{s_ik} ) / Σ_j f_ij.

    He 2022 (SPACE-2, arXiv 2209.06638): f_ij says how similar the semantic trees of two samples
    are; the unlabelled contrast only with their own second view. There f is a mean of Jaccard
    scores over the nodes, edges and longer paths of two trees (``hierarchical_set_score`` of the
    authors' code). Here a sample has one path from the root (ICD-10 chapter, block, category; or
    OncoTree), known down to some level, and f is the Jaccard score of the two sets of nodes: with
    c levels in common, f = c / (depth_i + depth_j − c). A view's other view has f = 1.

    Embeddings are L2-normalised inside.

    Args:
        z1: (B, d) first views.
        z2: (B, d) second views.
        paths: (B, D) integers, the code at each level from the root; −1 from where the label is
            unknown. All −1: an unlabelled sample.
        temperature: τ > 0.
        unlabelled_weight: weight of the unlabelled views' terms in the mean.
        ranks: the other processes; their views are positives and negatives.

    Returns:
        Scalar.

    Raises:
        UsageError: if shapes differ or τ is not positive.

    Example:
        >>> z, paths = torch.eye(2), torch.tensor([[0, 1], [0, 2]])  # one level of two in common
        >>> round(tree_contrast(z, z, paths, temperature=1.0).item(), 4)
        0.9514
    """
    same_shape("tree_contrast", 2, z1=z1, z2=z2)
    same_length("tree_contrast", z1=z1, paths=paths)
    positive("tree_contrast", temperature=temperature)
    n = len(z1)
    z = unit(torch.cat([z1, z2]), temperature**-0.5)  # (2B, d)
    sample = own_columns(n, ranks, z.device).repeat(2)
    paths = paths.repeat(2, 1)
    weights = SharedPath(paths, ranks.gather(paths), sample, ranks.gather(sample), z.dtype)
    hidden = Hidden(columns=own_columns(2 * n, ranks, z.device).unsqueeze(1), all_exist=True)
    others = None if ranks.world == 1 else ranks.gather(z)
    sums = row_sums(z, others, hide=hidden, weights=weights, bound=1 / temperature)
    losses, counts = sums.cross_entropy()
    weight = torch.where(paths[:, 0] >= 0, 1.0, unlabelled_weight).to(exact(z))
    return mean_where(losses * weight, counts, ranks).to(z.dtype)


@dataclass(frozen=True)
class SharedPath:
    """`tiled.Weights`: Jaccard score of the nodes on two paths; one for views of one sample."""

    row_paths: Tensor  # (B, D)
    col_paths: Tensor  # (N, D)
    row_sample: Tensor  # (B,)
    col_sample: Tensor  # (N,)
    dtype: torch.dtype

    def __call__(self, i: slice, j: slice) -> Tensor:
        """One tile of weights."""
        rows, cols = self.row_paths[i], self.col_paths[j]
        same = (rows[:, :1] >= 0) & (cols[:, 0] >= 0)  # still together, down to this level
        common = torch.zeros_like(same, dtype=self.dtype)
        for level in range(rows.shape[1]):
            same = same & (rows[:, level, None] == cols[:, level]) & (rows[:, level, None] >= 0)
            common += same
        either = depth(rows).unsqueeze(1) + depth(cols) - common
        score = common / either.clamp_min(1.0)
        return score.masked_fill_(self.row_sample[i, None] == self.col_sample[j], 1.0)


def depth(paths: Tensor) -> Tensor:
    """Number of known levels of each path, from the root: (B, D) → (B,)."""
    return (paths >= 0).long().cumprod(1).sum(1).float()
