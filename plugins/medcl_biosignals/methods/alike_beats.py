"""Soft contrast of heart beats: how alike two beats are, across people, is read from the signal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import smooth_l1_loss

from medcl.errors import UsageError
from medcl.methods.contract import State
from medcl.methods.views import encode, pair
from medcl.nn.distributed import ALONE, Ranks
from medcl.nn.encoders import width_of
from medcl.nn.heads import projector
from medcl.objectives.precision import widened
from medcl.objectives.soft_contrast import soft_contrast
from medcl_biosignals.likeness import EARLY, MEASURES
from medcl_biosignals.rhythm import RATIOS

_RADIUS = 10.0  # large against the descriptions, so that the sphere is flat where they lie


class AlikeBeats(nn.Module):
    """L = SoftContrast(z1, z2; t) + w·|d̂ − d| + c·R(h), t_ij ∝ exp(−‖d_i − d_j‖²/2σ²).

    Instance contrast takes two normal beats of two people for strangers and, with views that keep
    what differs between people, buys nothing over a random encoder on unseen ones
    (`docs/research-log-biosignals.md`). Here the targets say how
    alike two beats are, whoever they come from: d describes each beat by how early it comes and how
    it differs from the beats beside it (`medcl_biosignals.rhythm`, `medcl_biosignals.likeness`).
    A linear layer on the embedding also predicts d from the augmented beat (smooth L1). All this
    needs R peaks, which a detector finds, but no label. R is the redundancy of the embedding, the
    squared correlations between its dimensions (as in Barlow Twins, Zbontar 2021, arXiv 2103.03230,
    but within a view): without it a linear probe stands and falls with its regularisation.

    The form of the loss is that of Dialog2Flow (Burdisso 2024, arXiv 2410.18481); positives by
    measures of shape instead of by instance are the idea of PaPaGei-S (Pillai 2024, arXiv
    2410.20542). The combination and the description of beats are ours.

    Args:
        encoder: (B, C, T) → (B, width).
        temperature: τ.
        sigma: σ; the smaller, the more alike two beats must be to attract each other.
        describe: w, weight of predicting d.
        decorrelate: c, weight of the redundancy.
        hidden: width of the projector's hidden layer; 0 contrasts the embeddings themselves, which
            leaves less room for what is particular to a person.
        out: width of the projections.
    """

    needs = ("x", "rr", "likeness")

    def __init__(
        self,
        encoder: nn.Module,
        *,
        temperature: float = 0.1,
        sigma: float = 0.7,
        describe: float = 5.0,
        decorrelate: float = 0.3,
        hidden: int = 0,
        out: int = 64,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.views = pair("instance")
        width = width_of(encoder)
        self.projector = projector(width, hidden, out) if hidden else nn.Identity()
        self.describer = nn.Linear(width, len(RATIOS) + MEASURES)
        self.temperature, self.sigma = temperature, sigma
        self.describe, self.decorrelate = describe, decorrelate

    def step(
        self, views: Sequence[Tensor], batch: Mapping[str, Tensor], state: State
    ) -> dict[str, Tensor]:
        """See `medcl.methods.contract.Method.step`.

        Raises:
            UsageError: if the samples are not beats.
        """
        if any(need not in batch for need in self.needs):
            raise UsageError("Method 'alike-beats' needs beats: set dataset.kind=beat.")
        h1, h2 = encode(self.encoder, views)  # (B, width) each
        h = torch.cat([h1, h2])
        z1, z2 = self.projector(h).chunk(2)  # (B, out) each
        described = description(batch)  # (B, D)
        # On a sphere of radius R, cos ≈ 1 − ‖Δ‖²/2R²: exp(cos·R²/σ²) is the Gaussian kernel.
        lifted = torch.cat([described, torch.full_like(described[:, :1], _RADIUS)], dim=1)
        contrast = soft_contrast(
            z1,
            z2,
            lifted,
            temperature=self.temperature,
            label_temperature=(self.sigma / _RADIUS) ** 2,
            symmetric=True,
            ranks=state.ranks,
        )
        guessed = self.describer(h)  # (2B, D)
        miss = smooth_l1_loss(guessed, torch.cat([described, described]))
        redundant = redundancy(h, state.ranks)
        return {
            "loss": contrast + self.describe * miss + self.decorrelate * redundant,
            "embedding": h1.detach(),
            "contrast": contrast.detach(),
            "miss": miss.detach(),
            "redundancy": redundant.detach(),
        }


def description(batch: Mapping[str, Tensor]) -> Tensor:
    """How early each beat comes and how it differs from its neighbours: (B, 10).

    Averaged over the leads that are there, so that it holds for any view of the heart.
    """
    there = (batch["x"].abs().amax(dim=-1) > 0).to(batch["rr"].dtype)  # (B, C)
    likeness = batch["likeness"].unflatten(1, (MEASURES, -1))  # (B, 6, C)
    weight = there / there.sum(dim=1, keepdim=True).clamp_min(1)
    return torch.cat([batch["rr"] / EARLY, (likeness * weight[:, None]).sum(dim=2)], dim=1)


def redundancy(h: Tensor, ranks: Ranks = ALONE) -> Tensor:
    """Σ_{a≠b} Corr(h_a, h_b)² / width over the samples of all ranks: (B, width) → scalar."""
    h = widened(h)
    centred = h - ranks.mean(h.mean(0))
    covariance = ranks.mean(centred.T @ centred / len(h))  # (width, width)
    spread = covariance.diagonal().clamp_min(1e-8).sqrt()
    correlation = covariance / (spread[:, None] * spread)
    return (correlation.square().sum() - correlation.diagonal().square().sum()) / h.shape[1]
