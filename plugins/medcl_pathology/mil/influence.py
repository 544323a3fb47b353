"""Influence contrast on a graph of tiles: they attract by how likely a walk leads to another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from medcl.nn.heads import mlp
from medcl.objectives.precision import exact
from medcl.objectives.tiled import row_sums
from medcl.objectives.unit import unit


class Influence(nn.Module):
    """Influence-augmented contrast (SCGC: Kulatilleke 2022, arXiv 2204.12656).

    L = mean_i −log( Σ_{j≠i} γ_ij exp(s_ij/τ) / Σ_{j≠i} exp(s_ij/τ) ),  γ = Σ_{r=1}^{R} Âʳ

    with s the cosine of codes, Â the graph with self-loops, both directions of every edge and rows
    that add up to one: γ_ij counts how likely walks of up to R steps from i end at j. There is no
    augmentation and no pass of messages needed for the contrast. The authors' code leaves j = i in
    both sums with s = 0, here it is in neither; of a large slide ``sample`` tiles are anchors, each
    against all others. Their clustering of nodes is left out: a slide's label is what trains.

    Args:
        width: of the code h.
        hops: R.
        temperature: τ.
        sample: anchors a step, at most.
    """

    def __init__(
        self, width: int, hops: int = 2, temperature: float = 0.2, sample: int = 512
    ) -> None:
        super().__init__()
        self.hops, self.temperature, self.sample = hops, temperature, sample
        self.projector = mlp((width, width, width), norm=False)

    def forward(self, encode: nn.Module, x: Tensor, graph: Tensor) -> Tensor:
        """``encode``: (I, F), (I, k) → (I, width). Returns a scalar."""
        z = unit(self.projector(encode(x, graph)), self.temperature**-0.5)  # (I, width)
        anchors = torch.randperm(len(x), device=x.device)[: self.sample]
        row, near, gamma = influence(graph, anchors, self.hops)
        bound = 1 / self.temperature
        others = row_sums(z[anchors], z, hide=_Itself(anchors), bound=bound).lse  # (A,)
        s = (z[anchors[row]] * z[near]).sum(1, dtype=exact(z))
        pull = gamma.to(s.dtype) * (s - bound).exp()
        pulled = torch.zeros_like(others).index_add(0, row, pull)
        told = (pulled > 0) & others.isfinite()  # a tile alone has nobody
        losses = others - bound - torch.where(told, pulled, 1.0).log()
        return torch.where(told, losses, 0.0).sum().to(x.dtype) / told.sum().clamp_min(1)


@dataclass(frozen=True)
class _Itself:
    """A `tiled.Hide`: of each anchor the column that it is itself."""

    anchors: Tensor  # (A,)

    def __call__(self, s: Tensor, i: slice, j: slice) -> None:
        columns = torch.arange(j.start, j.start + s.shape[1], device=s.device)
        s.masked_fill_(self.anchors[i, None] == columns, -torch.inf)


def influence(graph: Tensor, anchors: Tensor, hops: int) -> tuple[Tensor, Tensor, Tensor]:
    """γ of the anchors' rows without the diagonal, as positions in ``anchors``, tiles and values.

    Args:
        graph: (I, k) neighbours; a tile's edge to itself is none.
        anchors: (A,) tiles.
        hops: R.

    Example:
        >>> row, near, gamma = influence(torch.tensor([[1], [0]]), torch.tensor([0, 1]), 1)
        >>> near.tolist(), gamma.tolist()
        ([1, 0], [0.5, 0.5])
    """
    count = len(graph)
    source = np.repeat(np.arange(count), graph.shape[1])
    edges = (np.ones(len(source)), (source, graph.cpu().numpy().ravel()))
    linked = sparse.csr_array(edges, shape=(count, count))
    linked = (linked + linked.T + sparse.eye_array(count)).tocsr()
    linked.data[:] = 1.0
    walk = sparse.csr_array(sparse.diags_array(1 / linked.sum(axis=1)) @ linked)  # Â
    reached = total = walk[anchors.cpu().numpy()]  # (A, I)
    for _ in range(hops - 1):
        reached = reached @ walk
        total = total + reached
    found = total.tocoo()
    row, near = (torch.from_numpy(at.astype(np.int64)).to(graph.device) for at in found.coords)
    gamma = torch.from_numpy(found.data).to(graph.device, torch.float32)
    others = anchors[row] != near
    return row[others], near[others], gamma[others]
