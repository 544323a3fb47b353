"""Dense prediction: an encoder with a decoder to full resolution, or a linear model on voxels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medcl.classifiers.contract import Declares
from medcl.errors import UsageError
from medcl.labels.outputs import Outputs
from medcl.methods.contract import State, View
from medcl.nn.decoders import CONV
from medcl.nn.dense_loss import dice_and_cross_entropy, over_resolutions
from medcl.nn.encoders import Staged, Tokenised, is_staged, is_tokenised
from medcl.nn.patches import grid_of
from medcl.nn.unet import TokenUpsampler, UNetDecoder


class UNet(nn.Module):
    """An encoder inside a U-Net (`Staged`), or with Primus's light decoder (`Tokenised`).

    Trained with Dice and cross-entropy, see `medcl.nn.dense_loss`.

    Args:
        encoder: pretrained or new; of any number of axes.
        example: a batch of patches.
        outputs: the classes, the background first.
        rate: factor on the learning rate of the encoder.
        deep_supervision: whether coarser resolutions of the decoder learn too, as in nnU-Net.

    Raises:
        UsageError: if the encoder gives neither stages nor tokens, or tokens with deep supervision.
    """

    declares = Declares(takes="masks", views=(View(),))

    def __init__(
        self,
        encoder: nn.Module,
        example: Mapping[str, Tensor],
        outputs: Outputs,
        *,
        rate: float = 1.0,
        deep_supervision: bool = False,
    ) -> None:
        super().__init__()
        self.encoder, self._rate, self._deep = encoder, rate, deep_supervision
        axes = example["x"].ndim - 2
        if is_staged(encoder):
            pyramid = cast(Staged, encoder)
            self.decoder: nn.Module = UNetDecoder(
                pyramid.stage_widths,
                pyramid.strides,
                axes,
                pyramid.channels,
                outputs.size,
                deep=deep_supervision,
            )
        elif is_tokenised(encoder):
            self.decoder = TokenUpsampler(
                cast(Tokenised, encoder).width, cast(Tokenised, encoder).patch, outputs.size
            )
        else:
            raise _no_positions(encoder)
        if deep_supervision and not is_staged(encoder):
            raise UsageError(
                f"The decoder of {type(encoder).__name__} makes one resolution: set "
                "classifier.deep_supervision=false."
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, *space) → scores (B, size, *space)."""
        if isinstance(self.decoder, UNetDecoder):
            scores: Tensor = self.decoder(x, cast(Staged, self.encoder).stages(x))
            return scores
        tokeniser = cast(Tokenised, self.encoder)
        grid = grid_of(x.shape[2:], tokeniser.patch)
        up: Tensor = self.decoder(tokeniser.tokens(x)[:, 1:], grid)
        return up

    def step(self, batch: Mapping[str, Tensor], state: State) -> dict[str, Tensor]:
        """See `medcl.classifiers.contract.Classifier.step`."""
        if not self._deep:
            return dice_and_cross_entropy(self(batch["x"]), batch["mask"])
        stages = cast(Staged, self.encoder).stages(batch["x"])
        scores = cast(UNetDecoder, self.decoder).resolutions(batch["x"], stages)
        return over_resolutions(scores, batch["mask"])

    def predict(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``scores`` (B, size, *space)."""
        return {"scores": self(batch["x"])}

    def rate(self, name: str) -> float:
        """The factor on the learning rate of a parameter, by its name."""
        return self._rate if name.startswith("encoder.") else 1.0


class VoxelLinear(nn.Module):
    """A linear model of what a frozen encoder says of each position: the probe of dense features.

    The scores of a position are a linear function of all stages there (of a `Tokenised` encoder,
    of its token), each standardised by a batch normalisation without weights of its own.

    Args:
        encoder: stays as it is, in evaluation mode.
        example: a batch of patches.
        outputs: the classes, the background first.

    Raises:
        UsageError: if the encoder gives neither stages nor tokens.
    """

    declares = Declares(takes="masks")

    def __init__(self, encoder: nn.Module, example: Mapping[str, Tensor], outputs: Outputs) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(False)
        conv, norm = CONV[example["x"].ndim - 3], _NORM[example["x"].ndim - 3]
        widths = [stage.shape[1] for stage in self._maps(example["x"][:1])]
        self.norms = nn.ModuleList(norm(width, affine=False) for width in widths)
        self.heads = nn.ModuleList(conv(width, outputs.size, kernel_size=1) for width in widths)

    def train(self, mode: bool = True) -> VoxelLinear:
        """Training mode of the linear model alone."""
        super().train(mode)
        self.encoder.eval()
        return self

    @torch.no_grad()
    def _maps(self, x: Tensor) -> Sequence[Tensor]:
        if is_staged(self.encoder):
            return cast(Staged, self.encoder.eval()).stages(x)
        if not is_tokenised(self.encoder):
            raise _no_positions(self.encoder)
        tokeniser = cast(Tokenised, self.encoder.eval())
        tokens = tokeniser.tokens(x)[:, 1:].transpose(1, 2)
        return [tokens.unflatten(2, grid_of(x.shape[2:], tokeniser.patch))]

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, *space) → scores (B, size, *space)."""
        total = None
        for features, norm, head in zip(self._maps(x), self.norms, self.heads, strict=True):
            part = F.interpolate(head(norm(features)), x.shape[2:], mode="nearest")
            total = part if total is None else total + part
        assert total is not None
        return total

    def step(self, batch: Mapping[str, Tensor], state: State) -> dict[str, Tensor]:
        """See `medcl.classifiers.contract.Classifier.step`."""
        return dice_and_cross_entropy(self(batch["x"]), batch["mask"])

    def predict(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``scores`` (B, size, *space)."""
        return {"scores": self(batch["x"])}


_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def _no_positions(encoder: nn.Module) -> UsageError:
    return UsageError(
        f"Encoder {type(encoder).__name__} gives one vector for an image, and no features of its "
        "positions (see medcl.nn.encoders.Staged and Tokenised): choose another one."
    )
