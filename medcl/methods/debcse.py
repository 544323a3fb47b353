"""DebCSE: positives and negatives are drawn against the propensity that looks alone give a pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medcl.methods.contract import State, View
from medcl.methods.views import Positives, encode
from medcl.nn.ema import Momentum
from medcl.nn.encoders import width_of
from medcl.nn.heads import projector
from medcl.objectives.pairs import own_columns
from medcl.objectives.precision import full, widened
from medcl.objectives.unit import unit

_NONE = -1e9  # a similarity of what is left out: its exponential is zero, and its gradient too
_POOLED = {1: 64, 2: 8, 3: 4}  # how finely a look is kept along each axis, by their number


class DebCSE(nn.Module):
    """Miao 2023 (CIKM), arXiv 2309.07396: inverse propensity weighted sampling, of samples' pairs.

    Views that hardly differ make positives that teach their looks, and negatives that look nothing
    like a sample teach nothing. With q the likeness of looks (`look`; the propensity of a pair to
    be taken for one), and a the likeness that a momentum copy sees:

    - of ``candidates`` views the positive is drawn with p ∝ exp(a/σ) / exp(q/σ): alike by what they
      are, unlike by their looks;
    - of all other samples a share ``negatives`` is drawn, p ∝ exp(q/σ) / exp(a/σ), without
      replacement: alike by their looks alone, which spares those that are alike indeed.

    L = mean of −log( e^{s⁺/τ} / (e^{s⁺/τ} + Σ_{drawn} e^{s⁻/τ}) )

    Sentences have words for looks there, and paraphrases for candidates. Written from the paper's
    text, without any code of its authors: that positives and negatives are drawn by the inverse of
    a propensity from both likenesses is theirs, the two softmaxes and σ are ours.

    Args:
        encoder: (B, ...) → (B, width).
        positives: candidates are views of the "instance", or of another sample of the "patient".
        candidates: how many, 1 or more; all but one pass the momentum copy alone.
        negatives: share of the other samples that is drawn, above 0 to 1.
        sharpness: σ; towards 0 the most telling pairs are always taken.
        temperature: τ.
        momentum: m of the copy, constant.
        hidden: width of the projector's hidden layer.
        out: width of the projections.
        mask_same_patient: keep samples of one patient out of each other's negatives.
    """

    needs: tuple[str, ...] = ()

    def __init__(
        self,
        encoder: nn.Module,
        *,
        positives: Positives = "instance",
        candidates: int = 3,
        negatives: float = 0.5,
        sharpness: float = 0.2,
        temperature: float = 0.1,
        momentum: float = 0.99,
        hidden: int = 512,
        out: int = 128,
        mask_same_patient: bool = True,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        source = 1 if positives == "patient" else 0
        self.views = (View(), *(View(source=source) for _ in range(max(candidates, 1))))
        self.projector = projector(width_of(encoder), hidden, out)
        self.target = Momentum(nn.Sequential(encoder, self.projector))
        self.negatives, self.sharpness = negatives, sharpness
        self.temperature, self.momentum = temperature, momentum
        self.mask_same_patient = mask_same_patient

    def step(
        self, views: Sequence[Tensor], batch: Mapping[str, Tensor], state: State
    ) -> dict[str, Tensor]:
        """See `medcl.methods.contract.Method.step`; ``look``: how alike the positives look."""
        anchor, ranks = views[0], state.ranks
        rows = torch.arange(len(anchor), device=anchor.device)
        with torch.no_grad():
            keys = [F.normalize(self.target(view), dim=1) for view in views]  # (B, out) each
            looks = [look(view) for view in views]
            semantic = torch.stack([(keys[0] * key).sum(1) for key in keys[1:]], 1)  # (B, C)
            surface = torch.stack([(looks[0] * other).sum(1) for other in looks[1:]], 1)
            choice = (semantic - surface) / self.sharpness + gumbel(semantic)
            taken = choice.argmax(dim=1)  # (B,)
            key, seen = torch.stack(keys[1:])[taken, rows], torch.stack(looks[1:])[taken, rows]
            own = own_columns(len(rows), ranks, rows.device)[:, None]  # (B, 1)
            hidden = own == torch.arange(len(rows) * ranks.world, device=rows.device)
            if self.mask_same_patient:
                hidden = hidden | (ranks.gather(batch["patient"]) == batch["patient"][:, None])
            likely = looks[0] @ ranks.gather(seen).T - keys[0] @ ranks.gather(key).T  # (B, N)
            likely = (likely / self.sharpness + gumbel(likely)).masked_fill(hidden, -torch.inf)
            count = max(round(self.negatives * (likely.shape[1] - 1)), 1)
            first = likely.topk(count, dim=1).indices
            drawn = torch.zeros_like(hidden).scatter(1, first, True) & ~hidden
        positive = torch.stack(list(views[1:]))[taken, rows]
        h1, h2 = encode(self.encoder, [anchor, positive])  # (B, width) each
        z1, z2 = (unit(z, 1.0) for z in self.projector(torch.cat([h1, h2])).chunk(2))
        with full(z1):
            s = widened(z1) @ widened(ranks.gather(z2)).T / self.temperature  # (B, N)
        near = s.gather(1, own).squeeze(1)
        loss = F.softplus(s.masked_fill(~drawn, _NONE).logsumexp(dim=1) - near).mean()
        alike = surface[rows, taken].mean()
        return {"loss": loss, "embedding": h1.detach(), "look": alike}

    def after_step(self, state: State) -> None:
        """The copy follows the encoder and projector."""
        self.target.follow(nn.Sequential(self.encoder, self.projector), self.momentum)


def look(x: Tensor) -> Tensor:
    """What a sample (B, C, *space) looks like from afar: its values in coarse cells, (B, m) unit
    vectors around their mean. Missing values are zero."""
    axes = x.dim() - 2
    pool = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)[axes - 1]
    cells = tuple(min(_POOLED[axes], length) for length in x.shape[2:])
    flat = cast(Tensor, pool(cells)(x.nan_to_num())).flatten(1)
    return F.normalize(flat - flat.mean(dim=1, keepdim=True), dim=1)


def gumbel(like: Tensor) -> Tensor:
    """Noise by which the largest of scores + noise is drawn with p ∝ exp(score)."""
    uniform = torch.rand(like.shape, dtype=like.dtype, device=like.device)
    return -(-uniform.clamp_min(1e-20).log()).clamp_min(1e-20).log()
