"""LeJEPA and VISReg: views agree, and one regulariser on random projections prevents collapse."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from medcl.methods.contract import State, View
from medcl.methods.views import Positives, encode, pair
from medcl.nn.encoders import width_of
from medcl.nn.heads import mlp
from medcl.objectives.sigreg import sigreg
from medcl.objectives.visreg import visreg


class LeJEPA(nn.Module):
    """Balestriero & LeCun 2025, arXiv 2511.08544: no teacher, no stop-gradient, one weight.

    Loss: (1 − λ) · mean squared distance of every view's projection to the mean of the global
    views' + λ · `medcl.objectives.sigreg`. The directions are the same on all ranks: they
    depend on the step only.

    Args:
        encoder: (B, ...) → (B, width).
        positives: "instance" or "patient", as in SimCLR.
        views: number of global views (authors' small example: 4).
        local: number of small crops, in addition.
        weight: λ (authors: 0.02 to 0.05).
        directions: number of random projections (authors' small example: 256).
        hidden: width of the projector's two hidden layers.
        out: width of the projections (authors' small example: 16 to 128).
    """

    needs: tuple[str, ...] = ()

    def __init__(
        self,
        encoder: nn.Module,
        *,
        positives: Positives = "instance",
        views: int = 2,
        local: int = 0,
        weight: float = 0.05,
        directions: int = 256,
        hidden: int = 2048,
        out: int = 128,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.views = (*pair(positives), *(View(),) * (views - 2), *(View("local"),) * local)
        self.global_views = views
        self.projector = mlp((width_of(encoder), hidden, hidden, out))
        self.weight, self.directions = weight, directions

    def step(
        self, views: Sequence[Tensor], batch: Mapping[str, Tensor], state: State
    ) -> dict[str, Tensor]:
        """See `medcl.methods.contract.Method.step`."""
        return self._step(views, state, lambda z, axes: sigreg(z, axes, ranks=state.ranks))

    def _step(
        self, views: Sequence[Tensor], state: State, regulariser: Callable[[Tensor, Tensor], Tensor]
    ) -> dict[str, Tensor]:
        h = encode(self.encoder, views)
        z = torch.stack([self.projector(each) for each in h]).float()  # (V, B, out)
        centre = z[: self.global_views].mean(0)
        invariance = (z - centre).square().mean()
        regularisation = regulariser(z, directions(z, self.directions, state.step))
        loss = (1 - self.weight) * invariance + self.weight * regularisation
        return {
            "loss": loss,
            "embedding": h[0].detach(),
            "invariance": invariance.detach(),
            "regularisation": regularisation.detach(),
        }

    def after_step(self, state: State) -> None:
        """Nothing to update."""


class VISReg(LeJEPA):
    """Wu 2026, arXiv 2606.02572: LeJEPA's views with `medcl.objectives.visreg` in place of SIGReg.

    Args:
        encoder: (B, ...) → (B, width).
        positives: "instance" or "patient", as in SimCLR.
        views: number of global views.
        local: number of small crops, in addition.
        weight: λ, of the regulariser; 1 − λ is that of the invariance.
        directions: number of random projections (authors: 4096).
        hidden: width of the projector's two hidden layers (authors: 2048).
        out: width of the projections (authors: 128).
    """

    def step(
        self, views: Sequence[Tensor], batch: Mapping[str, Tensor], state: State
    ) -> dict[str, Tensor]:
        """See `medcl.methods.contract.Method.step`."""
        return self._step(views, state, lambda z, axes: visreg(z, axes, ranks=state.ranks))


def directions(z: Tensor, count: int, step: int) -> Tensor:
    """Random unit vectors (D, count), a function of the step: the same on every rank."""
    generator = torch.Generator(device=z.device).manual_seed(step)
    drawn = torch.randn(z.shape[-1], count, device=z.device, dtype=z.dtype, generator=generator)
    return nn.functional.normalize(drawn, dim=0)
