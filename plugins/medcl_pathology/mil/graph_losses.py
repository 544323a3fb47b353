"""What a graph of tiles can be trained with beside the label: masks, and communities."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from medcl.nn.heads import mlp
from medcl.objectives.tiled import row_sums
from medcl.objectives.unit import unit
from medcl_pathology.mil.dropout import dropped
from medcl_pathology.mil.graph import GraphConv


def scaled_cosine_error(x: Tensor, z: Tensor, gamma: float = 2.0) -> Tensor:
    """Mean over rows of (1 − cos(x_i, z_i))^γ (GraphMAE: Hou 2022, arXiv 2205.10803, eq. 2).

    Example:
        >>> scaled_cosine_error(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 3.0]]))
        tensor(1.)
    """
    return (1 - (unit(x) * unit(z)).sum(1)).clamp_min(0).pow(gamma).mean()


class Reconstruction(nn.Module):
    """Masked graph reconstruction, GraphMAE: what was masked is told from its surroundings.

    A share of the tiles is replaced by a learnt token, the graph encoded, the code of those tiles
    replaced by a second token, and one convolution of the decoder gives features that are compared
    with the tiles' own by `scaled_cosine_error`.

    Args:
        features: F of the tiles.
        width: of their code.
        share: of tiles that are masked (paper: 0.5 to 0.75).
        gamma: γ of the error.
    """

    def __init__(self, features: int, width: int, share: float = 0.5, gamma: float = 2.0) -> None:
        super().__init__()
        self.share, self.gamma = share, gamma
        self.mask = nn.Parameter(torch.randn(features) * 0.02)
        self.remask = nn.Parameter(torch.randn(width) * 0.02)
        self.between = nn.Linear(width, width, bias=False)
        self.decoder = GraphConv(width, features)

    def forward(self, encode: nn.Module, x: Tensor, graph: Tensor) -> Tensor:
        """``encode``: (I, F), (I, k) → (I, width). Returns a scalar."""
        masked = torch.rand(len(x), device=x.device) < self.share
        masked[torch.randint(len(x), (1,), device=x.device)] = True  # one at least
        code = self.between(encode(torch.where(masked[:, None], self.mask, x), graph))
        told = self.decoder(torch.where(masked[:, None], self.remask, code), graph)
        return scaled_cosine_error(x[masked].detach(), told[masked], self.gamma)


@dataclass(frozen=True)
class _Shared:
    """`tiled.Weights`: how surely two tiles are of one community; each tile with itself: 1."""

    belongs: Tensor  # (N, C)

    def __call__(self, i: slice, j: slice) -> Tensor:
        weights = self.belongs[i] @ self.belongs[j].T
        rows = torch.arange(i.start, i.stop, device=weights.device)[:, None]
        cols = torch.arange(j.start, j.stop, device=weights.device)[None]
        return weights.masked_fill(rows == cols, 1.0)


class Communities(nn.Module):
    """Community-aware contrast, in the manner of gCooL (Li 2022, arXiv 2110.14863).

    Tiles belong to learnt communities, R = softmax(cos(h, centres)/τ_c). Two terms: R is drawn to
    where the graph is dense, Σ over edges of ⟨R_i, R_j⟩ against what chance gives (`modularity`);
    and in the contrast of two views, each with other features left out, the positives of a tile
    are itself and, weighed by ⟨R_i, R_j⟩, the tiles of its community. (gCooL perturbs edges
    too; a graph of nearest tiles has none to spare.)

    Args:
        width: of the code h.
        count: communities.
        drop: share of features left out of a view.
        temperature: τ of the contrast; τ_c is 0.1.
        sample: tiles contrasted a step, at most.
    """

    def __init__(
        self,
        width: int,
        count: int = 16,
        drop: float = 0.2,
        temperature: float = 0.2,
        sample: int = 2048,
    ) -> None:
        super().__init__()
        self.drop, self.temperature, self.sample = drop, temperature, sample
        self.centres = nn.Parameter(torch.randn(count, width))
        self.projector = mlp((width, width, width), norm=False)

    def belonging(self, h: Tensor) -> Tensor:
        """R: (I, width) → (I, C)."""
        return (unit(h) @ unit(self.centres).T / 0.1).softmax(1)

    def forward(self, encode: nn.Module, x: Tensor, graph: Tensor) -> Tensor:
        """``encode``: (I, F), (I, k) → (I, width). Returns a scalar."""
        one, two = (encode(dropped(x, self.drop), graph) for _ in range(2))
        belongs = self.belonging(one)
        picked = torch.randperm(len(x), device=x.device)[: self.sample]
        p, q = (unit(self.projector(h[picked]), self.temperature**-0.5) for h in (one, two))
        weights = _Shared(belongs[picked].detach())
        losses, _ = row_sums(p, q, weights=weights, bound=1 / self.temperature).cross_entropy()
        return losses.mean().to(x.dtype) - modularity(belongs, graph)


def modularity(belongs: Tensor, graph: Tensor) -> Tensor:
    """(1/2m) Tr Rᵀ(A − d dᵀ/2m) R of the graph with both directions of every edge: −½ … 1.

    Args:
        belongs: R (I, C), rows that add up to 1.
        graph: (I, k) neighbours; a tile's edge to itself is none.
    """
    source = torch.arange(len(graph), device=graph.device)[:, None].expand_as(graph)
    edge = source != graph
    if not bool(edge.any()):
        return belongs.sum() * 0
    i, j = source[edge], graph[edge]
    degree = torch.bincount(torch.cat((i, j)), minlength=len(graph)).to(belongs.dtype)
    within = (belongs[i] * belongs[j]).sum() / len(i)
    return within - ((degree @ belongs) / degree.sum()).square().sum()
