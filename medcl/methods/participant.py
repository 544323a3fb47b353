"""Participant contrast, the pretraining of wearable foundation models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from medcl.methods.contract import State, View
from medcl.nn.ema import Momentum
from medcl.nn.encoders import width_of
from medcl.nn.heads import projector
from medcl.objectives.info_nce import info_nce
from medcl.objectives.koleo import koleo


class Participant(nn.Module):
    """Abbaspourazad 2024 (ICLR), arXiv 2312.05409.

    v1 and v2 are augmented segments of one participant at different times; z are online
    projections, k those of the momentum copy:

    L = ½(NCE(z1, k2) + NCE(z2, k1)) + λ·½(KoLeo(z1) + KoLeo(z2))

    Each view is contrasted with the *other* segment's key. (A public re-implementation pairs z1
    with k1 and z2 with k2, a view with itself.) Other segments of the participant are never
    negatives.

    With ``instance`` > 0 a third view, of the first segment again, adds instance positives:
    L_NCE = (1 − w)·patient + w·instance. That hybrid is ours, not the paper's.

    Args:
        encoder: (B, ...) → (B, width).
        temperature: τ.
        momentum: m of the copy, constant.
        koleo: λ, weight of the KoLeo regulariser.
        instance: w, weight of instance positives, from 0 to 1.
        hidden: width of the projector's hidden layer (paper: 1024).
        out: width of the projections.
        mask_same_patient: keep samples of one patient out of each other's negatives, and out of
            the neighbours that the regulariser pushes apart.
    """

    needs: tuple[str, ...] = ()

    def __init__(
        self,
        encoder: nn.Module,
        *,
        temperature: float = 0.04,
        momentum: float = 0.99,
        koleo: float = 0.1,
        instance: float = 0.0,
        hidden: int = 1024,
        out: int = 128,
        mask_same_patient: bool = True,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.views = (View(), View(source=1), *([View()] if instance > 0 else []))
        self.projector = projector(width_of(encoder), hidden, out)
        self.target = Momentum(nn.Sequential(encoder, self.projector))
        self.temperature, self.momentum = temperature, momentum
        self.spread, self.instance = koleo, instance
        self.mask_same_patient = mask_same_patient

    def step(
        self, views: Sequence[Tensor], batch: Mapping[str, Tensor], state: State
    ) -> dict[str, Tensor]:
        """See `medcl.methods.contract.Method.step`."""
        h = [self.encoder(view) for view in views]  # (B, width) each
        z = [self.projector(each) for each in h]  # (B, out) each
        k = [self.target(view) for view in views]  # (B, out) each, without gradient

        def both_ways(a: int, b: int) -> Tensor:
            return (self._nce(z[a], k[b], batch, state) + self._nce(z[b], k[a], batch, state)) / 2

        contrast = both_ways(0, 1)
        if self.instance > 0:
            contrast = (1 - self.instance) * contrast + self.instance * both_ways(0, 2)
        # KoLeo must not push windows of one participant apart either.
        group = batch["patient"] if self.mask_same_patient else None
        spread1, spread2 = (koleo(each, group=group, ranks=state.ranks) for each in z[:2])
        spread = (spread1 + spread2) / 2
        loss = contrast + self.spread * spread
        return {
            "loss": loss,
            "embedding": h[0].detach(),
            "contrast": contrast.detach(),
            "koleo": spread.detach(),
        }

    def _nce(self, z: Tensor, k: Tensor, batch: Mapping[str, Tensor], state: State) -> Tensor:
        return info_nce(
            z,
            k,
            temperature=self.temperature,
            group=batch["patient"] if self.mask_same_patient else None,
            ranks=state.ranks,
        )

    def after_step(self, state: State) -> None:
        """The copy follows the encoder and projector."""
        self.target.follow(nn.Sequential(self.encoder, self.projector), self.momentum)
