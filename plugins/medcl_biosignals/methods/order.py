"""Order-aware contrast: embeddings that know what came before and what after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from medcl.methods.contract import State
from medcl.methods.views import encode, pair
from medcl.nn.encoders import width_of
from medcl.nn.heads import mlp, projector
from medcl.objectives.nt_xent import nt_xent
from medcl.objectives.unit import unit


class OrderAware(nn.Module):
    """L = NT-Xent(g(f(v1)), g(f(v2))) + w·½Σ_v −log e^{s(v, ab)} / (e^{s(v, ab)} + e^{s(v, ba)}).

    A view v is cut into its first half a and second half b. The pair in its order, m([f(a), f(b)]),
    must be nearer to the whole view's embedding than the same pair turned round: s is their cosine
    over τ. The idea is that of TeminAL (Sinha 2024, arXiv 2408.09269: temporal inversion as the
    negative, of captions about sounds that follow each other); pairs of halves in place of captions
    are ours. A signal that repeats itself has no order, and does not have to: only differences
    between halves can tell.

    Args:
        encoder: (B, C, T) → (B, width) for any T.
        weight: w.
        temperature: τ of both parts.
        hidden: width of the hidden layers.
        out: width of the projections.
        mask_same_patient: keep samples of one patient out of each other's negatives.
    """

    needs: tuple[str, ...] = ()

    def __init__(
        self,
        encoder: nn.Module,
        *,
        weight: float = 1.0,
        temperature: float = 0.1,
        hidden: int = 256,
        out: int = 128,
        mask_same_patient: bool = True,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.views = pair("instance")
        width = width_of(encoder)
        self.projector = projector(width, hidden, out)
        self.merge = mlp((2 * width, hidden, out))
        self.weight, self.temperature = weight, temperature
        self.mask_same_patient = mask_same_patient

    def step(
        self, views: Sequence[Tensor], batch: Mapping[str, Tensor], state: State
    ) -> dict[str, Tensor]:
        """See `medcl.methods.contract.Method.step`; ``ordered``: pairs told right."""
        h1, h2 = encode(self.encoder, views)  # (B, width) each
        z = self.projector(torch.cat([h1, h2]))  # (2B, out)
        z1, z2 = z.chunk(2)
        group = batch["patient"] if self.mask_same_patient else None
        contrast = nt_xent(z1, z2, temperature=self.temperature, group=group, ranks=state.ranks)
        middle = views[0].shape[-1] // 2
        halves = [
            view[..., part] for view in views for part in (slice(middle), slice(middle, None))
        ]
        a1, b1, a2, b2 = (
            half for view in (halves[:2], halves[2:]) for half in encode(self.encoder, view)
        )
        a, b = torch.cat([a1, a2]), torch.cat([b1, b2])  # (2B, width)
        right, wrong = self.merge(
            torch.cat([torch.cat([a, b], dim=1), torch.cat([b, a], dim=1)])
        ).chunk(2)  # (2B, out) each
        whole = unit(z, 1.0)
        margin = (whole * (unit(right, 1.0) - unit(wrong, 1.0))).sum(dim=1) / self.temperature
        order = torch.nn.functional.softplus(-margin).mean()
        return {
            "loss": contrast + self.weight * order,
            "embedding": h1.detach(),
            "contrast": contrast.detach(),
            "order": order.detach(),
            "ordered": (margin > 0).float().mean().detach(),
        }
