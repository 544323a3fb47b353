"""One augmentation of some samples of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Generator, Tensor

from medcl.augmentations import BATCH, Step


def augment(
    step: Step, x: Tensor, generator: Generator | None, known: Mapping[str, Any] | None = None
) -> Tensor:
    """``x`` (B, ...) with the rows that a coin of `Step.p` chose replaced by their augmentation.

    Args:
        step: what to do.
        x: (B, ...); it is left as it is.
        generator: of the coin and the augmentation; None: torch's own.
        known: what the step may ask for, beside the whole batch.
    """
    at = (torch.rand(len(x), generator=generator, device=x.device) < step.p).nonzero()[:, 0]
    if not len(at):
        return x
    known = {**(known or {}), BATCH: x}
    if len(at) == len(x):
        return step(x, generator, known)
    rows = step(x[at], generator, known)
    return x.index_copy(0, at, rows.to(x.dtype))
