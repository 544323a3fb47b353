"""The shape of pulse waves in three numbers, as PaPaGei describes them, for batches on a device.

Pillai 2024 (arXiv 2410.20542) and the authors' morphology.py: each number is of a whole window.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_PIECE = 5.0  # seconds whose skewness is taken


def svri(x: Tensor) -> Tensor:
    """The stress-induced vascular response index: (B, T) → (B,), NaN where there is none.

    The mean from the window's highest sample on, by the mean before it, of a window scaled to
    0 … 1 (Zhang 2015, github.com/qiriro/PPG).
    """
    low, high = x.amin(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)
    scaled = (x - low) / (high - low)
    at = x.argmax(dim=1, keepdim=True)  # (B, 1)
    after = torch.arange(x.shape[1], device=x.device) >= at  # (B, T)
    second = (scaled * after).sum(dim=1) / after.sum(dim=1)
    first = (scaled * ~after).sum(dim=1) / (~after).sum(dim=1)  # 0 / 0 if the peak comes first
    index = second / first
    return torch.where(index.isfinite(), index, torch.nan)


def ipa(x: Tensor, fs: float) -> Tensor:
    """The inflection point area ratio of the first whole beat: (B, T) → (B,), 0 where none is.

    The beat lies between the first two minima that are the lowest within a fifth of a second on
    either side; the first minimum within it, of whatever depth, parts systole from diastole. The
    ratio is that of the areas (by trapezoids) under the two, systole first.
    """
    feet = minima(x, int(fs) // 5)
    begin, end = _first(feet), _first(feet & (feet.cumsum(dim=1) > 1))  # T where there is none
    t = torch.arange(x.shape[1], device=x.device)
    within = (t >= begin[:, None]) & (t < end[:, None])
    # A minimum of the beat alone: its own ends are none.
    inner = minima(x, 1) & (t > begin[:, None]) & (t < end[:, None] - 1)
    notch = _first(inner)
    systole, diastole = within & (t < notch[:, None]), within & (t >= notch[:, None])
    ratio = _area(x, systole) / _area(x, diastole)
    found = (end < x.shape[1]) & (notch < x.shape[1]) & ratio.isfinite()
    return torch.where(found, ratio, 0.0)


def sqi(x: Tensor, fs: float) -> Tensor:
    """The skewness of whole pieces of 5 s, their mean: (B, T) → (B,); 0 where a piece is still."""
    size = min(round(_PIECE * fs), x.shape[1])
    pieces = x[:, : x.shape[1] // size * size].unflatten(1, (-1, size))  # (B, pieces, size)
    moved = pieces - pieces.mean(dim=2, keepdim=True)
    skewness = moved.pow(3).mean(dim=2) / moved.square().mean(dim=2).pow(1.5)
    return torch.where(skewness.isfinite(), skewness, 0.0).mean(dim=1)


def minima(x: Tensor, order: int) -> Tensor:
    """Samples lower than each of the ``order`` ones on either side: (B, T) → (B, T) bool.

    As `scipy.signal.argrelmin` with its ends clipped.
    """
    wide = F.pad(-x[:, None], (order, order), mode="replicate")[:, 0]  # (B, T + 2·order)
    highest = F.max_pool1d(wide[:, None], order, 1)[:, 0]  # (B, T + order + 1)
    length = x.shape[1]
    left, right = highest[:, :length], highest[:, order + 1 :]
    return (-x > left) & (-x > right)


def _first(marks: Tensor) -> Tensor:
    """Position of the first mark in each row, or its length: (B, T) → (B,)."""
    return torch.where(marks.any(dim=1), marks.byte().argmax(dim=1), marks.shape[1])


def _area(x: Tensor, part: Tensor) -> Tensor:
    """By trapezoids of unit width under a run of samples (B, T): (B,)."""
    both = part[:, 1:] & part[:, :-1]
    return ((x[:, 1:] + x[:, :-1]) / 2 * both).sum(dim=1)
