"""A fixed wavelet scattering front end with a small learnt adapter, as in ScatSimCLR."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medcl_ct.encoders.parts import Scale, Window, planes


def _gabor(size: int, sigma: float, theta: float, xi: float, slant: float) -> Tensor:
    """A Gabor filter (size, size) of an elliptical envelope, periodised; complex."""
    # The plane's copies within two periods: what lies beyond is below single precision.
    at = torch.arange(-2 * size, 3 * size, dtype=torch.float64)
    x, y = torch.meshgrid(at, at, indexing="ij")
    c, s = math.cos(theta), math.sin(theta)
    along, across = c * x + s * y, -s * x + c * y
    envelope = torch.exp(-(along**2 + slant**2 * across**2) / (2 * sigma**2))
    wave = torch.polar(envelope, xi * along) * (slant / (2 * math.pi * sigma**2))
    folded = wave.reshape(5, size, 5, size).sum(dim=(0, 2))
    return folded


def filters(size: int, scales: int, angles: int) -> tuple[Tensor, Tensor]:
    """Fourier transforms of Morlet wavelets (scales, angles, size, size) and the low-pass (size²).

    Bruna & Mallat 2013, arXiv 1203.1513, with the constants of kymatio (Andreux 2020,
    arXiv 1812.11214): σ = 0.8·2^j, ξ = 3π/4·2^−j, slant 4/L, low-pass σ = 0.8·2^(J−1).
    """
    bank = []
    for j in range(scales):
        for n in range(angles):
            theta = (angles - angles / 2 - 1 - n) * math.pi / angles
            sigma, xi, slant = 0.8 * 2**j, 3 * math.pi / 4 / 2**j, 4.0 / angles
            wave = _gabor(size, sigma, theta, xi, slant)
            still = _gabor(size, sigma, theta, 0.0, slant)
            morlet = wave - wave.sum() / still.sum() * still  # zero mean
            bank.append(torch.fft.fft2(morlet).real)
    low = torch.fft.fft2(_gabor(size, 0.8 * 2 ** (scales - 1), 0.0, 0.0, 1.0)).real
    shape = (scales, angles, size, size)
    return torch.stack(bank).reshape(shape).float(), low.float()


class Scattering(nn.Module):
    """Second-order scattering: (B, H, W) → (B, channels, H/2^J, W/2^J), nothing learnt.

    S0 = x∗φ, S1 = |x∗ψ_λ|∗φ, S2 = ||x∗ψ_λ|∗ψ_μ|∗φ for coarser μ; channels are
    1 + J·L + L²·J(J−1)/2. Images are reflected at their edges. Filters are made when a size is
    first seen; square images only.
    """

    def __init__(self, scales: int, angles: int) -> None:
        super().__init__()
        self.scales, self.angles = scales, angles
        self.channels = 1 + scales * angles + angles**2 * scales * (scales - 1) // 2
        self._banks: dict[tuple[int, torch.device], tuple[Tensor, Tensor]] = {}

    def _bank(self, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
        if (size, device) not in self._banks:
            waves, low = filters(size, self.scales, self.angles)
            self._banks[size, device] = waves.to(device), low.to(device)
        return self._banks[size, device]

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, N) → (B, channels, N/2^J, N/2^J)."""
        step = 2**self.scales
        extra = -x.shape[-1] % step
        x = F.pad(x, (step, step + extra, step, step + extra), mode="reflect")
        waves, low = self._bank(x.shape[-1], x.device)
        spectrum = torch.fft.fft2(x)
        out = [self._blur(spectrum, low)[:, None]]
        second = []
        for j in range(self.scales):
            first = torch.fft.ifft2(spectrum[:, None] * waves[j]).abs()  # (B, L, N, N)
            inner = torch.fft.fft2(first)
            out.append(self._blur(inner, low))
            if j + 1 < self.scales:
                coarser = waves[j + 1 :].flatten(0, 1)  # (K·L, N, N)
                pairs = torch.fft.ifft2(inner[:, :, None] * coarser).abs()  # (B, L, K·L, N, N)
                second.append(self._blur(torch.fft.fft2(pairs.flatten(1, 2)), low))
        return torch.cat(out + second, dim=1)

    def _blur(self, spectrum: Tensor, low: Tensor) -> Tensor:
        """Low-pass, one value for each block of 2^J, and the padding cut off."""
        step = 2**self.scales
        return torch.fft.ifft2(spectrum * low).real[..., ::step, ::step][..., 1:-1, 1:-1]


class _Block(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


class ScatteringEncoder(nn.Module):
    """See `scattering2d`."""

    def __init__(
        self,
        scales: int,
        angles: int,
        blocks: int,
        width: int,
        window: tuple[float, float],
        scale: Scale,
    ) -> None:
        super().__init__()
        self.window = Window(window, scale)
        self.front = Scattering(scales, angles)
        self.adapter = nn.Sequential(
            nn.BatchNorm2d(self.front.channels),  # orders differ by magnitudes
            nn.Conv2d(self.front.channels, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            *(_Block(width) for _ in range(blocks)),
        )
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, N, N) → (B, width)."""
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            fixed = self.front(self.window(planes(x, 1))[:, 0].float())
        return self.adapter(fixed).flatten(2).mean(dim=2)


def scattering2d(
    *,
    scales: int = 2,
    angles: int = 16,
    blocks: int = 8,
    width: int = 256,
    window: tuple[float, float] = (0.0, 2000.0),
    scale: Scale = "water",
) -> nn.Module:
    """Scattering and a small adapter (ScatSimCLR: Kinakh 2021, arXiv 2108.13939).

    Args:
        scales: J; the output is 2^J times coarser.
        angles: L.
        blocks: residual blocks of the adapter (paper: 8 to 45).
        width: of the embedding.
        window: level and width in HU of what the network sees.
        scale: "water" (0 HU is 0) or "unit" (0 to 1).

    Returns:
        a module (B, 1, N, N) in HU → (B, width), for square slices.
    """
    return ScatteringEncoder(scales, angles, blocks, width, window, scale)
