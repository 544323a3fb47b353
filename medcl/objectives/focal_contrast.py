"""Core-tuning: supervised contrast weighted to hard positives, with mixed pairs."""

from __future__ import annotations

import torch
from torch import Tensor

from medcl.nn.distributed import ALONE, Ranks
from medcl.objectives.checks import positive, same_length
from medcl.objectives.means import mean_where
from medcl.objectives.pairs import labelled
from medcl.objectives.precision import full
from medcl.objectives.rows import by_rows
from medcl.objectives.unit import unit


def focal_contrast(
    z: Tensor,
    labels: Tensor,
    hard_positives: Tensor | None = None,
    hard_negatives: Tensor | None = None,
    *,
    temperature: float = 0.07,
    ranks: Ranks = ALONE,
) -> Tensor:
    """−mean over anchors i, mean over positives j, of (1 − p_ij) log p_ij.

    Zhang 2021 (Core-tuning, arXiv 2102.06605): p_ij = e^{s_ij} / Σ_{k≠i} e^{s_ik}; a positive that
    is already likely weighs little. Beside the class, i's own ``hard_positives[i]`` is a positive,
    and ``hard_negatives`` are in everybody's denominator (both from `mix_hard_pairs`, projected).
    Differences: the authors' code divides by the batch, not by the number of positives as the
    paper does, and gives mixed samples classes of their own. The weight carries gradient, as there.

    Embeddings are L2-normalised inside.

    Args:
        z: (B, d).
        labels: (B,) integers, −1 where unknown: such samples take no part.
        hard_positives: (B, d) one more positive for each anchor, which only it sees.
        hard_negatives: (B, d) one more negative each, which all anchors see.
        temperature: τ > 0.
        ranks: the other processes.

    Returns:
        Scalar. Anchors without a positive do not count.

    Raises:
        UsageError: if the lengths differ or τ is not positive.

    Example:
        >>> z = torch.eye(2).repeat(2, 1)  # p = e/(e + 2), by hand
        >>> loss = focal_contrast(z, torch.tensor([0, 1, 0, 1]), temperature=1.0)
        >>> p = torch.tensor(1.0).exp() / (torch.tensor(1.0).exp() + 2)
        >>> bool(torch.isclose(loss, -(1 - p) * p.log()))
        True
    """
    same_length("focal_contrast", z=z, labels=labels)
    positive("focal_contrast", temperature=temperature)
    length = temperature**-0.5
    known = labels >= 0
    cols, col_labels, rows = labelled(unit(z, length), labels, known, ranks)
    anchors = cols[rows]
    own = None if hard_positives is None else unit(hard_positives, length)[known]
    rivals = None
    if hard_negatives is not None:
        rivals = labelled(unit(hard_negatives, length), labels, known, ranks)[0]

    def losses(i: slice) -> Tensor:
        itself = rows[i].unsqueeze(1)
        with full(anchors):
            s = (anchors[i] @ cols.T).scatter(1, itself, -torch.inf)  # (b, N)
            t = None if rivals is None else anchors[i] @ rivals.T
        friends = col_labels[rows[i], None] == col_labels
        friends = friends.scatter(1, itself, False)
        if own is not None:
            s = torch.cat([(anchors[i] * own[i]).sum(1, keepdim=True), s], dim=1)
            friends = torch.cat([torch.ones_like(itself, dtype=torch.bool), friends], dim=1)
        every = s if t is None else torch.cat([s, t], dim=1)
        log_p = torch.where(friends, s - every.logsumexp(1, keepdim=True), 0.0)
        focal = (1 - log_p.exp()) * log_p  # zero where log_p was set to zero
        return -focal.sum(1) / friends.sum(1).clamp_min(1)

    if len(cols) < 2 and own is None:
        return (cols * 0).sum()
    size = torch.bincount(col_labels)[col_labels[rows]] if len(cols) else rows
    counts = torch.ones_like(rows, dtype=torch.bool) if own is not None else size > 1
    return mean_where(by_rows(losses, len(rows), len(cols)), counts, ranks)


@torch.no_grad()
def hardest(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """For each sample, its hardest positive and negative of the batch, by cosine.

    Args:
        features: (B, d).
        labels: (B,) integers.

    Returns:
        (B,) the least similar of its class, itself if it is the only one; and (B,) the most
        similar of the other classes, itself if there is none.
    """
    with full(features):
        cosine = unit(features) @ unit(features).T
    same = labels.unsqueeze(1) == labels
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    least = cosine.masked_fill(~same, torch.inf).masked_fill(itself, 2.0).argmin(1)
    most = cosine.masked_fill(same, -torch.inf).masked_fill(itself, -2.0).argmax(1)
    return least, most


def mix_hard_pairs(
    features: Tensor,
    labels: Tensor,
    positive_share: Tensor,
    partner: Tensor,
    partner_share: Tensor,
) -> tuple[Tensor, Tensor]:
    """Core-tuning's hard pairs, mixed from features of the batch.

    Hard positive: share · (least similar of class) + (1 − share) · (most similar of the others).
    Hard negative: (1 − share) · i + share · partner, the share raised to 0.8 at least (code).
    All randomness is the caller's: shares from Beta(α, α), partners a permutation.

    Args:
        features: (B, d).
        labels: (B,) integers; −1 counts as a class of its own.
        positive_share: (B,) in 0…1.
        partner: (B,) indices.
        partner_share: (B,) in 0…1.

    Returns:
        Hard positives (B, d) and hard negatives (B, d); gradient reaches ``features``.

    Example:
        >>> x, half = torch.eye(2), torch.full((2,), 0.5)
        >>> mix_hard_pairs(x, torch.tensor([0, 1]), half, torch.tensor([1, 0]), half)[0]
        tensor([[0.5000, 0.5000],
                [0.5000, 0.5000]])
    """
    least, most = hardest(features, labels)
    with torch.no_grad():
        share, far = positive_share.unsqueeze(1), partner_share.clamp_min(0.8).unsqueeze(1)
    hard_positives = share * features[least] + (1 - share) * features[most]
    hard_negatives = (1 - far) * features + far * features[partner]
    return hard_positives, hard_negatives
