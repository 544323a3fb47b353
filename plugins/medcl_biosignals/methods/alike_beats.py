"""Soft contrast of heart beats: how alike two beats are, across people, is read from the signal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from medcl.errors import UsageError
from medcl.methods.contract import State
from medcl.methods.views import encode, pair
from medcl.nn.encoders import width_of
from medcl.nn.heads import projector
from medcl.objectives.soft_contrast import soft_contrast

_RR_SCALE = 0.2  # a beat 20 % early counts as much as a shape that is not correlated at all
_RADIUS = 10.0  # large against the descriptions, so that the sphere is flat where they lie


class AlikeBeats(nn.Module):
    """L = −mean_i Σ_j t_ij log softmax_j(z1_i·z2_j/τ), t_ij ∝ exp(−‖d_i − d_j‖²/2σ²), both ways.

    Instance contrast takes two normal beats of two people for strangers and, on unseen people,
    buys nothing over a random encoder (`docs/research-log-biosignals.md`). Here the targets say how
    alike two beats are, whoever they come from: d describes each beat by how early it comes and how
    it differs from the beats beside it (`medcl_biosignals.rhythm`, `medcl_biosignals.likeness`).
    That needs R peaks, which a detector finds, but no label.

    The form of the loss is that of Dialog2Flow (Burdisso 2024, arXiv 2410.18481); positives by
    measures of shape instead of by instance are the idea of PaPaGei-S (Pillai 2024, arXiv
    2410.20542). The combination and the description of beats are ours.

    Args:
        encoder: (B, C, T) → (B, width).
        temperature: τ.
        sigma: σ; the smaller, the more alike two beats must be to attract each other.
        hidden: width of the projector's hidden layer.
        out: width of the projections.
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        temperature: float = 0.1,
        sigma: float = 1.5,
        hidden: int = 256,
        out: int = 64,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.views = pair("instance")
        self.projector = projector(width_of(encoder), hidden, out)
        self.temperature, self.sigma = temperature, sigma

    def step(
        self, views: Sequence[Tensor], batch: Mapping[str, Tensor], state: State
    ) -> dict[str, Tensor]:
        """See `medcl.methods.contract.Method.step`.

        Raises:
            UsageError: if the samples are not beats.
        """
        if "likeness" not in batch:
            raise UsageError("Method 'alike-beats' needs beats: set dataset.kind=beat.")
        h1, h2 = encode(self.encoder, views)  # (B, width) each
        z1, z2 = self.projector(torch.cat([h1, h2])).chunk(2)  # (B, out) each
        described = torch.cat([batch["rr"] / _RR_SCALE, batch["likeness"]], dim=1)  # (B, D)
        # On a sphere of radius R, cos ≈ 1 − ‖Δ‖²/2R²: exp(cos·R²/σ²) is the Gaussian kernel.
        lifted = torch.cat([described, torch.full_like(described[:, :1], _RADIUS)], dim=1)
        loss = soft_contrast(
            z1,
            z2,
            lifted,
            temperature=self.temperature,
            label_temperature=(self.sigma / _RADIUS) ** 2,
            symmetric=True,
            ranks=state.ranks,
        )
        return {"loss": loss, "embedding": h1.detach()}

    def after_step(self, state: State) -> None:
        """Nothing follows the optimiser."""
