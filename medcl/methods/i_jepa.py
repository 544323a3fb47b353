"""I-JEPA: foretell what a slow copy of the encoder makes of hidden blocks, from the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from medcl.methods.contract import State, View
from medcl.nn.block_masks import block_masks
from medcl.nn.ema import Momentum
from medcl.nn.encoders import tokenised
from medcl.nn.patches import grid_of, positions, take
from medcl.nn.vit import Block
from medcl.objectives.masked_embedding import masked_embedding


class Predictor(nn.Module):
    """A narrow Transformer: the context's tokens and blanks at a block's places → its tokens."""

    def __init__(self, width: int, inner: int, depth: int, heads: int) -> None:
        super().__init__()
        self.embed = nn.Linear(width, inner)
        self.blank = nn.Parameter(torch.zeros(inner))
        nn.init.trunc_normal_(self.blank, std=0.02)
        self.blocks = nn.ModuleList(Block(inner, heads) for _ in range(depth))
        self.norm, self.out = nn.LayerNorm(inner), nn.Linear(inner, width)

    def forward(
        self, context: Tensor, keep: Tensor, targets: Tensor, grid: Sequence[int]
    ) -> Tensor:
        """Tokens (B, K, width) at ``keep`` (B, K), blocks (B, M, P) → (B, M, P, width)."""
        batch, blocks, count = targets.shape
        h = self.embed(context)
        places = positions(grid, h.shape[-1], h.device).to(h.dtype)  # (N, inner)
        h = (h + places[keep]).repeat_interleave(blocks, dim=0)  # each block by itself
        blank = self.blank.to(h.dtype) + places[targets.flatten(0, 1)]  # (B·M, P, inner)
        h = torch.cat([h, blank], dim=1)
        for block in self.blocks:
            h = block(h)
        out: Tensor = self.out(self.norm(h[:, -count:]))
        return out.unflatten(0, (batch, blocks))


class IJEPA(nn.Module):
    """Assran 2023, arXiv 2301.08243, for signals, images and volumes: no views, no pixels.

    L = mean over M blocks of smooth L1(predictor(f(context), block), LN(f′(x))[block]), f′ a
    momentum copy that sees the whole input, with m rising to 1 on a line. Blocks are drawn as in
    `medcl.nn.block_masks`, as a function of the step.

    The authors evaluate the copy; the run saves the encoder, which it follows. Their network has no
    class token: ours is there, and the predictor does not see it.

    Args:
        encoder: a `Tokenised` encoder, e.g. `medcl.nn.vit.ViT`.
        targets: M.
        target_share: smallest and largest share of the patches in a block.
        aspect: smallest and largest ratio of a block's sides; without effect in one axis.
        context_share: smallest and largest share of the block that the targets are cut out of.
        momentum: m at the start.
        width: of the predictor's tokens (paper: 384).
        depth: its blocks (paper: 6 for ViT-B, 12 for larger ones).
        heads: its attention heads; must divide ``width``.

    Raises:
        UsageError: if the encoder is not `Tokenised`.
    """

    needs: tuple[str, ...] = ()

    def __init__(
        self,
        encoder: nn.Module,
        *,
        targets: int = 4,
        target_share: tuple[float, float] = (0.15, 0.2),
        aspect: tuple[float, float] = (0.75, 1.5),
        context_share: tuple[float, float] = (0.85, 1.0),
        momentum: float = 0.996,
        width: int = 192,
        depth: int = 4,
        heads: int = 4,
    ) -> None:
        super().__init__()
        tokeniser = tokenised(encoder, "i-jepa")
        self.encoder = encoder
        self.views = (View(),)
        self.patch = tuple(tokeniser.patch)
        self.predictor = Predictor(tokeniser.width, width, depth, heads)
        self.target = Momentum(encoder)
        self.targets, self.target_share, self.aspect = targets, target_share, aspect
        self.context_share, self.momentum = context_share, momentum

    def step(
        self, views: Sequence[Tensor], batch: Mapping[str, Tensor], state: State
    ) -> dict[str, Tensor]:
        """See `medcl.methods.contract.Method.step`."""
        (x,) = views
        grid = grid_of(x.shape[2:], self.patch)
        keep, blocks = self._masks(x, grid, state)
        tokens = tokenised(self.encoder, "i-jepa").tokens(x, keep)[:, 1:]  # (B, K, width)
        prediction = self.predictor(tokens, keep, blocks, grid)  # (B, M, P, width)
        with torch.no_grad():
            whole = tokenised(self.target.module, "i-jepa").tokens(x)[:, 1:]  # (B, N, width)
            whole = layer_norm(whole, whole.shape[-1:])
            goal = take(whole, blocks.flatten(1)).unflatten(1, blocks.shape[1:])
        loss = masked_embedding(
            prediction.flatten(1, 2),
            goal.flatten(1, 2),
            torch.ones(blocks.flatten(1).shape, dtype=torch.bool, device=x.device),
            distance="smooth_l1",
            ranks=state.ranks,
        )
        return {"loss": loss, "embedding": tokens.mean(dim=1).detach()}

    def _masks(self, x: Tensor, grid: Sequence[int], state: State) -> tuple[Tensor, Tensor]:
        """This rank's rows of `block_masks` for the batch of all ranks."""
        ranks = state.ranks
        masks = block_masks(
            len(x) * ranks.world,
            grid,
            np.random.default_rng(state.step),
            targets=self.targets,
            target_share=self.target_share,
            aspect=self.aspect,
            context_share=self.context_share,
        )
        mine = slice(len(x) * ranks.rank, len(x) * (ranks.rank + 1))
        keep, blocks = (mask[mine].to(x.device, non_blocking=True) for mask in masks)
        return keep, blocks

    def after_step(self, state: State) -> None:
        """The copy follows the encoder."""
        done = state.step / max(state.steps, 1)
        self.target.follow(self.encoder, self.momentum + (1 - self.momentum) * done)
