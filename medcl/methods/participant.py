"""Participant contrast, the pretraining of wearable foundation models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from medcl.methods.contract import State, View
from medcl.nn.ema import Momentum
from medcl.nn.encoders import width_of
from medcl.nn.heads import mlp
from medcl.objectives.koleo import koleo
from medcl.objectives.nt_xent import nt_xent


class Participant(nn.Module):
    """Abbaspourazad 2024 (ICLR), arXiv 2312.05409.

    v1 and v2 are augmented segments of one participant at different times; z1 is the online
    projection of v1, k2 that of v2 by the momentum copy. NT-Xent over both has negatives across
    the views and within each:

    L = NT-Xent(z1, k2) + λ·½(KoLeo(z1) + KoLeo(k2))

    As in the authors' code (github.com/apple/ml-ppg-age-analysis), where k2 gets no gradient, the
    head has no batch norm, and its hidden layer a dropout. There, segments of one participant are
    left out of the negatives within a view only; here out of all, and out of the neighbours that
    KoLeo pushes apart. With one pair of each participant in a batch, as theirs, it is the same.

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
        norm: batch norm in the projector; not in the authors' code.
        dropout: of the projector's hidden layer, from 0 to below 1.
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
        norm: bool = False,
        dropout: float = 0.1,
        mask_same_patient: bool = True,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.views = (View(), View(source=1), *([View()] if instance > 0 else []))
        self.projector = mlp((width_of(encoder), hidden, out), norm=norm, dropout=dropout)
        self.target = Momentum(nn.Sequential(encoder, self.projector))
        self.temperature, self.momentum = temperature, momentum
        self.spread, self.instance = koleo, instance
        self.mask_same_patient = mask_same_patient

    def step(
        self, views: Sequence[Tensor], batch: Mapping[str, Tensor], state: State
    ) -> dict[str, Tensor]:
        """See `medcl.methods.contract.Method.step`."""
        h = self.encoder(views[0])  # (B, width)
        z = self.projector(h)  # (B, out)
        keys = [self.target(view) for view in views[1:]]  # (B, out) each, without gradient
        group = batch["patient"] if self.mask_same_patient else None

        def against(key: Tensor) -> Tensor:
            return nt_xent(z, key, temperature=self.temperature, group=group, ranks=state.ranks)

        contrast = against(keys[0])
        if self.instance > 0:
            contrast = (1 - self.instance) * contrast + self.instance * against(keys[1])
        # KoLeo must not push windows of one participant apart either.
        spread1, spread2 = (koleo(each, group=group, ranks=state.ranks) for each in (z, keys[0]))
        spread = (spread1 + spread2) / 2
        loss = contrast + self.spread * spread
        return {
            "loss": loss,
            "embedding": h.detach(),
            "contrast": contrast.detach(),
            "koleo": spread.detach(),
        }

    def after_step(self, state: State) -> None:
        """The copy follows the encoder and projector."""
        self.target.follow(nn.Sequential(self.encoder, self.projector), self.momentum)
