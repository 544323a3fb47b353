"""SparK: masked autoencoding for ordinary convolutional networks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from medcl.methods.contract import State, View
from medcl.nn.decoders import PyramidDecoder
from medcl.nn.encoders import axes_of, staged, touch
from medcl.nn.patches import grid_of, patchify, random_mask, visible_count
from medcl.nn.sparse import stretch, visible_only
from medcl.objectives.masked_reconstruction import masked_reconstruction


class SparK(nn.Module):
    """Tian 2023, arXiv 2301.03580, in one, two or three axes.

    The encoder computes on visible positions only (`medcl.nn.sparse`): masked positions neither
    leak in nor shift the statistics of normalisation. A hierarchical decoder reconstructs the
    patches; L = mean over masked patches of the squared error, patches normalised by their own mean
    and deviation. A patch is one position of the coarsest stage.

    Args:
        encoder: a `Staged` encoder; its strides must be powers of two and the input a multiple of
            the largest.
        mask: share of patches hidden (paper: 0.6).
        width: decoder channels at the coarsest resolution (paper: 512 to 768).
        normalise: predict patches normalised one by one.

    Raises:
        UsageError: if the encoder is not `Staged`.
    """

    needs: tuple[str, ...] = ()

    def __init__(
        self,
        encoder: nn.Module,
        *,
        mask: float = 0.6,
        width: int = 128,
        normalise: bool = True,
    ) -> None:
        super().__init__()
        pyramid = staged(encoder, "spark")
        self.encoder = encoder
        self.views = (View(),)
        self.mask, self.normalise = mask, normalise
        axes = axes_of(encoder)
        self.patch = (pyramid.strides[-1],) * axes
        self.decoder = PyramidDecoder(
            pyramid.stage_widths, pyramid.strides, axes, width, pyramid.channels
        )

    def step(
        self, views: Sequence[Tensor], batch: Mapping[str, Tensor], state: State
    ) -> dict[str, Tensor]:
        """See `medcl.methods.contract.Method.step`; ``embedding`` is of the visible positions."""
        (x,) = views
        grid = grid_of(x.shape[2:], self.patch)
        cells = math.prod(grid)
        hidden, count = (
            random_mask(len(x), cells, self.mask, x.device),
            visible_count(cells, self.mask),
        )
        visible = ~hidden.reshape(-1, 1, *grid)
        with visible_only(self.encoder, visible, count):
            stages = staged(self.encoder, "spark").stages(x * stretch(visible, x.shape[2:]))
        prediction = self.decoder(stages, visible, count)  # (B, channels, *space)
        loss = masked_reconstruction(
            patchify(prediction, self.patch),
            patchify(x, self.patch),
            hidden,
            normalise=self.normalise,
            ranks=state.ranks,
        )
        loss = loss + touch(self.encoder)  # pooling and later layers get no gradient here
        coarse = stages[-1].detach().flatten(2)  # (B, width, N), zero where hidden
        return {"loss": loss, "embedding": coarse.sum(dim=2) / (~hidden).sum(dim=1, keepdim=True)}
