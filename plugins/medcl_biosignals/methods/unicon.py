"""Anomaly detection by one-sided contrast: normal windows gather, virtual outliers scatter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from medcl.methods.contract import State, View
from medcl.nn.encoders import staged
from medcl.nn.heads import projector
from medcl.objectives.unilateral_contrast import unilateral_contrast


class UniCon(nn.Module):
    """L = Σ_s λ_s·UniCon(z^s of normal views; z^s of virtual outliers) / S over encoder stages s.

    Wang 2023 (UniCon-HA, arXiv 2308.10155): every normal view has all other normal views for
    positives, an outlier has only its own other view, and both are in all denominators. Views grow
    stronger with depth, one loss a stage; soft weights, which let views that were changed too much
    count less, are for the last stage alone. τ = τ_w = 0.5.

    Outliers there are rotated images; of a signal we take the same window with its parts in
    another order and one of them backwards, which no heart does. Rising strength is a mixture here:
    stage s of S sees x + (s/S)·(view − x). Afterwards ``medcl anomaly`` and ``medcl predict`` score
    by the nearest training embeddings, as the paper does.

    Args:
        encoder: a `Staged` encoder of signals.
        temperature: τ.
        soft_temperature: τ_w.
        pieces: parts that an outlier is cut into.
        rise: λ_s rises from this to 1 over the stages.
        hidden: width of the projectors' hidden layers.
        out: width of the projections.

    Raises:
        UsageError: if the encoder does not show its stages.
    """

    needs: tuple[str, ...] = ()

    def __init__(
        self,
        encoder: nn.Module,
        *,
        temperature: float = 0.5,
        soft_temperature: float = 0.5,
        pieces: int = 5,
        rise: float = 1.0,
        hidden: int = 128,
        out: int = 64,
    ) -> None:
        super().__init__()
        shown = staged(encoder, "unicon")
        self.encoder = encoder
        self.views = (View("none"), View(), View())
        widths = [*shown.stage_widths[:-1], shown.width]  # the last stage is what is kept, pooled
        self.projectors = nn.ModuleList(projector(width, hidden, out) for width in widths)
        self.temperature, self.soft_temperature = temperature, soft_temperature
        self.pieces, self.rise = pieces, rise

    def step(
        self, views: Sequence[Tensor], batch: Mapping[str, Tensor], state: State
    ) -> dict[str, Tensor]:
        """See `medcl.methods.contract.Method.step`."""
        x, *augmented = views
        shuffled = scrambled(torch.cat(augmented), self.pieces)
        count, losses = len(self.projectors), []
        embedding = x.new_zeros(len(x), 1)
        for stage, head in enumerate(self.projectors):
            share = (stage + 1) / count
            normal = torch.cat([x + share * (view - x) for view in augmented])
            h = self._stage(torch.cat([normal, shuffled]), stage)
            inside, outside = head(h).chunk(2)
            last = stage == count - 1
            loss = unilateral_contrast(
                *inside.chunk(2),
                *outside.chunk(2),
                temperature=self.temperature,
                soft_temperature=self.soft_temperature if last else None,
                ranks=state.ranks,
            )
            weight = self.rise + (1 - self.rise) * stage / max(count - 1, 1)
            losses.append(weight * loss)
            embedding = h[: len(x)].detach()
        return {
            "loss": torch.stack(losses).mean(),
            "embedding": embedding,
            "last_stage": losses[-1].detach(),
        }

    def _stage(self, x: Tensor, stage: int) -> Tensor:
        """One stage's pooled features; of the last, the embedding."""
        shown = staged(self.encoder, "unicon")
        made = shown.stages(x)
        if stage == len(self.projectors) - 1:
            return shown.pool(made[-1])
        return made[stage].mean(dim=-1)


def scrambled(x: Tensor, pieces: int) -> Tensor:
    """Cut (B, C, T) into parts, put them into another order, and turn the first of them round."""
    length = x.shape[-1] // pieces
    parts = x[..., : length * pieces].unflatten(-1, (pieces, length))  # (B, C, P, L)
    batch = len(x)
    order = torch.rand(batch, pieces, device=x.device).argsort(dim=1)
    here = torch.arange(pieces, device=x.device)
    same = (order == here).all(dim=1, keepdim=True)
    order = torch.where(same, here.roll(1), order)
    moved = parts.gather(2, order[:, None, :, None].expand_as(parts))
    moved = torch.cat([moved[:, :, :1].flip(-1), moved[:, :, 1:]], dim=2).flatten(2)
    return torch.cat([moved, x[..., length * pieces :]], dim=-1)
