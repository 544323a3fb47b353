"""Apply one augmentation to random samples of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Generator, Tensor

from medcl.augmentations import BATCH, Step


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
    at = (torch.rand(len(x), generator=generator, device=x.device) < step.p).nonzero()[:, 0]
    if not len(at):
        return x
    known = {**(known or {}), BATCH: x}
    if len(at) == len(x):
        return step(x, generator, known)
    rows = step(x[at], generator, known)
    return x.index_copy(0, at, rows.to(x.dtype))
