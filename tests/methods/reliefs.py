"""Digits as volumes, a slice for the ink above each height; what `digits` offers of pictures."""

from __future__ import annotations

import digits
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medcl.methods.contract import View
from medcl_ct.encoders.joint import joint

SLICES = 4
INK = 1600.0  # HU


def encoder() -> nn.Module:
    return joint(depth=10, base=4, width=32, layers=1, heads=2, hidden=32, dropout=0.0)


def relief(pictures: Tensor) -> Tensor:
    """(B, 1, 8, 8) in [0, 1] → (B, 1, slices, 16, 16) in HU."""
    larger = F.interpolate(pictures, scale_factor=2, mode="bilinear")  # (B, 1, 16, 16)
    heights = torch.arange(SLICES).view(1, -1, 1, 1)
    return INK * (SLICES * larger - heights).clamp(0, 1).unsqueeze(1)


def draw(batch: int = 32) -> tuple[Tensor, dict[str, Tensor]]:
    pictures, carried = digits.draw(batch)
    return relief(pictures), {**carried, "depth": torch.full((batch,), SLICES)}


def augment(x: Tensor, view: View) -> Tensor:
    """As a picture: all slices of a volume move together."""
    return INK * digits.augment(x[:, 0] / INK, view).unsqueeze(1)


@torch.no_grad()
def embed(encoder: nn.Module) -> Tensor:
    embedded: Tensor = encoder.eval()(relief(digits.digits()[0]))
    return embedded


knn_accuracy = digits.knn_accuracy
