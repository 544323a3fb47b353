"""Masked columns: predict hidden values of a clinical table, categories and numbers."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from medcl.errors import UsageError
from medcl.nn.distributed import ALONE, Ranks
from medcl.objectives.checks import same_length, same_shape
from medcl.objectives.means import mean_where
from medcl.objectives.precision import widened


def masked_columns(
    logits: Tensor,
    numbers: Tensor,
    codes: Tensor,
    values: Tensor,
    mask: Tensor,
    *,
    ranks: Ranks = ALONE,
) -> Tensor:
    """½ (mean cross-entropy of hidden categories + mean squared error of hidden numbers).

    Du 2024 (TIP, arXiv 2407.07582), "masked tabular reconstruction". The means are over the values
    that were hidden, of all ranks. A table of one kind of columns has one term, not halved.

    Args:
        logits: (B, S, K) for each of S categorical columns, over the categories of all columns.
        numbers: (B, R) predictions of the numeric columns.
        codes: (B, S) integers in 0 … K − 1; ignored where ``mask`` is False.
        values: (B, R); may be NaN where ``mask`` is False; a constant.
        mask: (B, S + R) True where a value is known and was hidden, categorical columns first.
        ranks: the other processes (they may have hidden other numbers of values).

    Returns:
        Scalar; zero if nothing is masked.

    Raises:
        UsageError: if the shapes differ or there is no column.

    Example:
        >>> logits, codes = torch.zeros(1, 1, 4), torch.tensor([[3]])
        >>> numbers, values = torch.zeros(1, 2), torch.tensor([[2.0, torch.nan]])
        >>> mask = torch.tensor([[True, True, False]])
        >>> round(masked_columns(logits, numbers, codes, values, mask).item(), 4)  # (log 4 + 4) / 2
        2.6931
    """
    same_shape("masked_columns", 2, numbers=numbers, values=values)
    same_length("masked_columns", logits=logits, numbers=numbers, codes=codes, mask=mask)
    split = codes.shape[1]
    if split + values.shape[1] == 0:
        raise UsageError("masked_columns: the table has no column.")
    # Replace unmasked values first: a NaN would reach the gradient in spite of its zero weight.
    masked_codes, masked_values = mask[:, :split], mask[:, split:]
    terms = []
    if split:
        targets = torch.where(masked_codes, codes, 0)
        losses = cross_entropy(widened(logits).movedim(2, 1), targets, reduction="none")  # (B, S)
        terms.append(mean_where(losses, masked_codes, ranks))
    if values.shape[1]:
        values = torch.where(masked_values, widened(values.detach()), 0.0)
        terms.append(mean_where((widened(numbers) - values).square(), masked_values, ranks))
    return torch.stack(terms).mean()
