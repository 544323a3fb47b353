"""Diagonal state spaces (S4D): long convolutions over a sequence, linear in time, that stream."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medcl.errors import UsageError


class S4D(nn.Module):
    """Gu 2022, arXiv 2206.11893: each feature through a state space, then all mixed by a GLU.

    x' = Ax + u, y = 2·Re(Cx) + Du with A_n = −1/2 + iπn (S4D-Lin), one step Δ a feature, held
    constant between steps (ZOH): the convolution with
    K_l = 2·Re Σ_n C_n·(e^{ΔA_n} − 1)/A_n·e^{ΔA_n·l}, which is computed by FFT. As in the network of
    ECG-CPC, A and Δ are drawn and fixed, C and D are learned. Bidirectional layers add a second
    convolution that runs backwards.

    Args:
        width: H features.
        states: N of each feature, one of a pair of conjugates each.
        causal: whether position t sees nothing after it.
        steps: smallest and largest Δ; 1/Δ is about how far back a feature sees.
    """

    def __init__(
        self,
        width: int,
        states: int = 8,
        *,
        causal: bool = True,
        steps: tuple[float, float] = (1e-3, 1e-1),
    ) -> None:
        super().__init__()
        self.causal = causal
        ways = 1 if causal else 2
        low, high = (math.log(step) for step in steps)
        self.register_buffer("log_dt", torch.empty(ways, width).uniform_(low, high))
        self.register_buffer("speed", math.pi * torch.arange(states))
        self.C = nn.Parameter(torch.randn(ways, width, states, 2) / 2**0.5)
        self.D = nn.Parameter(torch.randn(width))
        self.mix = nn.Conv1d(width, 2 * width, 1)

    def _waves(self, length: int) -> tuple[Tensor, Tensor]:
        """Real and imaginary parts of e^{ΔA·l}, l < ``length``: (ways, H, N, length) each."""
        dt = self.get_buffer("log_dt").exp()[..., None, None]  # (ways, H, 1, 1)
        at = dt * torch.arange(length, device=dt.device, dtype=dt.dtype)  # (ways, H, 1, length)
        angle = self.get_buffer("speed")[:, None] * at
        decay = (-0.5 * at).exp()
        return decay * angle.cos(), decay * angle.sin()

    def _output(self) -> tuple[Tensor, Tensor]:
        """Real and imaginary parts of 2·C·(e^{ΔA} − 1)/A: (ways, H, N) each."""
        dt, speed = self.get_buffer("log_dt").exp()[..., None], self.get_buffer("speed")
        decay = (-0.5 * dt).exp()
        a, b = decay * (speed * dt).cos() - 1, decay * (speed * dt).sin()
        norm = 0.25 + speed.square()  # |A|², and 1/A = (−1/2 − i·speed)/|A|²
        p, q = (-0.5 * a + speed * b) / norm, (-0.5 * b - speed * a) / norm
        c, d = self.C.unbind(-1)
        return 2 * (c * p - d * q), 2 * (c * q + d * p)

    def kernel(self, length: int) -> Tensor:
        """K, (ways, H, length)."""
        real, imaginary = self._waves(length)
        c, d = self._output()
        out: Tensor = (c[..., None, :] @ real - d[..., None, :] @ imaginary).squeeze(-2)
        return out

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, L) → (B, H, L)."""
        with torch.autocast(x.device.type, enabled=False):  # FFTs know no half precision
            wide = x if x.dtype == torch.float64 else x.float()
            y = _convolved(wide, self.kernel(x.shape[-1])) + wide * self.D[:, None]
        return self._mixed(y.to(x.dtype))

    def stream(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The next L positions, after those that made ``state`` (B, H, N, 2); None: the first.

        Returns:
            what `forward` gives for them, (B, H, L), and the state after them.

        Raises:
            UsageError: if the layer is bidirectional.
        """
        if not self.causal:
            raise UsageError("A bidirectional encoder cannot stream: set encoder.causal to true.")
        length = x.shape[-1]
        real, imaginary = (wave[0] for wave in self._waves(length + 1))  # (H, N, L + 1)
        c, d = (part[0] for part in self._output())
        y = _convolved(x, self.kernel(length)) + x * self.D[:, None]
        back = x.flip(-1).transpose(0, 1)  # (H, B, L), the newest first
        state_real, state_imaginary = (
            (back @ wave[..., :length].transpose(1, 2)).transpose(0, 1)
            for wave in (real, imaginary)
        )  # (B, H, N)
        if state is not None:
            s, t = state[..., None].unbind(-2)  # (B, H, N, 1)
            carried_real, carried_imaginary = s * real - t * imaginary, s * imaginary + t * real
            later = (carried_real * c[..., None] - carried_imaginary * d[..., None]).sum(-2)
            y = y + later[..., 1:]
            state_real = state_real + carried_real[..., -1]
            state_imaginary = state_imaginary + carried_imaginary[..., -1]
        return self._mixed(y), torch.stack([state_real, state_imaginary], dim=-1)

    def _mixed(self, y: Tensor) -> Tensor:
        return F.glu(self.mix(F.gelu(y)), dim=1)


class S4DStack(nn.Module):
    """``depth`` layers, each added to its input and normalised: (B, H, L) → (B, H, L)."""

    def __init__(self, width: int, depth: int, states: int, *, causal: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(S4D(width, states, causal=causal) for _ in range(depth))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        """All positions at once."""
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = norm((x + layer(x)).transpose(1, 2)).transpose(1, 2)
        return x

    def stream(self, x: Tensor, states: list[Tensor] | None) -> tuple[Tensor, list[Tensor]]:
        """The next positions, and the state of each layer after them; see `S4D.stream`."""
        after = []
        for n, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            assert isinstance(layer, S4D)
            y, state = layer.stream(x, None if states is None else states[n])
            x = norm((x + y).transpose(1, 2)).transpose(1, 2)
            after.append(state)
        return x, after


def _convolved(x: Tensor, kernel: Tensor) -> Tensor:
    """Causal convolution of (B, H, L) with each way of ``kernel`` (ways, H, L), the second back.

    A graph that is exported has no FFT that every runtime knows: there it is a plain convolution.
    """
    length = x.shape[-1]
    if torch.compiler.is_exporting():
        return _convolved_directly(x, kernel)
    n = _fast_length(2 * int(length) - 1)
    spectrum = torch.fft.rfft(kernel[0], n=n)
    if len(kernel) == 2:
        spectrum = spectrum + torch.fft.rfft(kernel[1], n=n).conj()  # time reversed, around zero
    return torch.fft.irfft(torch.fft.rfft(x, n=n) * spectrum, n=n)[..., :length]


def _convolved_directly(x: Tensor, kernel: Tensor) -> Tensor:
    """`_convolved` without FFT, in length² operations."""
    length = x.shape[-1]
    taps = kernel[0].flip(-1)  # correlation, so the newest sample last
    if len(kernel) == 2:
        past, future = F.pad(taps, (0, length - 1)), F.pad(kernel[1], (length - 1, 0))
        taps, after = past + future, length - 1
    else:
        after = 0
    return F.conv1d(F.pad(x, (length - 1, after)), taps[:, None], groups=x.shape[1])


def _fast_length(least: int) -> int:
    """The smallest 2^a·3^b·5^c that is not below ``least``: lengths for which FFTs are fast."""
    best = 1 << (least - 1).bit_length()
    for three in (1, 3, 9):
        for five in (1, 5):
            odd = three * five
            best = min(best, odd << max(-(-least // odd) - 1, 0).bit_length())
    return best
