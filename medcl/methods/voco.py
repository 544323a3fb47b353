"""VoCo: where in a volume a crop lies, by how much it overlaps each cell of a grid."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medcl.errors import UsageError
from medcl.methods.contract import State, View
from medcl.nn.distributed import ALONE, Ranks
from medcl.nn.encoders import is_staged, pooled_stages, touch, width_of
from medcl.objectives.means import mean_where

_EPS = 1e-6


class VoCo(nn.Module):
    """Wu 2024, arXiv 2402.17300, as nnssl has it.

    The input is cut into a grid of base crops; target crops of the same size lie anywhere. The
    similarity s of a target to a base, max(0, cosine), is to be their overlap y, the share of the
    target that lies in the base; base crops are to be dissimilar::

        L = Σ y · −log(1 − |y − s| + ε) / Σ y          targets and bases that overlap
          + mean of s²                                 those that do not
          + mean of max(0, cosine)                     pairs of bases of one sample

    The first two teach the targets alone. The embedding to compare is that of all stages, pooled,
    behind a projector. Sums and means are over the batches of all processes.

    Args:
        encoder: (B, ...) → (B, width); of a `Staged` one all stages are used.
        grid: base crops along each axis, in the order of the input's; must divide it.
        targets: target crops of each sample (paper: 4).
        hidden: width of the projector's hidden layers.
        out: width of its output.

    Raises:
        UsageError: if the grid has fewer than two cells.
    """

    needs: tuple[str, ...] = ()

    def __init__(
        self,
        encoder: nn.Module,
        *,
        grid: tuple[int, ...] = (1, 3, 3),
        targets: int = 5,
        hidden: int = 2048,
        out: int = 2048,
    ) -> None:
        super().__init__()
        if math.prod(grid) < 2 or min(grid) < 1:
            raise UsageError(f"method.grid is {grid}: there must be two base crops at least.")
        self.encoder = encoder
        self.views = (View(),)
        self.grid, self.targets = grid, targets
        width = sum(encoder.stage_widths) if is_staged(encoder) else width_of(encoder)  # type: ignore[arg-type]
        self.projector = nn.Sequential(
            nn.Linear(width, hidden),
            nn.LayerNorm(hidden, elementwise_affine=False),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, hidden),
            nn.LayerNorm(hidden, elementwise_affine=False),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, out),
        )

    def step(
        self, views: Sequence[Tensor], batch: Mapping[str, Tensor], state: State
    ) -> dict[str, Tensor]:
        """See `medcl.methods.contract.Method.step`; ``embedding`` is the mean of the base crops.

        Raises:
            UsageError: if the grid does not divide the input.
        """
        (x,) = views
        starts, side = cells(x.shape[2:], self.grid)
        bases = starts.to(x.device).expand(len(x), -1, -1)  # (B, bases, axes)
        sides = torch.tensor(side, device=x.device)
        room = torch.tensor(x.shape[2:], device=x.device) - sides
        shares = torch.rand(len(x), self.targets, len(self.grid), device=x.device)
        targets = (shares * (room + 1)).long()
        crops = cut(x, torch.cat([bases, targets], dim=1), side)
        pooled, means = pooled_stages(self.encoder, crops.flatten(0, 1))
        z = self.projector(means).unflatten(0, crops.shape[:2])
        base, target = z.split([bases.shape[1], self.targets], dim=1)
        predicted, apart = volume_contrast(
            base, target, overlaps(targets, bases, sides), state.ranks
        )
        loss = predicted + apart + touch(self.encoder)
        seen = pooled.detach().unflatten(0, crops.shape[:2])[:, : bases.shape[1]].mean(dim=1)
        return {
            "loss": loss,
            "loss_overlap": predicted.detach(),
            "loss_apart": apart.detach(),
            "embedding": seen,
        }


def cells(space: Sequence[int], grid: Sequence[int]) -> tuple[Tensor, list[int]]:
    """First positions (N, axes) of the cells of a grid, and their sides (axes,).

    Raises:
        UsageError: if the grid does not divide the space.
    """
    if len(space) != len(grid) or any(n % g for n, g in zip(space, grid, strict=True)):
        raise UsageError(
            f"method.grid {tuple(grid)} does not divide views of {tuple(space)}: set views.size "
            "to a multiple of it along every axis."
        )
    side = [n // g for n, g in zip(space, grid, strict=True)]
    lines = [torch.arange(g) * s for g, s in zip(grid, side, strict=True)]
    starts = torch.stack(torch.meshgrid(*lines, indexing="ij"), dim=-1).flatten(0, -2)
    return starts, side


def cut(x: Tensor, starts: Tensor, side: Sequence[int]) -> Tensor:
    """Crops (B, N, C, *side) of (B, C, *space) at ``starts`` (B, N, axes)."""
    axes = len(side)
    at: list[Tensor] = [torch.arange(len(x), device=x.device).view(-1, *(1,) * (axes + 1))]
    for axis, size in enumerate(side):
        along = starts[..., axis, None] + torch.arange(size, device=x.device)  # (B, N, size)
        at.append(along.view(*starts.shape[:2], *(size if a == axis else 1 for a in range(axes))))
    return x.movedim(1, -1)[tuple(at)].movedim(-1, 2)


def overlaps(targets: Tensor, bases: Tensor, side: Tensor) -> Tensor:
    """Share of each target (B, T, axes) that lies in each base (B, N, axes): (B, T, N)."""
    apart = (targets[:, :, None] - bases[:, None]).abs()
    return (1 - apart / side).clamp(min=0).prod(dim=-1)


def volume_contrast(
    base: Tensor, target: Tensor, overlap: Tensor, ranks: Ranks = ALONE
) -> tuple[Tensor, Tensor]:
    """The losses of predicted overlaps and of base crops that are alike: see `VoCo`.

    Args:
        base: (B, N, D).
        target: (B, T, D).
        overlap: (B, T, N) in 0 … 1.
        ranks: the other processes (their crops overlap by other shares).
    """
    base, target = base.float(), target.float()
    alike = F.cosine_similarity(base.detach()[:, None], target[:, :, None], dim=-1).relu()
    near = -torch.log(1 - (overlap - alike).abs() + _EPS)
    predicted = (near * overlap).sum() / ranks.mean(overlap.sum()) + mean_where(
        alike.square(), overlap == 0, ranks
    )
    pairs = torch.triu_indices(base.shape[1], base.shape[1], offset=1, device=base.device)
    apart = F.cosine_similarity(base[:, pairs[0]], base[:, pairs[1]], dim=-1).relu().mean()
    return predicted, apart
