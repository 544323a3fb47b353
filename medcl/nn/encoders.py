"""Protocols of encoders that give more than (B, ...) → (B, width)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from medcl.errors import UsageError


class Staged(Protocol):
    """A convolutional encoder with access to its feature pyramid, for SparK.

    Attributes:
        width: of the pooled output.
        channels: of the input (B, channels, *space).
        stage_widths: channels of each stage, fine to coarse.
        strides: each stage's stride with respect to the input, the same along every axis.
    """

    width: int
    channels: int
    stage_widths: Sequence[int]
    strides: Sequence[int]

    def stages(self, x: Tensor) -> list[Tensor]:
        """(B, channels, *space) → for each stage (B, stage_width, *space / stride)."""
        ...

    def pool(self, stage: Tensor) -> Tensor:
        """The last stage → (B, width); calling the encoder is ``pool(stages(x)[-1])``."""
        ...


class Tokenised(Protocol):
    """A Transformer that can omit patches and returns its tokens, for MAE.

    Calling the encoder is the mean over its patch tokens.

    Attributes:
        width: of a token, and of the pooled output.
        channels: of the input (B, channels, *space).
        patch: the size of a patch along each axis.
    """

    width: int
    channels: int
    patch: Sequence[int]

    def tokens(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """(B, channels, *space) → (B, 1 + K, width), a class token first.

        ``keep`` (B, K): the visible patches, in `medcl.nn.patches.patchify` order.
        """
        ...


class Predictive(Protocol):
    """An encoder of sequences in two parts, for CPC: steps, and what is known at each of them.

    Calling the encoder is ``pool(context(local(x)))``.

    Attributes:
        width: of the pooled output.
        local_width: of a step.
        context_width: of the context at a step.
        causal: whether the context at a step depends on no later one.
    """

    width: int
    local_width: int
    context_width: int
    causal: bool

    def local(self, x: Tensor) -> Tensor:
        """(B, ...) → (B, N, local_width), each step of a short stretch of the input."""
        ...

    def context(self, local: Tensor) -> Tensor:
        """(B, N, local_width) → (B, N, context_width)."""
        ...

    def pool(self, context: Tensor) -> Tensor:
        """(B, N, context_width) → (B, width)."""
        ...


STAGED = ("stages", "pool", "stage_widths", "strides", "channels", "width")
TOKENISED = ("tokens", "patch", "channels", "width")
PREDICTIVE = ("local", "context", "pool", "local_width", "context_width", "causal", "width")


def is_staged(encoder: nn.Module) -> bool:
    """Whether the encoder is `Staged`."""
    return all(hasattr(encoder, name) for name in STAGED)


def is_tokenised(encoder: nn.Module) -> bool:
    """Whether the encoder is `Tokenised`."""
    return all(hasattr(encoder, name) for name in TOKENISED)


def staged(encoder: nn.Module, method: str) -> Staged:
    """``encoder``, checked to be `Staged`.

    Raises:
        UsageError: if it is not; names the missing attributes.
    """
    _need(encoder, Staged, STAGED, method)
    return cast(Staged, encoder)


def tokenised(encoder: nn.Module, method: str) -> Tokenised:
    """``encoder``, checked to be `Tokenised`.

    Raises:
        UsageError: if it is not; names the missing attributes.
    """
    _need(encoder, Tokenised, TOKENISED, method)
    return cast(Tokenised, encoder)


def predictive(encoder: nn.Module, method: str) -> Predictive:
    """``encoder``, checked to be `Predictive` and causal.

    Raises:
        UsageError: if it is not; names the missing attributes.
    """
    _need(encoder, Predictive, PREDICTIVE, method)
    found = cast(Predictive, encoder)
    if not found.causal:
        raise UsageError(
            f"Method '{method}' foretells later steps from earlier ones, and this encoder sees "
            "both: set encoder.causal to true."
        )
    return found


def _need(encoder: nn.Module, protocol: type, names: Sequence[str], method: str) -> None:
    lacking = [name for name in names if not hasattr(encoder, name)]
    if lacking:
        raise UsageError(
            f"Method '{method}' cannot train encoder {type(encoder).__name__}, which lacks "
            f"{', '.join(lacking)} (see medcl.nn.encoders.{protocol.__name__}). Choose another one."
        )


def width_of(encoder: nn.Module) -> int:
    """The encoder's output width.

    Raises:
        UsageError: if the encoder has no int attribute ``width``.
    """
    width = getattr(encoder, "width", None)
    if not isinstance(width, int):
        raise UsageError(f"Encoder {type(encoder).__name__} lacks the int attribute 'width'.")
    return width


def axes_of(encoder: nn.Module) -> int:
    """Number of spatial axes of a convolutional encoder.

    Raises:
        UsageError: if it has no convolution.
    """
    for part in encoder.modules():
        if isinstance(part, _ConvNd):
            return len(part.kernel_size)
    raise UsageError(f"Encoder {type(encoder).__name__} has no convolution.")


def pooled_stages(encoder: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """The output (B, width), and the mean over space of every stage (B, sum of stage widths).

    For an encoder that is not `Staged` both are the output.
    """
    if not is_staged(encoder):
        out = encoder(x)
        return out, out
    stages = cast(Staged, encoder).stages(x)
    means = torch.cat([stage.flatten(2).mean(dim=2) for stage in stages], dim=1)
    return cast(Staged, encoder).pool(stages[-1]), means


def features(encoder: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """The pooled output (B, width) and the tokens (B, N, D) that it was pooled from.

    Tokens are the patch tokens of a `Tokenised` encoder or the positions of the last stage of a
    `Staged` one. For other encoders, the pooled output is the only token.
    """
    if is_tokenised(encoder):
        tokens = cast(Tokenised, encoder).tokens(x)[:, 1:]
        return tokens.mean(dim=1), tokens
    if is_staged(encoder):
        last = cast(Staged, encoder).stages(x)[-1]
        return cast(Staged, encoder).pool(last), last.flatten(2).transpose(1, 2)
    pooled = encoder(x)
    return pooled, pooled[:, None]


def token_width(encoder: nn.Module) -> int:
    """D of `features`."""
    if is_staged(encoder) and not is_tokenised(encoder):
        return int(cast(Staged, encoder).stage_widths[-1])
    return width_of(encoder)


def touch(encoder: nn.Module) -> Tensor:
    """Zero, with a zero gradient for every parameter: for steps that bypass part of the encoder.

    DDP waits for a gradient of every parameter.
    """
    return 0.0 * torch.stack([p.sum() for p in encoder.parameters() if p.requires_grad]).sum()
