"""One encoder for slices and volumes: a slice network and attention between slices."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medcl.errors import UsageError
from medcl.nn import weights as released
from medcl_ct.encoders.deformable import InterSlice
from medcl_ct.encoders.parts import Scale
from medcl_ct.encoders.resnet import ResNet


class JointEncoder(nn.Module):
    """f_intra and f_inter of Nguyen 2023 (AAAI, arXiv 2212.01893).

    A slice's token z is a linear map of its ResNet stages, each pooled and normalised: the early
    stages tell texture, the last one anatomy. A volume's embedding is the mean over its slices
    after attention between them. Both have the same width, so one encoder serves both.

    Two differences from the authors' code. It concatenates the last stage twice, which a linear map
    cannot tell from once; here it is there once. And tokens are batch-normalised here: pooled
    activations share most of their direction, so that without it all tokens are nearly the same,
    hidden ones are guessed by their mean, and the little that tells volumes apart drowns.

    Attributes:
        width: of a slice's token and of a volume's embedding.
    """

    def __init__(self, intra: ResNet, inter: InterSlice, width: int) -> None:
        super().__init__()
        self.intra, self.inter = intra, inter
        self.token = nn.Sequential(
            nn.Linear(sum(intra.stage_widths), width, bias=False),
            nn.BatchNorm1d(width, affine=False),
        )
        self.width = width

    def slices(self, x: Tensor) -> Tensor:
        """Slices (M, 1, H, W) → tokens (M, width)."""
        pooled = [F.normalize(s.flatten(2).mean(dim=2), dim=1) for s in self.intra.stages(x)]
        return self.token(torch.cat(pooled, dim=1))

    def volumes(self, tokens: Tensor, depth: Tensor | None = None) -> Tensor:
        """Tokens (B, N, width), of which the first ``depth`` (B,) are real → (B, width)."""
        mixed = self.inter(tokens, depth)
        if depth is None:
            return mixed.mean(dim=1)
        real = torch.arange(tokens.shape[1], device=tokens.device) < depth[:, None]  # (B, N)
        return mixed.masked_fill(~real[..., None], 0.0).sum(dim=1) / depth[:, None]

    def forward(self, x: Tensor) -> Tensor:
        """Slices (B, 1, H, W) or volumes (B, 1, D, H, W) in HU → (B, width).

        A stack of copies of one slice, as a series of one slice comes in batches of volumes, is
        that slice: training never takes it for a volume (`medcl_ct.joint.Joint2D3D`).
        """
        if x.dim() == 4:
            return self.slices(x)
        if x.dim() != 5 or x.shape[1] != 1:
            raise UsageError(
                f"Encoder 'joint' takes slices (1, H, W) or volumes (1, D, H, W), "
                f"not {tuple(x.shape[1:])}."
            )
        tokens = self.slices(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (len(x), -1))
        return torch.where(copies(x)[:, None], tokens[:, 0], self.volumes(tokens))


def copies(x: Tensor) -> Tensor:
    """Which of the volumes (B, C, D, H, W) are one slice, repeated: (B,)."""
    return (x == x[:, :, :1]).flatten(1).all(dim=1)


def joint(
    *,
    depth: Literal[10, 18, 34, 50] = 50,
    base: int = 64,
    stem: Literal["imagenet", "small"] = "imagenet",
    width: int = 640,
    layers: int = 4,
    heads: int = 8,
    hidden: int = 720,
    stride: int = 4,
    reach: float = 2.0,
    kernel: int = 6,
    dropout: float = 0.1,
    window: tuple[float, float] = (0.0, 2000.0),
    scale: Scale = "water",
    weights: Path | None = None,
) -> nn.Module:
    """The encoder of `medcl_ct.joint.Joint2D3D`; the defaults are the authors' settings.

    Args:
        depth: layers of the slice network, a ResNet.
        base: channels of its first stage.
        stem: "small" neither strides nor pools at first.
        width: of slice tokens and volume embeddings.
        layers: of the Transformer between slices.
        heads: attention heads; must divide ``width``.
        hidden: width of its feed-forward layers.
        stride: slices for each key.
        reach: how far a key may move, in distances between keys.
        kernel: slices that decide on a key's move.
        dropout: in the Transformer.
        window: level and width in HU of what the network sees.
        scale: "water" (0 HU is 0) or "unit" (0 to 1).
        weights: a file for the slice network, as in `medcl_ct.encoders.resnet.resnet2d`.

    Returns:
        a module (B, 1, H, W) or (B, 1, D, H, W) in HU → (B, width).
    """
    intra = ResNet(2, depth, base, 1, stem, "B", window, scale)
    if weights is not None:
        released.load(intra.net, weights)
    inter = InterSlice(width, layers, heads, hidden, stride, reach, kernel, dropout)
    return JointEncoder(intra, inter, width)
