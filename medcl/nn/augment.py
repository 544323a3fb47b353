"""Apply one augmentation to random samples of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Generator, Tensor

from medcl.augmentations import BATCH, Step
from medcl.nn.host import chosen_rows


def augment(
    step: Step, x: Tensor, generator: Generator | None, known: Mapping[str, Any] | None = None
) -> Tensor:
    """``x`` (B, ...) where each row is augmented with probability `Step.p`.

    Args:
        step: the augmentation.
        x: (B, ...); it is not modified.
        generator: of all random numbers; None: torch's own.
        known: values that the step may take as parameters, besides the whole batch.
    """
    known = {**(known or {}), BATCH: x}
    if step.p >= 1:
        return step(x, generator, known)
    chosen = torch.rand(len(x), generator=generator, device=x.device) < step.p
    at = chosen_rows(chosen)
    if at is None:
        every = step(x, generator, known).to(x.dtype)
        return torch.where(chosen.view(-1, *(1,) * (x.dim() - 1)), every, x)
    if not len(at):
        return x
    if len(at) == len(x):
        return step(x, generator, known)
    rows = step(x[at], generator, known)
    return x.index_copy(0, at, rows.to(x.dtype))
