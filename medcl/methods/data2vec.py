"""data2vec: foretell what a slow copy makes of hidden patches, over its upper layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from medcl.errors import UsageError
from medcl.methods.contract import State, View
from medcl.nn.block_masks import hidden_blocks
from medcl.nn.ema import Momentum
from medcl.nn.patches import grid_of
from medcl.nn.vit import ViT, vit_of
from medcl.objectives.masked_embedding import masked_embedding


class Data2Vec(nn.Module):
    """Baevski 2022, arXiv 2202.03555: L = mean over hidden patches of smooth L1(g(f(x̃)), y).

    x̃ is the view with blocks of its patches replaced by a learned one. y are the tokens of the
    whole view by a momentum copy: the mean over its last ``layers`` blocks of their outputs, each
    normalised (layer normalisation without weights), and normalised again. g is linear. The same
    for signals, images and volumes. The paper takes the outputs of the MLPs before they are added,
    for images, and β = 2 in the loss; here the blocks' outputs and β = 1.

    Args:
        encoder: a `medcl.nn.vit.ViT`.
        layers: of the copy to average (paper: 6 of 12 for images, 8 to 10 for speech and text).
        mask: share of hidden patches (paper: 0.6 for images).
        momentum: of the copy at the start.
        last_momentum: at the end, reached on a line.

    Raises:
        UsageError: if the encoder is no ViT, or has fewer blocks than ``layers``.
    """

    needs: tuple[str, ...] = ()

    def __init__(
        self,
        encoder: nn.Module,
        *,
        layers: int = 6,
        mask: float = 0.6,
        momentum: float = 0.999,
        last_momentum: float = 0.9999,
    ) -> None:
        super().__init__()
        self.encoder = encoder = vit_of(encoder, method="data2vec", other="spark")
        if not 1 <= layers <= len(encoder.blocks):
            raise UsageError(
                f"method.layers is {layers}, and the encoder has {len(encoder.blocks)} blocks."
            )
        self.views = (View(),)
        self.blank = nn.Parameter(torch.zeros(encoder.width))
        nn.init.normal_(self.blank, std=0.02)
        self.head = nn.Linear(encoder.width, encoder.width)
        self.teacher = Momentum(encoder)
        self.layers, self.mask = layers, mask
        self.momenta = momentum, last_momentum

    def step(
        self, views: Sequence[Tensor], batch: Mapping[str, Tensor], state: State
    ) -> dict[str, Tensor]:
        """See `medcl.methods.contract.Method.step`."""
        (x,) = views
        grid = grid_of(x.shape[2:], self.encoder.patch)
        hidden = hidden_blocks(len(x), grid, self.mask, x.device)  # (B, N)
        tokens = self.encoder.tokens(x, hidden=hidden, blank=self.blank)  # (B, 1 + N, width)
        loss = masked_embedding(
            self.head(tokens[:, 1:]),
            self._target(x),
            hidden,
            distance="smooth_l1",
            ranks=state.ranks,
        )
        return {"loss": loss, "embedding": self.encoder.pooled(tokens).detach()}

    @torch.no_grad()
    def _target(self, x: Tensor) -> Tensor:
        """(B, N, width), without gradient."""
        teacher = self.teacher.module
        assert isinstance(teacher, ViT)
        width = (self.encoder.width,)
        upper = [layer_norm(h[:, 1:], width) for h in teacher.depths(x, self.layers)]
        return layer_norm(torch.stack(upper).mean(0), width)

    def after_step(self, state: State) -> None:
        """The copy follows."""
        first, last = self.momenta
        self.teacher.follow(self.encoder, first + (last - first) * state.progress)
