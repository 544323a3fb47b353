"""Digits as eight sensors, a row of the picture each; what `digits` offers of pictures."""

from __future__ import annotations

import digits
import torch
from torch import Tensor, nn

from medcl.methods.contract import View
from medcl_biosignals.encoders.sensors import sensor_vit


def encoder() -> nn.Module:
    return sensor_vit(channels=8, patch=2, width=32, depth=2, heads=2)


def draw(batch: int = 64) -> tuple[Tensor, dict[str, Tensor]]:
    pictures, carried = digits.draw(batch)
    return pictures[:, 0], carried


def augment(x: Tensor, view: View) -> Tensor:
    return digits.augment(x[:, None], view)[:, 0]


@torch.no_grad()
def embed(encoder: nn.Module) -> Tensor:
    embedded: Tensor = encoder.eval()(digits.digits()[0][:, 0])
    return embedded


knn_accuracy = digits.knn_accuracy
