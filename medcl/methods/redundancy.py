"""VICReg and Barlow Twins: no negatives; batch statistics prevent collapse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from medcl.methods.contract import State
from medcl.methods.views import Positives, pair
from medcl.nn.encoders import width_of
from medcl.nn.heads import mlp
from medcl.objectives.barlow_twins import barlow_twins
from medcl.objectives.vicreg import vicreg


class VICReg(nn.Module):
    """Bardes 2022, arXiv 2105.04906: invariance, variance and covariance of the projections.

    The weights are those of the authors' code, 25, 25 and 1. It takes the mean squared distance
    over dimensions, where the paper's equation has the sum, and halves the variance term.
    `medcl.objectives.vicreg` offers both forms.

    Args:
        encoder: (B, ...) → (B, width).
        positives: "instance" or "patient", as in SimCLR.
        invariance: weight of the squared distance of the two views.
        variance: weight of the hinge that keeps each dimension's standard deviation at 1.
        covariance: weight of the squared covariances between dimensions.
        hidden: width of the projector's hidden layers (paper: 8192).
        out: width of the projections (paper: 8192).
    """

    needs: tuple[str, ...] = ()

    def __init__(
        self,
        encoder: nn.Module,
        *,
        positives: Positives = "instance",
        invariance: float = 25.0,
        variance: float = 25.0,
        covariance: float = 1.0,
        hidden: int = 2048,
        out: int = 2048,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.views = pair(positives)
        self.projector = mlp((width_of(encoder), hidden, hidden, out), last_bias=False)
        self.invariance, self.variance, self.covariance = invariance, variance, covariance

    def step(
        self, views: Sequence[Tensor], batch: Mapping[str, Tensor], state: State
    ) -> dict[str, Tensor]:
        """See `medcl.methods.contract.Method.step`."""
        h = [self.encoder(view) for view in views]  # (B, width) each
        z1, z2 = (self.projector(each) for each in h)  # (B, out) each
        loss = vicreg(
            z1,
            z2,
            invariance=self.invariance,
            variance=self.variance,
            covariance=self.covariance,
            ranks=state.ranks,
        )
        return {"loss": loss, "embedding": h[0].detach()}


class BarlowTwins(nn.Module):
    """Zbontar 2021, arXiv 2103.03230: the views' cross-correlation should be the identity.

    Args:
        encoder: (B, ...) → (B, width).
        positives: "instance" or "patient", as in SimCLR.
        redundancy: λ, weight of the off-diagonal terms.
        hidden: width of the projector's hidden layers (paper: 8192).
        out: width of the projections (paper: 8192).
    """

    needs: tuple[str, ...] = ()

    def __init__(
        self,
        encoder: nn.Module,
        *,
        positives: Positives = "instance",
        redundancy: float = 0.0051,
        hidden: int = 2048,
        out: int = 2048,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.views = pair(positives)
        self.projector = mlp((width_of(encoder), hidden, hidden, out), last_bias=False)
        self.redundancy = redundancy

    def step(
        self, views: Sequence[Tensor], batch: Mapping[str, Tensor], state: State
    ) -> dict[str, Tensor]:
        """See `medcl.methods.contract.Method.step`."""
        h = [self.encoder(view) for view in views]  # (B, width) each
        z1, z2 = (self.projector(each) for each in h)  # (B, out) each
        loss = barlow_twins(z1, z2, redundancy=self.redundancy, ranks=state.ranks)
        return {"loss": loss, "embedding": h[0].detach()}
