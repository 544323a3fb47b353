"""Anomaly detection by one-sided contrast: normal samples gather, virtual outliers scatter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from medcl.errors import UsageError
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

    Outliers there are rotated images: "rotated", by one, two or three right angles in the last two
    axes, for images that have a way up, as slices of CT and MR do. A tile of tissue has none, and
    neither has a signal: "scrambled" cuts the sample into parts, puts them into another order and
    one of them backwards, which no heart and no tissue does. Rising strength is a mixture here:
    stage s of S sees x + (s/S)·(view − x). Afterwards ``medcl anomaly`` and ``medcl predict`` score
    by the nearest training embeddings, as the paper does.

    Args:
        encoder: a `Staged` encoder of signals, images or volumes.
        temperature: τ.
        soft_temperature: τ_w.
        outliers: "scrambled" or "rotated".
        pieces: parts that a scrambled outlier is cut into, along each axis.
        rise: λ_s rises from this to 1 over the stages.
        hidden: width of the projectors' hidden layers.
        out: width of the projections.

    Raises:
        UsageError: if the encoder does not show its stages; in a step, if views have another size
            than the sample, or an outlier cannot be made of it.
    """

    needs: tuple[str, ...] = ()

    def __init__(
        self,
        encoder: nn.Module,
        *,
        temperature: float = 0.5,
        soft_temperature: float = 0.5,
        outliers: Literal["scrambled", "rotated"] = "scrambled",
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
        self.outliers, self.pieces, self.rise = outliers, pieces, rise

    def step(
        self, views: Sequence[Tensor], batch: Mapping[str, Tensor], state: State
    ) -> dict[str, Tensor]:
        """See `medcl.methods.contract.Method.step`."""
        x, *augmented = views
        if augmented[0].shape != x.shape:
            raise UsageError(
                "Method 'unicon' mixes a sample with its views, and these have another size "
                f"({sized(augmented[0])} of {sized(x)}): set views.size to that of the sample."
            )
        both = torch.cat(augmented)
        rotating = self.outliers == "rotated"
        outliers = rotated(both) if rotating else scrambled(both, self.pieces)
        count, losses = len(self.projectors), []
        embedding = x.new_zeros(len(x), 1)
        for stage, head in enumerate(self.projectors):
            share = (stage + 1) / count
            normal = torch.cat([x + share * (view - x) for view in augmented])
            h = self._stage(torch.cat([normal, outliers]), stage)
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
        return made[stage].flatten(2).mean(dim=2)


def scrambled(x: Tensor, pieces: int) -> Tensor:
    """Cut (B, C, *space) into parts along each axis, and put them into another order, one of them
    backwards; what is left over at the ends stays.

    Raises:
        UsageError: if an axis is shorter than ``pieces``.
    """
    sides = [length // pieces for length in x.shape[2:]]
    if min(sides) < 1:
        raise UsageError(f"method.pieces: {sized(x)} cannot be cut into {pieces} along each axis.")
    cut = [slice(side * pieces) for side in sides]
    whole = (slice(None), slice(None), *cut)
    axes = len(sides)
    parts = x[whole]
    for axis, side in enumerate(sides):  # (B, C, P, L, P, L, ...)
        parts = parts.unflatten(2 + 2 * axis, (pieces, side))
    grid = [2 + 2 * axis for axis in range(axes)]
    inner = [3 + 2 * axis for axis in range(axes)]
    parts = parts.permute(0, *grid, 1, *inner).flatten(1, axes)  # (B, P**axes, C, L, ...)
    count = pieces**axes
    order = torch.rand(len(x), count, device=x.device).argsort(dim=1)
    here = torch.arange(count, device=x.device)
    same = (order == here).all(dim=1, keepdim=True)
    order = torch.where(same, here.roll(1), order)
    at = order.view(len(x), count, *[1] * (axes + 1)).expand_as(parts)
    moved = parts.gather(1, at)
    turned = moved[:, :1].flip(list(range(3, 3 + axes)))
    moved = torch.cat([turned, moved[:, 1:]], dim=1)
    moved = moved.unflatten(1, [pieces] * axes).movedim(axes + 1, 1)  # (B, C, P, ..., L, ...)
    pairs = [dim for axis in range(axes) for dim in (2 + axis, 2 + axes + axis)]
    moved = moved.permute(0, 1, *pairs)
    out = x.clone()
    out[whole] = moved.reshape(out[whole].shape)
    return out


def rotated(x: Tensor) -> Tensor:
    """Turn each of (B, C, ..., H, W) by one, two or three right angles.

    Raises:
        UsageError: if they are signals, or not square.
    """
    if x.dim() < 4 or x.shape[-1] != x.shape[-2]:
        raise UsageError(
            f"method.outliers=rotated needs square images, not {sized(x)}: set it to scrambled."
        )
    turns = (torch.rand(len(x), device=x.device) * 3).long().view(-1, *[1] * (x.dim() - 1))
    one, two, three = (x.rot90(number, dims=(-2, -1)) for number in (1, 2, 3))
    return torch.where(turns == 0, one, torch.where(turns == 1, two, three))


def sized(x: Tensor) -> str:
    """The size of a sample, for a message."""
    return " × ".join(str(length) for length in x.shape[2:])
