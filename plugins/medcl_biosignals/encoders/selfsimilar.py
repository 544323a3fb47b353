"""A 1D network that compares the middle of its window with the rest of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from medcl_biosignals.encoders.parts import Pool, Stages, conv, norm_layer
from medcl_biosignals.encoders.resnet import resnet1d

_PROFILE = 32  # channels of the network that reads the similarities
_SHARPNESS = 2.0  # logarithm of the attention's scale at first


def selfsimilar1d(
    *,
    channels: int = 2,
    widths: tuple[int, ...] = (16, 32, 64),
    kernel: int = 5,
    stride: int = 4,
    heads: int = 8,
    dim: int = 8,
    apart: int = 30,
    width: int | None = 32,
) -> SelfSimilar:
    """The middle of the window, and how like it every other moment of the window is.

    What a heart beat looks like differs from person to person; how it differs from the beats
    around it means the same for everybody. An ordinary network has to learn that comparison from
    the people it is trained on, and does not carry it over to others
    (`docs/research-log-biosignals.md`); here it is built in, and what is compared is learnt. The
    self-similarity of a signal as the only way through a network is from RepNet (Dwibedi 2020,
    arXiv 2006.15418), which counts repetitions of things it has never seen; of its matrix this is
    the row of the middle, beside the middle itself and what of it the rest does not explain.

    Parameters: 0.07 M by default.

    Args:
        channels: of the signal.
        widths: channels of the residual stages; each but the first halves the length.
        kernel: samples a convolution sees.
        stride: of the stem.
        heads: learnt notions of likeness.
        dim: numbers that each of them compares.
        apart: samples; what is nearer to the middle than this is the same event.
        width: of the embedding; None for all that was compared.

    Returns:
        a module (B, channels, T) → (B, width), for any T. What is asked about, such as the beat,
        must lie in the middle of the window, and others of its kind in the rest.
    """
    trunk = resnet1d(
        channels=channels, widths=widths, blocks=1, kernel=kernel, stride=stride, pool="mean"
    )
    return SelfSimilar(trunk, heads, dim, apart, width)


class SelfSimilar(nn.Module):
    """See `selfsimilar1d`."""

    def __init__(self, trunk: Stages, heads: int, dim: int, apart: int, width: int | None) -> None:
        super().__init__()
        inner, self.stride = trunk.stage_widths[-1], trunk.strides[-1]
        self.trunk, self.heads, self.apart = trunk, heads, apart
        self.key = nn.Conv1d(inner, heads * dim, 1, bias=False)
        self.value = nn.Conv1d(inner, inner, 1)
        self.sharpness = nn.Parameter(torch.full((heads, 1), _SHARPNESS))
        layers: list[nn.Module] = []
        for first, step in ((heads, 1), (_PROFILE, 2), (_PROFILE, 2)):
            layers += [conv(first, _PROFILE, 5, step), norm_layer("batch", _PROFILE), nn.ReLU()]
        self.profile = nn.Sequential(*layers, Pool("centre"))
        compared = 2 * _PROFILE + 2 * inner + 2 * heads
        self.head = nn.Linear(compared, width) if width else nn.Identity()
        self.width = width or compared

    def forward(self, x: Tensor) -> Tensor:  # (B, C, T) → (B, width)
        seen = self.trunk.stages(x)[-1]  # (B, inner, T′)
        middle = seen.shape[-1] // 2
        keys = normalize(self.key(seen).unflatten(1, (self.heads, -1)), dim=2)  # (B, h, dim, T′)
        alike = (keys[..., middle : middle + 1] * keys).sum(dim=2)  # (B, h, T′), within ±1
        others = self.others(seen.shape[-1], middle, seen.device)
        weight = (alike * self.sharpness.exp()).masked_fill(~others, -torch.inf).softmax(dim=-1)
        values = self.value(seen).unflatten(1, (self.heads, -1))  # (B, h, inner/h, T′)
        explained = (values * weight.unsqueeze(2)).sum(dim=-1)
        parts = (
            self.profile(alike),
            seen[..., middle],
            (values[..., middle] - explained).flatten(1),
            alike.masked_fill(~others, -1).amax(dim=-1),
            (alike * weight).sum(dim=-1),
        )
        out: Tensor = self.head(torch.cat(parts, dim=1))
        return out

    def others(self, length: int, middle: int, device: torch.device) -> Tensor:
        """Which of T′ positions are another event than the middle; all of a window too short."""
        far = (torch.arange(length, device=device) - middle).abs() * self.stride > self.apart
        return far | ~far.any()
