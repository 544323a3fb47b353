"""DINOv2: DINO on class tokens, iBOT on hidden patches, KoLeo, and codes balanced by Sinkhorn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from medcl.methods.contract import State
from medcl.methods.dino import DINOHead, warmed
from medcl.methods.views import Positives, pair
from medcl.nn.block_masks import block_numbers
from medcl.nn.ema import Momentum, cosine_momentum
from medcl.nn.patches import grid_of, take
from medcl.nn.vit import vit_of
from medcl.objectives.cross_views import cross_views
from medcl.objectives.koleo import koleo
from medcl.objectives.masked_codes import masked_codes
from medcl.objectives.sinkhorn import sinkhorn


class DINOv2(nn.Module):
    """Oquab 2023, arXiv 2304.07193: L = DINO + w_patch·iBOT + w_koleo·KoLeo.

    DINO: every view predicts the teacher's codes of each other global view, from what the encoder
    pools (its class token with ``encoder.pool: cls``, as the paper). iBOT: the teacher's codes of
    the patches that are hidden from the student, a share of half of the global views'. Codes are
    softmax(g_t/τ_t) made equipartite by three rounds of Sinkhorn, over all ranks. KoLeo spreads the
    pooled tokens of each global view.

    With ``koleo: 0`` and ``untied: false`` it is iBOT (Zhou 2022, arXiv 2111.07832), Sinkhorn in
    place of its centring. Hidden patches lie in blocks, as in the authors' code, whose last one is
    cut so that the count is what was drawn. Unlike there, there is no layer scale.

    Args:
        encoder: a `medcl.nn.vit.ViT`.
        positives: "instance" or "patient", as in SimCLR.
        local: number of small crops that only the student sees (paper: 8).
        out: number of codes (paper: 65,536 to 131,072).
        hidden: width of the heads' hidden layers (paper: 2048).
        bottleneck: width of the unit vector before the last layer (paper: 256 to 384).
        untied: a head of their own for patches.
        patches: w_patch.
        koleo: w_koleo.
        masked: share of global views of which patches are hidden.
        mask: smallest and largest share of their patches that is hidden.
        mask_blocks: hide blocks of patches; else single ones.
        student_temperature: τ_s.
        teacher_temperature: τ_t at the end of the warm-up.
        first_temperature: τ_t at the start.
        warmup: share of all steps over which τ_t rises.
        momentum: m of the teacher at the start, rising to 1 on a cosine.
        frozen: steps during which the last layers do not move (paper: one epoch).

    Raises:
        UsageError: if the encoder is no `medcl.nn.vit.ViT`.
    """

    needs: tuple[str, ...] = ()

    def __init__(
        self,
        encoder: nn.Module,
        *,
        positives: Positives = "instance",
        local: int = 0,
        out: int = 4096,
        hidden: int = 1024,
        bottleneck: int = 256,
        untied: bool = True,
        patches: float = 1.0,
        koleo: float = 0.1,
        masked: float = 0.5,
        mask: tuple[float, float] = (0.1, 0.5),
        mask_blocks: bool = True,
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.07,
        first_temperature: float = 0.04,
        warmup: float = 0.3,
        momentum: float = 0.992,
        frozen: int = 100,
    ) -> None:
        super().__init__()
        self.encoder = encoder = vit_of(encoder, method="dinov2", other="dino")
        self.views = pair(positives, local)
        self.blank = nn.Parameter(torch.zeros(encoder.width))
        nn.init.normal_(self.blank, std=0.02)
        sizes = (encoder.width, hidden, bottleneck, out)
        self.head = DINOHead(*sizes, norm=False)
        self.patch_head = DINOHead(*sizes, norm=False) if untied else self.head
        self.teacher = Momentum(self._followed())
        self.weights = (patches, koleo)
        self.masked, self.mask, self.mask_blocks = masked, mask, mask_blocks
        self.student_temperature = student_temperature
        self.temperatures, self.warmup = (first_temperature, teacher_temperature), warmup
        self.momentum, self.frozen = momentum, frozen

    def _followed(self) -> nn.ModuleList:
        return nn.ModuleList([self.encoder, self.head, self.patch_head])

    def step(
        self, views: Sequence[Tensor], batch: Mapping[str, Tensor], state: State
    ) -> dict[str, Tensor]:
        """See `medcl.methods.contract.Method.step`."""
        whole, size = torch.cat(list(views[:2])), len(views[0])  # (2B, ...)
        grid = grid_of(whole.shape[2:], self.encoder.patch)
        hidden, at, here = self._hidden(len(whole), grid, whole.device)
        held = state.step < self.frozen
        seen = self.encoder.tokens(whole, hidden=hidden, blank=self.blank)  # (2B, 1 + N, width)
        pooled = self.encoder.pooled(seen)
        local = [self.encoder(view) for view in views[2:]]
        students = [*pooled.chunk(2), *local]  # (B, width) each
        scores = torch.stack([self.head(each, held=held) for each in students])  # (V, B, out)
        shown = take(seen[:, 1:], at).flatten(0, 1)  # (2B·K, width)
        patch_scores = self.patch_head(shown, held=held).unflatten(0, at.shape)

        codes, patch_codes = self._codes(whole, at, here, state)
        self_distillation = cross_views(
            codes.unflatten(0, (2, size)), scores, self.student_temperature
        )
        patches = masked_codes(
            patch_scores,
            patch_codes,
            here,
            temperature=self.student_temperature,
            ranks=state.ranks,
        )
        group = batch["patient"]
        spread = torch.stack(
            [koleo(each, group=group, ranks=state.ranks) for each in pooled.chunk(2)]
        ).sum()
        w_patch, w_koleo = self.weights
        loss = self_distillation + w_patch * patches + w_koleo * spread
        return {
            "loss": loss,
            "embedding": pooled[:size].detach(),
            "dino": self_distillation.detach(),
            "patches": patches.detach(),
            "koleo": spread.detach(),
        }

    def _hidden(
        self, rows: int, grid: Sequence[int], device: torch.device
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What is hidden (rows, N), and of the K places that may be: where, and whether it is.

        K is what the largest share hides, so that the host knows it.
        """
        low, high = self.mask
        count = math.prod(grid)
        chance, share = torch.rand(rows, 2, device=device).unbind(1)
        share = torch.where(chance < self.masked, low + (high - low) * share, 0.0)
        first = torch.rand(rows, count, device=device)
        if self.mask_blocks:
            first = first + block_numbers(rows, grid, high, device)
        order = first.argsort(dim=1)  # of places
        most = max(1, min(round(high * count), count))
        at = order[:, :most]
        here = torch.arange(most, device=device) < (share * count).round()[:, None]
        hidden = torch.zeros(rows, count, dtype=torch.bool, device=device).scatter(1, at, here)
        return hidden, at, here

    @torch.no_grad()
    def _codes(
        self, whole: Tensor, at: Tensor, here: Tensor, state: State
    ) -> tuple[Tensor, Tensor]:
        """The teacher's codes of pooled tokens (2B, out) and of hidden patches (2B, K, out)."""
        followed: Any = self.teacher.module
        encoder, head, patch_head = followed
        tokens = encoder.tokens(whole)
        temperature = warmed(self.temperatures, self.warmup, state)
        codes = sinkhorn(head(encoder.pooled(tokens)), epsilon=temperature, ranks=state.ranks)
        scores = patch_head(take(tokens[:, 1:], at).flatten(0, 1))
        found = sinkhorn(scores, epsilon=temperature, kept=here.flatten(), ranks=state.ranks)
        return codes, found.unflatten(0, at.shape)

    def after_step(self, state: State) -> None:
        """The teacher follows."""
        momentum = cosine_momentum(self.momentum, state.step, state.steps)
        self.teacher.follow(self._followed(), momentum)
