"""Masked autoencoder of a U-Net: blocks of the input are blanked, and their values predicted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from medcl.methods.contract import State, View
from medcl.nn.encoders import axes_of, staged, touch
from medcl.nn.patches import grid_of, patchify, random_mask
from medcl.nn.sparse import stretch
from medcl.nn.unet import UNetDecoder
from medcl.objectives.masked_reconstruction import masked_reconstruction


class UNetMAE(nn.Module):
    """The MAE of nnssl (Wald 2025, arXiv 2410.23132), after He 2021 (arXiv 2111.06377).

    The dense form of `medcl.methods.spark.SparK`: blanked blocks are zero in the input and pass
    through the network like anything else, and a U-Net's decoder predicts the input at full
    resolution. L = mean over blanked blocks of the squared error to the input, which is
    standardised sample by sample.

    Args:
        encoder: a `Staged` encoder; the input must be a multiple of its largest stride.
        mask: share of blocks blanked.
        block: side of a block, along every axis.
        normalise: standardise each block by itself too, as MAE's better variant; nnssl does not.

    Raises:
        UsageError: if the encoder is not `Staged`.
    """

    needs: tuple[str, ...] = ()

    def __init__(
        self,
        encoder: nn.Module,
        *,
        mask: float = 0.75,
        block: int = 16,
        normalise: bool = False,
    ) -> None:
        super().__init__()
        pyramid = staged(encoder, "mae-unet")
        self.encoder = encoder
        self.views = (View(),)
        self.mask, self.normalise = mask, normalise
        axes = axes_of(encoder)
        self.block = (block,) * axes
        self.decoder = UNetDecoder(
            pyramid.stage_widths, pyramid.strides, axes, pyramid.channels, pyramid.channels
        )

    def step(
        self, views: Sequence[Tensor], batch: Mapping[str, Tensor], state: State
    ) -> dict[str, Tensor]:
        """See `medcl.methods.contract.Method.step`; ``embedding`` is of the masked input."""
        (x,) = views
        grid = grid_of(x.shape[2:], self.block)
        hidden = random_mask(len(x), math.prod(grid), self.mask, x.device)  # (B, N)
        shown = x * stretch(~hidden.reshape(-1, 1, *grid), x.shape[2:])
        encoder = staged(self.encoder, "mae-unet")
        stages = encoder.stages(shown)
        loss = masked_reconstruction(
            patchify(self.decoder(shown, stages), self.block),
            patchify(standardised(x), self.block),
            hidden,
            normalise=self.normalise,
            ranks=state.ranks,
        )
        loss = loss + touch(self.encoder)  # pooling and later layers get no gradient here
        return {"loss": loss, "embedding": encoder.pool(stages[-1]).detach()}


def standardised(x: Tensor) -> Tensor:
    """Each sample (B, ...) with mean 0 and deviation 1; a constant one is 0."""
    flat = x.detach().float().flatten(1)
    mean, deviation = flat.mean(dim=1, keepdim=True), flat.std(dim=1, keepdim=True)
    return ((flat - mean) / deviation.clamp(min=1e-6)).reshape(x.shape)
