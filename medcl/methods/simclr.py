"""SimCLR: two views of a sample, or of two samples of a patient, are positives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from medcl.methods.contract import State
from medcl.methods.views import Positives, encode, pair
from medcl.nn.encoders import width_of
from medcl.nn.heads import projector
from medcl.objectives.nt_xent import nt_xent
from medcl.objectives.virtual_adversarial import adversarial_view, virtual_adversarial


class SimCLR(nn.Module):
    """Chen 2020, arXiv 2002.05709: L = NT-Xent(g(f(v1)), g(f(v2))).

    Two samples of one patient are not negatives of each other unless ``mask_same_patient`` is off:
    features that distinguish the beats or slices of a patient are usually not wanted.

    Args:
        encoder: (B, ...) → (B, width).
        positives: "instance": two views of one sample; "patient": of two samples of one patient.
        temperature: τ.
        hidden: width of the projector's hidden layer.
        out: width of the projections.
        mask_same_patient: keep samples of one patient out of each other's negatives.
        decoupled: leave the positive out of the denominator (DCL: Yeh 2022, arXiv 2110.06848).
        adversarial: weight of the virtual adversarial view (URLBERT: Li 2024, arXiv 2402.11495), 0
            or more: what changes the projection most within ``radius`` must not change it. Costs
            three more passes.
        radius: length of that change of a sample, in the input's units.
    """

    needs: tuple[str, ...] = ()

    def __init__(
        self,
        encoder: nn.Module,
        *,
        positives: Positives = "instance",
        temperature: float = 0.1,
        hidden: int = 512,
        out: int = 128,
        mask_same_patient: bool = True,
        decoupled: bool = False,
        adversarial: float = 0.0,
        radius: float = 1.0,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.views = pair(positives)
        self.projector = projector(width_of(encoder), hidden, out)
        self.temperature, self.decoupled = temperature, decoupled
        self.mask_same_patient = mask_same_patient
        self.adversarial, self.radius = adversarial, radius

    def step(
        self, views: Sequence[Tensor], batch: Mapping[str, Tensor], state: State
    ) -> dict[str, Tensor]:
        """See `medcl.methods.contract.Method.step`."""
        h1, h2 = encode(self.encoder, views)  # (B, width) each
        z1, z2 = self.projector(torch.cat([h1, h2])).chunk(2)  # (B, out) each
        loss = nt_xent(
            z1,
            z2,
            temperature=self.temperature,
            group=batch["patient"] if self.mask_same_patient else None,
            decoupled=self.decoupled,
            ranks=state.ranks,
        )
        result = {"loss": loss, "embedding": h1.detach()}
        if self.adversarial:
            changed = self._adversarial(views[0])
            result |= {"loss": loss + self.adversarial * changed, "adversarial": changed.detach()}
        return result

    def _adversarial(self, x: Tensor) -> Tensor:
        """KL of the projections, as logits, of ``x`` and of its virtual adversarial view."""

        def logits(x: Tensor) -> Tensor:
            return self.projector(self.encoder(x)) / self.temperature

        training = self.training
        self.eval()  # lest batch statistics move, or tell the view apart
        clean = logits(x).detach()
        view = adversarial_view(
            lambda x: virtual_adversarial(clean, logits(x)), x, radius=self.radius
        )
        loss = virtual_adversarial(clean, logits(view))
        self.train(training)
        return loss
