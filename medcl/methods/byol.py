"""BYOL and SimSiam: no negatives; a predictor and a stopped gradient prevent collapse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from medcl.methods.contract import State
from medcl.methods.direct_pred import DirectPredictor
from medcl.methods.views import Positives, pair
from medcl.nn.distributed import Ranks
from medcl.nn.ema import Momentum, cosine_momentum
from medcl.nn.encoders import width_of
from medcl.nn.heads import mlp
from medcl.objectives.negative_cosine import negative_cosine

Prediction = Literal["mlp", "direct"]


def _predictor(kind: Prediction, width: int, hidden: int) -> nn.Module:
    return mlp((width, hidden, width)) if kind == "mlp" else DirectPredictor(width)


def _predict(head: nn.Module, z: Sequence[Tensor], ranks: Ranks) -> list[Tensor]:
    """Predictions from each view's projections; updates a `DirectPredictor` with all of them."""
    if isinstance(head, DirectPredictor):
        head.observe(torch.cat(list(z)), ranks)
    return [head(each) for each in z]


class BYOL(nn.Module):
    """Grill 2020, arXiv 2006.07733: predict the momentum copy's projection of the other view.

    L = ½(D(p1, z′2) + D(p2, z′1)), D the negative cosine; the paper's loss is 4·L + 4 (it sums both
    directions of 2 − 2·cos). m rises from ``momentum`` to 1 on a cosine.

    Args:
        encoder: (B, ...) → (B, width).
        positives: "instance" or "patient", as in SimCLR.
        momentum: m of the copy at the start.
        predictor: "mlp", or "direct" for DirectPred (Tian 2021, arXiv 2102.06810).
        hidden: width of hidden layers (paper: 4096).
        out: width of the projections (paper: 256).
    """

    needs: tuple[str, ...] = ()

    def __init__(
        self,
        encoder: nn.Module,
        *,
        positives: Positives = "instance",
        momentum: float = 0.996,
        predictor: Prediction = "mlp",
        hidden: int = 1024,
        out: int = 256,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.views = pair(positives)
        self.projector = mlp((width_of(encoder), hidden, out))
        self.predictor = _predictor(predictor, out, hidden)
        self.target = Momentum(nn.Sequential(encoder, self.projector))
        self.momentum = momentum

    def step(
        self, views: Sequence[Tensor], batch: Mapping[str, Tensor], state: State
    ) -> dict[str, Tensor]:
        """See `medcl.methods.contract.Method.step`."""
        h = [self.encoder(view) for view in views]  # (B, width) each
        p1, p2 = _predict(self.predictor, [self.projector(each) for each in h], state.ranks)
        t1, t2 = (self.target(view) for view in views)  # (B, out) each, without gradient
        loss = (negative_cosine(p1, t2) + negative_cosine(p2, t1)) / 2
        return {"loss": loss, "embedding": h[0].detach()}

    def after_step(self, state: State) -> None:
        """The copy follows the encoder and projector."""
        momentum = cosine_momentum(self.momentum, state.step, state.steps)
        self.target.follow(nn.Sequential(self.encoder, self.projector), momentum)


class SimSiam(nn.Module):
    """Chen 2021, arXiv 2011.10566: BYOL without the momentum copy.

    L = ½(D(p1, sg(z2)) + D(p2, sg(z1))), D the negative cosine. The predictor's learning rate stays
    after the warm-up, as the paper found better (section 4.1; ``fix_pred_lr`` of its code).

    Args:
        encoder: (B, ...) → (B, width).
        positives: "instance" or "patient", as in SimCLR.
        predictor: "mlp", or "direct" for DirectPred (Tian 2021, arXiv 2102.06810).
        hidden: width of the projector's hidden layers (paper: 2048).
        bottleneck: width of the predictor's hidden layer (paper: 512).
        out: width of the projections (paper: 2048).
    """

    needs: tuple[str, ...] = ()
    constant_rate = ("predictor.",)

    def __init__(
        self,
        encoder: nn.Module,
        *,
        positives: Positives = "instance",
        predictor: Prediction = "mlp",
        hidden: int = 1024,
        bottleneck: int = 256,
        out: int = 1024,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.views = pair(positives)
        self.projector = mlp((width_of(encoder), hidden, hidden, out), last_norm=True)
        self.predictor = _predictor(predictor, out, bottleneck)

    def step(
        self, views: Sequence[Tensor], batch: Mapping[str, Tensor], state: State
    ) -> dict[str, Tensor]:
        """See `medcl.methods.contract.Method.step`."""
        h = [self.encoder(view) for view in views]  # (B, width) each
        z1, z2 = (self.projector(each) for each in h)  # (B, out) each
        p1, p2 = _predict(self.predictor, [z1, z2], state.ranks)
        loss = (negative_cosine(p1, z2) + negative_cosine(p2, z1)) / 2
        return {"loss": loss, "embedding": h[0].detach()}
