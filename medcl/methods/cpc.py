"""CPC: from the past of a sequence, which of its steps comes next?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from medcl.methods.contract import State, View
from medcl.nn.encoders import predictive, touch
from medcl.objectives.future_contrast import future_contrast


class CPC(nn.Module):
    """Oord 2018, arXiv 1807.03748; as ECG-CPC trains it: Al-Masud 2025, arXiv 2509.25095.

    L = mean over k of `medcl.objectives.future_contrast` of W_k·c_t with z_{t+k}: z are the steps
    that the encoder's stem makes of a sample, c its causal context. ECG-CPC has one k, 12 steps of
    1/120 s; Oord 2018 all of 1 to 12. Negatives are the sample's own steps, all of them (128 drawn
    there), so no batch is too small, and other samples of a patient are none.

    Args:
        encoder: a causal `Predictive` encoder, e.g. ``s4d1d`` of the biosignals plugin.
        ahead: k, in steps of the encoder.
        temperature: τ (authors' code: 1).
        normalise: cosines in place of dot products (authors' code: dot products).

    Raises:
        UsageError: if the encoder is not `Predictive`, or sees the future.
    """

    needs: tuple[str, ...] = ()

    def __init__(
        self,
        encoder: nn.Module,
        *,
        ahead: tuple[int, ...] = (12,),
        temperature: float = 1.0,
        normalise: bool = False,
    ) -> None:
        super().__init__()
        parts = predictive(encoder, "cpc")
        self.encoder = encoder
        self.views = (View(),)
        self.heads = nn.ModuleList(
            nn.Linear(parts.context_width, parts.local_width, bias=False) for _ in ahead
        )
        self.ahead = tuple(ahead)
        self.temperature, self.normalise = temperature, normalise

    def step(
        self, views: Sequence[Tensor], batch: Mapping[str, Tensor], state: State
    ) -> dict[str, Tensor]:
        """See `medcl.methods.contract.Method.step`."""
        parts = predictive(self.encoder, "cpc")
        z = parts.local(views[0])  # (B, N, local width)
        c = parts.context(z)  # (B, N, context width)
        losses = [
            future_contrast(
                head(c),
                z,
                ahead=k,
                temperature=self.temperature,
                normalise=self.normalise,
                ranks=state.ranks,
            )
            for k, head in zip(self.ahead, self.heads, strict=True)
        ]
        loss = torch.stack(losses).mean()
        with torch.no_grad():
            embedding = parts.pool(c)
        return {"loss": loss + touch(self.encoder), "embedding": embedding}
