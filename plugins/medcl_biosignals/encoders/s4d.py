"""A convolutional stem and diagonal state spaces, as in ECG-CPC's network; it streams."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medcl.errors import UsageError
from medcl.nn.s4d import S4DStack
from medcl_biosignals.encoders.parts import Pool, known


class _Stem(nn.Module):
    """Convolution, batch norm, ReLU; output t ends with input stride·(t + 1) − 1."""

    def __init__(self, inner: int, outer: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.stride, self.reach = stride, kernel - stride
        self.conv = nn.Conv1d(inner, outer, kernel, stride, bias=False)
        self.norm = nn.BatchNorm1d(outer)

    def forward(self, x: Tensor, before: Tensor | None = None) -> Tensor:
        """(B, inner, T) → (B, outer, T/stride), after ``before`` (B, inner, reach), or silence."""
        x = F.pad(x, (self.reach, 0)) if before is None else torch.cat([before, x], dim=-1)
        out: Tensor = F.relu(self.norm(self.conv(x)))
        return out


@dataclass(frozen=True)
class Streamed:
    """What a stream carries from chunk to chunk: the end of each convolution's input, and states.

    Its size does not grow with the stream.
    """

    ends: tuple[Tensor, ...]
    states: tuple[Tensor, ...]


class S4D1d(nn.Module):
    """See `s4d1d`. `Predictive`, so that CPC trains it."""

    def __init__(
        self,
        channels: int,
        features: int,
        kernels: tuple[int, ...],
        strides: tuple[int, ...],
        depth: int,
        states: int,
        causal: bool,
        pool: str,
        width: int | None,
    ) -> None:
        super().__init__()
        if len(kernels) != len(strides) or any(
            k < s for k, s in zip(kernels, strides, strict=True)
        ):
            raise UsageError(
                f"s4d1d needs as many kernels as strides, none shorter than its stride, not "
                f"encoder.kernels={list(kernels)} and encoder.strides={list(strides)}."
            )
        inners = (channels, *(features,) * (len(kernels) - 1))
        self.stem = nn.ModuleList(
            _Stem(inner, features, kernel, stride)
            for inner, kernel, stride in zip(inners, kernels, strides, strict=True)
        )
        self.stack = S4DStack(features, depth, states, causal=causal)
        self.pooling = Pool(pool)
        pooled = features * self.pooling.times
        self.head = nn.Linear(pooled, width) if width else nn.Identity()
        self.width = width or pooled
        self.causal, self.local_width, self.context_width = causal, features, features
        self.stride = 1
        for stride in strides:
            self.stride *= stride

    def local(self, x: Tensor) -> Tensor:
        """See `medcl.nn.encoders.Predictive`: the stem's output, (B, ⌈T/stride⌉, features)."""
        x = F.pad(known(x), (0, -x.shape[-1] % self.stride))
        for layer in self.stem:
            x = layer(x)
        return x.transpose(1, 2)

    def context(self, local: Tensor) -> Tensor:
        """See `medcl.nn.encoders.Predictive`: (B, N, features) → (B, N, features)."""
        out: Tensor = self.stack(local.transpose(1, 2)).transpose(1, 2)
        return out

    def pool(self, context: Tensor) -> Tensor:
        """(B, N, features) → (B, width)."""
        out: Tensor = self.head(self.pooling(context.transpose(1, 2)))
        return out

    def forward(self, x: Tensor) -> Tensor:  # (B, C, T) → (B, width)
        return self.pool(self.context(self.local(x)))

    def stream(self, x: Tensor, before: Streamed | None = None) -> tuple[Tensor, Streamed]:
        """The next samples of a signal: (B, C, T) → (B, T/stride, features), and what to carry.

        However it is cut, a stream gives what ``context(local(x))`` gives for the whole.

        Args:
            x: the chunk, a multiple of ``stride`` long.
            before: what the previous chunk returned; None at the beginning.

        Raises:
            UsageError: if the chunk has another length, the encoder is bidirectional, or it is in
                training mode, where batch norm would see the chunk.
        """
        if x.shape[-1] % self.stride or not x.shape[-1]:
            raise UsageError(f"A chunk must be a multiple of {self.stride} samples long.")
        if self.training:
            raise UsageError("A stream needs an encoder in evaluation mode: encoder.eval().")
        x, ends = known(x), []
        for n, layer in enumerate(self.stem):
            assert isinstance(layer, _Stem)
            end = x.new_zeros(*x.shape[:2], layer.reach) if before is None else before.ends[n]
            joined = torch.cat([end, x], dim=-1)
            ends.append(joined[..., joined.shape[-1] - layer.reach :])
            x = layer(x, end)
        x, states = self.stack.stream(x, None if before is None else list(before.states))
        return x.transpose(1, 2), Streamed(tuple(ends), tuple(states))


def s4d1d(
    *,
    channels: int = 2,
    features: int = 128,
    kernels: tuple[int, ...] = (3, 1, 1, 1),
    strides: tuple[int, ...] = (2, 1, 1, 1),
    depth: int = 4,
    states: int = 8,
    causal: bool = True,
    pool: Literal["mean", "max", "meanmax", "centre", "last"] = "mean",
    width: int | None = None,
) -> S4D1d:
    """State spaces on a strided stem, as ECG-CPC's (Al-Masud 2025, arXiv 2509.25095).

    The layers are S4D (Gu 2022, arXiv 2206.11893), theirs S4 with its low-rank term. Time and
    memory grow linearly with the window. Parameters: 0.19 M by default, 0.74 M with
    ``features=256``, 2.92 M with 512, which is theirs. A causal one streams: see `S4D1d.stream`.

    Args:
        channels: of the signal, any number.
        features: of every convolution and layer (theirs: 512).
        kernels: samples that each convolution of the stem sees.
        strides: of each. One embedding a product of them: (2, 2, 1, 1) costs half.
        depth: layers.
        states: conjugate pairs of states of each feature.
        causal: look back only, as CPC and streams need; else to both sides.
        pool: over time, as in `resnet1d`, or "last": the newest position.
        width: of the embedding; None for whatever the pooling gives.

    Returns:
        a module (B, channels, T) → (B, width), for any T.

    Raises:
        UsageError: if a kernel is shorter than its stride.
    """
    return S4D1d(channels, features, kernels, strides, depth, states, causal, pool, width)
