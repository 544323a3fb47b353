"""What can be measured of a window of ECG on its device, without finding beats: ours."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

_LEVELS = (0.005, 0.05, 0.25, 0.75, 0.95, 0.995)  # quantiles of the signal: heights of its waves
_SLOPES = (0.5, 0.9, 0.99)  # quantiles of the steepness
_HERTZ = (0.5, 1.5, 3.0, 5.0, 8.0, 12.0, 18.0, 25.0, 40.0)  # edges of the bands
_LAGS = 60  # of the rhythm's autocorrelation, each of
_LAG = 0.05  # seconds: up to 3 s
_FLAT = 1e-3  # of a lead's unit (mV): below that it is noise


def size(channels: int) -> int:
    """Number of measures of a window of ``channels`` leads."""
    each = len(_LEVELS) + len(_SLOPES) + len(_HERTZ) - 1 + 3
    return channels * each + channels * (channels - 1) // 2 + _LAGS


def measured(x: Tensor, fs: float) -> Tensor:
    """Heights, slopes, spectrum and form by lead, correlations of leads, and the rhythm.

    Args:
        x: (B, C, T) in the leads' unit, of 6 s or more; a lead that is absent is zero.
        fs: its sampling rate in Hz.

    Returns:
        (B, `size`): for each lead quantiles of level and of slope, the logarithms of its deviation
        and of its power in eight bands of 0.5–40 Hz, skewness and the root of kurtosis; the
        correlation of each pair of leads; the autocorrelation of the slopes of all leads together
        at lags of 0.05 … 3 s.
    """
    slope = x.diff(dim=2) * fs
    deviation = x.square().mean(dim=2).sqrt() + _FLAT  # (B, C)
    form = [(x.pow(3).mean(dim=2) / deviation**3).clamp(-10, 10)]
    form += [(x.pow(4).mean(dim=2) / deviation**4).clamp(0, 60).sqrt()]
    levels = [_quantiles(x, _LEVELS), _quantiles(slope.abs(), _SLOPES), deviation.log(), *form]
    parts = [*levels, _powers(x, fs), _correlations(x, deviation), _rhythm(slope, fs)]
    return torch.cat([part.flatten(1) for part in parts], dim=1)


def _quantiles(x: Tensor, of: tuple[float, ...]) -> Tensor:
    """(B, C, T) → (B, C, Q), by one sorting; between samples the lower counts."""
    ordered = x.sort(dim=2).values
    return torch.stack([ordered[..., int(q * (x.shape[2] - 1))] for q in of], dim=2)


def _powers(x: Tensor, fs: float) -> Tensor:
    """(B, C, T) → (B, C, 8)."""
    length = x.shape[2]
    window = torch.hann_window(length, device=x.device, dtype=x.dtype)
    power = torch.fft.rfft(x * window, dim=2).abs().square()
    edges = [min(round(hertz * length / fs), power.shape[2] - 1) for hertz in _HERTZ]
    bands = [power[:, :, a : max(b, a + 1)].sum(dim=2) for a, b in pairwise(edges)]
    return (torch.stack(bands, dim=2) + _FLAT).log()


def _correlations(x: Tensor, deviation: Tensor) -> Tensor:
    """(B, C, T) → (B, C(C − 1)/2)."""
    scaled = x / deviation[..., None]
    products = scaled @ scaled.transpose(1, 2) / x.shape[2]  # (B, C, C)
    i, j = torch.triu_indices(x.shape[1], x.shape[1], 1)
    return products[:, i, j]


def _rhythm(slope: Tensor, fs: float) -> Tensor:
    """(B, C, T) → (B, 60)."""
    pool = max(round(_LAG * fs), 1)
    energy = F.avg_pool1d(slope.square().sum(dim=1, keepdim=True), pool)[:, 0].sqrt()
    energy = energy - energy.mean(dim=1, keepdim=True)
    spectrum = torch.fft.rfft(energy, n=2 * energy.shape[1], dim=1).abs().square()
    products = torch.fft.irfft(spectrum, dim=1)[:, : _LAGS + 1]
    products = F.pad(products, (0, _LAGS + 1 - products.shape[1]))
    return products[:, 1:] / (products[:, :1] + _FLAT)
