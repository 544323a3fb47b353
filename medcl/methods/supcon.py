"""SupCon: all samples of a class are positives; unlabelled samples may contribute their views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from medcl.methods.batch import class_labels, required
from medcl.methods.contract import State
from medcl.methods.schedule import Curve, between
from medcl.methods.views import Positives, encode, pair
from medcl.nn.encoders import width_of
from medcl.nn.heads import projector
from medcl.objectives.nt_xent import nt_xent
from medcl.objectives.supcon import supcon


class SupCon(nn.Module):
    """Khosla 2020, arXiv 2004.11362, L_out, extended to partly labelled data.

    L = (1 − w)·SupCon(labelled) + w·NT-Xent(all), w = ``self_supervised`` from first to last step.

    w = 0 is the paper's loss. A label of −1 or NaN is missing: the sample is neither positive nor
    negative in the first term (it may be of the anchor's class), and contributes to the second.

    Args:
        encoder: (B, ...) → (B, width).
        positives: of the second term, "instance" or "patient", as in SimCLR.
        temperature: τ.
        self_supervised: w at the first and at the last step, from 0 to 1.
        curve: of w from the first to the last step.
        hidden: width of the projector's hidden layer (paper: 2048).
        out: width of the projections.
        mask_same_patient: in the second term, keep one patient's samples out of the negatives.
    """

    needs: tuple[str, ...] = ("label",)

    def __init__(
        self,
        encoder: nn.Module,
        *,
        positives: Positives = "instance",
        temperature: float = 0.1,
        self_supervised: tuple[float, float] = (0.0, 0.0),
        curve: Curve = "linear",
        hidden: int = 512,
        out: int = 128,
        mask_same_patient: bool = True,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.views = pair(positives)
        self.projector = projector(width_of(encoder), hidden, out)
        self.temperature = temperature
        self.ends, self.curve = self_supervised, curve
        self.mask_same_patient = mask_same_patient

    def step(
        self, views: Sequence[Tensor], batch: Mapping[str, Tensor], state: State
    ) -> dict[str, Tensor]:
        """See `medcl.methods.contract.Method.step`."""
        labels = class_labels(required(batch, "label", "supcon"))  # (B,) or (B, L)
        weight = between(self.ends, self.curve, state)
        h1, h2 = encode(self.encoder, views)  # (B, width) each
        z = self.projector(torch.cat([h1, h2]))  # (2B, out)
        # The label of a partner sample is not in the batch.
        second = labels if self.views[1].source == 0 else torch.full_like(labels, -1)
        by_class = supcon(
            z, torch.cat([labels, second]), temperature=self.temperature, ranks=state.ranks
        )
        by_view = nt_xent(
            *z.chunk(2),
            temperature=self.temperature,
            group=batch["patient"] if self.mask_same_patient else None,
            ranks=state.ranks,
        )
        return {
            "loss": (1 - weight) * by_class + weight * by_view,
            "embedding": h1.detach(),
            "supervised": by_class.detach(),
            "self_supervised": by_view.detach(),
        }
