"""Structured state spaces: the network of ECG-CPC."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medcl.errors import UsageError
from medcl_biosignals.encoders.hong import count


class _Kernel(nn.Module):
    """The impulse response of a state space x' = Ax + Bu, y = Cx with A = diag(w) − P Qᴴ.

    Gu 2022 (S4, arXiv 2111.00396): its generating function is evaluated at the roots of unity, a
    Cauchy sum over one of each pair of conjugate states, and transformed back. ``C`` is stored as
    C·(I − A^L) of the discrete A, as in their code, so that the response has the L taps for which
    it was made.

    Args:
        features: H, each with a state space of its own.
        states: N pairs of conjugate states.
        taps: L, even.
    """

    def __init__(self, features: int, states: int, taps: int) -> None:
        super().__init__()
        self.C = nn.Parameter(torch.randn(1, features, states, 2))
        self.register_buffer("log_dt", torch.empty(features).uniform_(-6.9, -2.3))
        for name in ("B", "P", "Q"):
            self.register_buffer(name, torch.randn(1, features, states, 2))
        decay = torch.full((features, states), -0.5)
        speed = torch.pi * torch.arange(states).expand(features, -1)
        self.register_buffer("w", torch.stack([decay, speed], dim=-1))
        omega = torch.exp(torch.tensor(-2j * torch.pi / taps)) ** torch.arange(taps // 2 + 1)
        self.register_buffer("omega", torch.view_as_real(omega))
        self.register_buffer("z", torch.view_as_real(2 * (1 - omega) / (1 + omega)))

    @property
    def taps(self) -> int:
        """L."""
        return 2 * (len(self.get_buffer("omega")) - 1)

    def forward(self, length: int) -> Tensor:
        """The first ``length`` taps, (H, length).

        Raises:
            UsageError: if it has fewer.
        """
        if length > self.taps:
            raise UsageError(
                f"ECG-CPC sees at most {self.taps} tokens at once, not {length}: shorten "
                "dataset.seconds (its authors' is 2.5)."
            )
        b, p, q, w, omega, z = (
            torch.view_as_complex(self.get_buffer(name).contiguous())
            for name in ("B", "P", "Q", "w", "omega", "z")
        )
        c = torch.view_as_complex(self.C.contiguous())
        dt = self.get_buffer("log_dt").exp()  # (H,)
        rates = (w * dt[:, None])[..., None]  # (H, N, 1)
        into, out = torch.cat([b, p]), torch.cat([c, q])  # (2, H, N) each
        v = (into[:, None] * out)[..., None]  # (2, 2, H, N, 1)
        cauchy = (v / (z - rates) + v.conj() / (z - rates.conj())).sum(dim=-2)  # (2, 2, H, F)
        r = cauchy * dt[:, None]
        response = r[0, 0] - r[0, 1] * r[1, 0] / (1 + r[1, 1])  # Woodbury, rank one
        return torch.fft.irfft(response * 2 / (1 + omega), n=self.taps)[..., :length]


class _S4(nn.Module):
    """Each feature through its state space, then all mixed: (B, H, N) → (B, H, N), causal."""

    def __init__(self, features: int, states: int, taps: int) -> None:
        super().__init__()
        self.D = nn.Parameter(torch.randn(1, features))
        self.kernel = _Kernel(features, states, taps)
        self.mix = nn.Conv1d(features, 2 * features, 1)

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[-1]
        spectrum = torch.fft.rfft(self.kernel(length), n=2 * length)
        made = torch.fft.irfft(torch.fft.rfft(x, n=2 * length) * spectrum, n=2 * length)
        made = made[..., :length] + x * self.D[0, :, None]
        return F.glu(self.mix(F.gelu(made)), dim=1)


class CPC(nn.Module):
    """Convolutions and causal S4 layers, each added and normed; the mean token is the embedding.

    Args:
        channels: of the signal.
        conv: (channels, kernel, stride) of each convolution.
        depth: S4 layers.
        states: pairs of conjugate states of each.
        taps: of their responses.
    """

    def __init__(
        self,
        channels: int,
        conv: Sequence[tuple[int, int, int]],
        depth: int,
        states: int,
        taps: int,
    ) -> None:
        super().__init__()
        made, inner = [], channels
        for outer, kernel, stride in conv:
            layer = nn.Conv1d(inner, outer, kernel, stride, padding=(kernel - 1) // 2, bias=False)
            made.append(nn.Sequential(layer, nn.BatchNorm1d(outer), nn.ReLU()))
            inner = outer
        self.convolutions = nn.Sequential(*made)
        self.layers = nn.ModuleList(_S4(inner, states, taps) for _ in range(depth))
        self.norms = nn.ModuleList(nn.LayerNorm(inner) for _ in range(depth))
        self.width = inner

    def forward(self, x: Tensor) -> Tensor:  # (B, channels, T) → (B, width)
        x = self.convolutions(x)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = norm((x + layer(x)).transpose(1, 2)).transpose(1, 2)
        return x.mean(dim=-1)


_NAMES = (
    (r"^encoder\.layers\.", "convolutions."),
    (r"^predictor\.predictor\.s4_layers\.", "layers."),
    (r"^predictor\.predictor\.norms\.", "norms."),
    (r"\.kernel\.kernel\.", ".kernel."),
    (r"\.output_linear\.0\.", ".mix."),
)


def of_clinical_ts(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The authors' names, without ``ts_encoder.``, as those of `CPC`."""
    named = {}
    for name, value in tensors.items():
        for old, new in _NAMES:
            name = re.sub(old, new, name)
        if name.endswith(".mix.weight"):
            value = value.unsqueeze(-1)
        named[name] = value.flatten() if name.endswith(".mix.bias") else value
    return named


def cpc(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> nn.Module:
    """ECG-CPC's network, in the sizes of its weights. ``config`` is not used.

    Its first convolution has a stride of two, the others have none.
    """
    kernels = [
        tensors[f"convolutions.{n}.0.weight"].shape for n in range(count(tensors, "convolutions."))
    ]
    conv = [(o, kernel, 2 if n == 0 else 1) for n, (o, _, kernel) in enumerate(kernels)]
    return CPC(
        channels=kernels[0][1],
        conv=conv,
        depth=count(tensors, "layers."),
        states=tensors["layers.0.kernel.C"].shape[2],
        taps=2 * (len(tensors["layers.0.kernel.omega"]) - 1),
    )
