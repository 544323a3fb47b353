"""Forecasting end to end: foretell the rest of a window, with contrast beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from medcl.methods.contract import State, View
from medcl.nn.encoders import width_of
from medcl.nn.heads import projector
from medcl.objectives.means import mean_where
from medcl.objectives.nt_xent import nt_xent
from medcl_biosignals.methods.curves import Curves


class Forecast(nn.Module):
    """L = (1 − λ)·MSE(future, head(f(past))) + λ·NT-Xent(g(f(v1)), g(f(v2))).

    Zhang 2023 ("What Constitutes Good Contrastive Learning in Time-Series Forecasting?", arXiv
    2306.12086) found both losses at once, end to end, better than pretraining and then fine-tuning,
    λ = 0.5; their contrast is TS2Vec's or MoCo's over a Transformer, here it is over two augmented
    pasts. Past and future are taken relative to the past's mean and spread. The head is affine over
    cosines, so that a forecast has any length. What a persistence forecast would lose is logged
    beside it.

    Args:
        encoder: (B, C, T) → (B, width) for any T.
        future: share of the window that is foretold.
        contrast: λ, from 0 to 1.
        cosines: of each channel's forecast.
        channels: of the signal.
        temperature: τ.
        hidden: width of the projector's hidden layer.
        out: width of the projections.
        mask_same_patient: keep samples of one patient out of each other's negatives.
    """

    needs: tuple[str, ...] = ()

    def __init__(
        self,
        encoder: nn.Module,
        *,
        future: float = 0.2,
        contrast: float = 0.5,
        cosines: int = 32,
        channels: int = 2,
        temperature: float = 0.1,
        hidden: int = 256,
        out: int = 128,
        mask_same_patient: bool = True,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.views = (View("none"), View(), View())
        self.head = Curves(width_of(encoder), channels, cosines)
        self.projector = projector(width_of(encoder), hidden, out)
        self.future, self.contrast, self.temperature = future, contrast, temperature
        self.mask_same_patient = mask_same_patient

    def step(
        self, views: Sequence[Tensor], batch: Mapping[str, Tensor], state: State
    ) -> dict[str, Tensor]:
        """See `medcl.methods.contract.Method.step`."""
        x, *augmented = views
        now = x.shape[-1] - max(round(self.future * x.shape[-1]), 1)
        past, future = x[..., :now], x[..., now:]
        mean = past.mean(dim=-1, keepdim=True)
        spread = past.std(dim=-1, keepdim=True).clamp_min(1e-3)
        past, future = (past - mean) / spread, (future - mean) / spread
        h = self.encoder(past)
        there = past.abs().amax(dim=-1, keepdim=True) > 0  # of absent channels nothing is foretold
        there = there.expand_as(future)
        foretold = self.head(h, future.shape[-1])
        miss = mean_where((foretold - future).square(), there, state.ranks)
        still = mean_where((past[..., -1:] - future).square(), there, state.ranks)
        views2 = torch.cat([view[..., :now] for view in augmented])
        z1, z2 = self.projector(self.encoder(views2)).chunk(2)
        group = batch["patient"] if self.mask_same_patient else None
        contrast = nt_xent(z1, z2, temperature=self.temperature, group=group, ranks=state.ranks)
        return {
            "loss": (1 - self.contrast) * miss + self.contrast * contrast,
            "embedding": h.detach(),
            "forecast": miss.detach(),
            "persistence": still.detach(),
            "contrast": contrast.detach(),
        }
