"""The graph of a slide: each tile and the k nearest by position, and a convolution over it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import KDTree
from torch import Tensor, nn
from torch.nn import functional as F

from medcl.errors import UsageError
from medcl_pathology.mil.bags import Bags
from medcl_pathology.mil.segments import sizes


def neighbours(bags: Bags, k: int) -> Tensor:
    """The k nearest other tiles of the same bag: (I, k) indices into the packed batch.

    Where a bag has fewer, or a tile's place is unknown, the tile itself takes the empty places. Of
    tiles equally far away those come first that a tree over places in ascending order finds first:
    in whatever order tiles are stored, each has the same neighbours.

    Raises:
        UsageError: if the batch has no coordinates.

    Example:
        >>> row = torch.tensor([[0.0, 0.0], [0.0, 1.0], [0.0, 3.0]])
        >>> neighbours(Bags(torch.zeros(3, 1), torch.zeros(3).long(), 1, coords=row), 1).tolist()
        [[1], [0], [1]]
    """
    if bags.coords is None:
        raise UsageError(
            "A graph needs to know where tiles lie, but these bags hold no coordinates: "
            "embed the slides with medcl, or choose another aggregator."
        )
    places = bags.coords.detach().cpu().double().numpy()
    out = np.repeat(np.arange(len(places))[:, None], k, axis=1)
    start = 0
    for size in sizes(bags.bag, bags.count):
        known = start + np.flatnonzero(np.isfinite(places[start : start + size]).all(1))
        ordered = known[np.lexsort(places[known].T)]
        if len(ordered) > 1:
            out[ordered] = _nearest(places[ordered], ordered, k)
        start += size
    return torch.from_numpy(out).to(bags.x.device)


def _nearest(places: NDArray[np.float64], names: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """Of n places the names of the k nearest others, (n, k); one's own name fills up."""
    many = min(k + 1, len(places))
    found = KDTree(places).query(places, k=many)[1]  # (n, many), itself among them
    own = np.arange(len(places))[:, None]
    # Itself goes last, whatever comes first of tiles in one place; the others keep their order.
    order = np.argsort(found == own, axis=1, kind="stable")[:, : many - 1]
    others = names[np.take_along_axis(found, order, axis=1)]
    filled = np.repeat(names[:, None], k, axis=1)
    filled[:, : many - 1] = others
    return filled


class GraphConv(nn.Module):
    """h_i = W x_i + U · mean of x_j over i's neighbours (GraphSAGE: Hamilton 2017, 1706.02216).

    Memory is O(I · out): U goes before the mean, and no (I, k, ·) is made.
    """

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.own = nn.Linear(width, out)
        self.near = nn.Linear(width, out, bias=False)

    def forward(self, x: Tensor, graph: Tensor) -> Tensor:
        """(I, width), (I, k) → (I, out)."""
        own: Tensor = self.own(x)
        return own + F.embedding_bag(graph, self.near(x), mode="mean")
