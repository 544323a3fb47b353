"""JPEG's losses without JPEG: blocks of 8, cosine transform, quantisation, on any device.

ITU-T T.81 with the tables of its annex K, scaled by quality as libjpeg does; colours are not
subsampled, and nothing is entropy-coded, since that is free of loss.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

_LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


def jpeg(x: Tensor, quality: Tensor) -> Tensor:
    """What JPEG of a quality (B,) from 1 to 100 makes of RGB (B, 3, H, W) in 0 … 1."""
    height, width = x.shape[2:]
    down, right = -height % 8, -width % 8
    padded = F.pad(x, (0, right, 0, down), mode="replicate") if down or right else x
    colours = torch.tensor(_YCC, device=x.device)
    ycc = torch.einsum("kc,bchw->bkhw", colours, padded * 255).round()
    ycc = ycc - torch.tensor([128.0, 0.0, 0.0], device=x.device).view(1, 3, 1, 1)
    rows, columns = padded.shape[2] // 8, padded.shape[3] // 8
    blocks = ycc.unflatten(3, (columns, 8)).unflatten(2, (rows, 8)).transpose(3, 4)
    cosine = _cosine(x.device)
    tables = _tables(quality)[:, :, None, None]  # (B, 3, 1, 1, 8, 8)
    kept = (cosine @ blocks @ cosine.T / tables).round() * tables
    back = (cosine.T @ kept @ cosine).round().transpose(3, 4).flatten(4, 5).flatten(2, 3)
    back = back + torch.tensor([128.0, 0.0, 0.0], device=x.device).view(1, 3, 1, 1)
    rgb = torch.einsum("kc,bchw->bkhw", colours.inverse(), back)
    return (rgb[..., :height, :width].round() / 255).clamp(0, 1)


def _tables(quality: Tensor) -> Tensor:
    """(B, 3, 8, 8): how coarse each frequency of each colour becomes."""
    quality = quality.clamp(1, 100)
    scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality)[:, None, None, None]
    base = torch.tensor((_LUMA, _CHROMA, _CHROMA), device=quality.device, dtype=torch.float32)
    return ((base * scale + 50) / 100).floor().clamp(1, 255)


def _cosine(device: torch.device) -> Tensor:
    """The orthonormal cosine transform of 8 values, (8, 8)."""
    n = torch.arange(8, device=device, dtype=torch.float32)
    matrix = torch.cos((2 * n + 1) * n[:, None] * math.pi / 16) / 2
    matrix[0] /= math.sqrt(2)
    return matrix
