"""Image–table matching: classify matched against mismatched pairs, with hard negatives."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from medcl.errors import UsageError
from medcl.nn.distributed import ALONE, Ranks
from medcl.objectives.checks import positive, same_shape
from medcl.objectives.precision import full, widened
from medcl.objectives.unit import unit


def matching(matched: Tensor, mismatched: Tensor, *, ranks: Ranks = ALONE) -> Tensor:
    """Cross-entropy of "belongs" (class 1) for matched pairs and "does not" (0) for the others.

    Du 2024 (TIP, arXiv 2407.07582), after Li 2021 (ALBEF, arXiv 2107.07651): one matched pair to
    two mismatched, which pair image i with the table of `hard_negatives`, and vice versa.
    The mean is over all pairs.

    Args:
        matched: (B, 2) the matching head's logits for pairs (a_i, b_i).
        mismatched: (M, 2) its logits for pairs that do not belong together.
        ranks: not needed; all hold the same B and M.

    Returns:
        Scalar.

    Example:
        >>> round(matching(torch.zeros(1, 2), torch.zeros(2, 2)).item(), 4)  # log 2
        0.6931
    """
    logits = widened(torch.cat([matched, mismatched]))
    labels = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
    labels[: len(matched)] = 1
    return cross_entropy(logits, labels)


@torch.no_grad()
def hard_negatives(
    a: Tensor,
    b: Tensor,
    *,
    temperature: float = 0.1,
    group: Tensor | None = None,
    floor: float = 1e-4,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """For each a_i draw a b_j, j ≠ i, with probability ∝ softmax_j(cos(a_i, b_j)/τ) + floor.

    As TIP's code draws them, from this rank's batch.

    Args:
        a: (B, d).
        b: (B, d).
        temperature: τ > 0.
        group: (B,) integers, e.g. the patient: never draw from i's own group. Where nothing else
            is left, i's own j are drawn from all but i.
        floor: added, so that every other sample can be drawn.
        generator: of the random draw.

    Returns:
        Indices of the b for each a, and of the a for each b: (B,), (B,).

    Raises:
        UsageError: if the shapes differ, τ is not positive, or B is 1.

    Example:
        >>> hard_negatives(torch.eye(2), torch.eye(2))
        (tensor([1, 0]), tensor([1, 0]))
    """
    same_shape("hard_negatives", 2, a=a, b=b)
    positive("hard_negatives", temperature=temperature)
    if len(a) < 2:
        raise UsageError("hard_negatives: one sample has no negative; use a batch of two or more.")
    with full(a):
        s = unit(a) @ unit(b).T / temperature  # (B, B)
    s = s.nan_to_num()  # the loss shows the NaN; the draw must not fail
    drawn = []
    for scores in (s, s.T):
        probabilities = (scores.softmax(1) + floor).fill_diagonal_(0)
        if group is not None:
            others = probabilities.masked_fill(group.unsqueeze(1) == group, 0.0)
            probabilities = torch.where(others.any(1, keepdim=True), others, probabilities)
        drawn.append(torch.multinomial(probabilities, 1, generator=generator).squeeze(1))
    return drawn[0], drawn[1]
