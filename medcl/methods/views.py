"""The views of a method, and how they are encoded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from medcl.methods.contract import View

Positives = Literal["instance", "patient"]
"""Positives: two views of one sample, or of two samples of one patient."""


def pair(positives: Positives, local: int = 0) -> tuple[View, ...]:
    """Two global views, the second of another sample for patient positives, and ``local`` crops."""
    second = View(source=1 if positives == "patient" else 0)
    return (View(), second, *(View("local") for _ in range(local)))


def encode(encoder: nn.Module, views: Sequence[Tensor]) -> list[Tensor]:
    """Encode views (B, ...) → (B, width) each; consecutive views of one shape form one batch.

    Batch normalisation sees them as one batch too, as in SimCLR and SwAV.
    """
    out: list[Tensor] = []
    start = 0
    for end in range(1, len(views) + 1):
        if end < len(views) and views[end].shape == views[start].shape:
            continue
        out.extend(encoder(torch.cat(list(views[start:end]))).chunk(end - start))
        start = end
    return out
