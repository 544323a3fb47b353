"""Masked autoencoder: a Transformer sees a quarter of the patches and reconstructs the rest."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from medcl.methods.contract import State, View
from medcl.nn.decoders import TokenDecoder
from medcl.nn.encoders import tokenised
from medcl.nn.patches import grid_of, patchify, random_mask, seen, visible_count
from medcl.objectives.masked_reconstruction import masked_reconstruction


class MAE(nn.Module):
    """He 2021, arXiv 2111.06377, for signals, images and volumes.

    L = mean over masked patches of the squared error, patches normalised by their own mean and
    standard deviation. The encoder sees only visible patches; a light decoder sees all positions.

    Args:
        encoder: a `Tokenised` encoder, e.g. `medcl.nn.vit.ViT`.
        mask: share of patches hidden.
        width: of the decoder's tokens (paper: 512).
        depth: decoder blocks (paper: 8).
        heads: decoder attention heads.
        normalise: predict patches normalised one by one (the paper's better variant).

    Raises:
        UsageError: if the encoder is not `Tokenised`.
    """

    needs: tuple[str, ...] = ()

    def __init__(
        self,
        encoder: nn.Module,
        *,
        mask: float = 0.75,
        width: int = 128,
        depth: int = 2,
        heads: int = 4,
        normalise: bool = True,
    ) -> None:
        super().__init__()
        tokeniser = tokenised(encoder, "mae")
        self.encoder = encoder
        self.views = (View(),)
        self.mask, self.normalise = mask, normalise
        self.patch = tuple(tokeniser.patch)
        values = tokeniser.channels * math.prod(self.patch)
        self.decoder = TokenDecoder(tokeniser.width, width, depth, heads, values)

    def step(
        self, views: Sequence[Tensor], batch: Mapping[str, Tensor], state: State
    ) -> dict[str, Tensor]:
        """See `medcl.methods.contract.Method.step`."""
        (x,) = views
        grid = grid_of(x.shape[2:], self.patch)
        cells = math.prod(grid)
        hidden = random_mask(len(x), cells, self.mask, x.device)  # (B, N)
        keep = seen(hidden, visible_count(cells, self.mask))  # (B, K)
        tokens = tokenised(self.encoder, "mae").tokens(x, keep)  # (B, 1 + K, width)
        prediction = self.decoder(tokens, keep, grid)  # (B, N, values)
        loss = masked_reconstruction(
            prediction,
            patchify(x, self.patch),
            hidden,
            normalise=self.normalise,
            ranks=state.ranks,
        )
        return {"loss": loss, "embedding": tokens[:, 1:].mean(dim=1).detach()}
