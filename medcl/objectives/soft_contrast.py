"""Soft contrast: the similarity of two labels weights their pair."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from medcl.nn.distributed import ALONE, Ranks
from medcl.objectives.checks import positive, same_length, same_shape
from medcl.objectives.means import mean_where
from medcl.objectives.pairs import labelled
from medcl.objectives.tiled import row_sums, two_sided_sums
from medcl.objectives.unit import unit


def soft_contrast(
    anchors: Tensor,
    partners: Tensor,
    label_embeddings: Tensor,
    *,
    temperature: float = 0.05,
    label_temperature: float = 0.25,
    symmetric: bool = False,
    ranks: Ranks = ALONE,
) -> Tensor:
    """−mean_i Σ_j t_ij log softmax_j(a_i·p_j/τ), t_ij = softmax_j(l_i·l_j/τ′).

    Burdisso 2024 (Dialog2Flow, arXiv 2410.18481), with the authors' code for the defaults of τ and
    τ′ (τ′ is 0.25 in their training configuration, 0.35 in another version of the code). As there,
    ``partners[i]`` is a second view or another sample of i's label, and takes part in its own row.

    All three are L2-normalised inside.

    Args:
        anchors: (B, d).
        partners: (B, d).
        label_embeddings: (B, l) an embedding of each sample's label (of its text, its code, its
            position in an ontology); a constant. NaN where unknown: such samples are ignored.
        temperature: τ > 0.
        label_temperature: τ′ > 0; towards 0 only equal labels attract.
        symmetric: the mean of anchors → partners and partners → anchors.
        ranks: the other processes; their partners are candidates.

    Returns:
        Scalar; zero where no label is known.

    Raises:
        UsageError: if shapes differ or a temperature is not positive.

    Example:
        >>> z, labels = torch.eye(2), torch.ones(2, 3)
        >>> round(soft_contrast(z, z, labels, temperature=1.0).item(), 4)  # log(1 + e) - 1/2
        0.8133
    """
    same_shape("soft_contrast", 2, anchors=anchors, partners=partners)
    same_length("soft_contrast", anchors=anchors, label_embeddings=label_embeddings)
    positive("soft_contrast", temperature=temperature, label_temperature=label_temperature)
    a, p = unit(anchors, temperature**-0.5), unit(partners, temperature**-0.5)
    labels = unit(label_embeddings.detach(), label_temperature**-0.5)
    known = ~labels.isnan().any(1)
    both, col_labels, own = labelled(torch.cat([a, p], dim=1), labels, known, ranks)
    every_a, every_p = both.chunk(2, dim=1)
    weights = Likeness(col_labels[own], col_labels, 1 / label_temperature)
    bound = 1 / temperature
    if symmetric and ranks.world == 1:
        sums = list(two_sided_sums(every_a, every_p, weights=weights, bound=bound))
    else:
        pairs = [(every_a[own], every_p)]
        if symmetric:
            pairs.append((every_p[own], every_a))
        sums = [row_sums(x, y, weights=weights, bound=bound) for x, y in pairs]
    terms = [each.cross_entropy() for each in sums]
    losses = [mean_where(losses, counts, ranks) for losses, counts in terms]
    return torch.stack(losses).mean().to(a.dtype)


@dataclass(frozen=True)
class Likeness:
    """`tiled.Weights`: exp(l_i·l_j − bound), so that the most similar pair has weight one."""

    rows: Tensor  # (B, l)
    cols: Tensor  # (N, l)
    bound: float

    def __call__(self, i: slice, j: slice) -> Tensor:
        """One tile of weights."""
        return (self.rows[i] @ self.cols[j].T).sub_(self.bound).exp_()
