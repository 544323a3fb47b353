"""Pairs that a contrastive loss leaves out of its denominators, by columns and groups."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from medcl.nn.distributed import Ranks


@dataclass(frozen=True)
class Hidden:
    """A `tiled.Hide`: listed pairs, and pairs of one group.

    Attributes:
        columns: (B, m) for each row the columns that are always hidden (itself, its partner); a
            column of −1 hides nothing.
        row_group: (B,) integers; pairs with equal group are hidden (two windows of one patient
            are not negatives). None: no groups.
        col_group: (N,) integers.
        all_exist: no column is −1: then those of a whole matrix are hidden in one write.
    """

    columns: Tensor | None = None
    row_group: Tensor | None = None
    col_group: Tensor | None = None
    all_exist: bool = False

    def __call__(self, s: Tensor, i: slice, j: slice) -> None:
        """Set the hidden entries of tile ``s`` = (rows i, cols j) to −inf, in place."""
        if self.row_group is not None and self.col_group is not None:
            s.masked_fill_(self.row_group[i, None] == self.col_group[None, j], -torch.inf)
        if self.columns is None:
            return
        for column in self.columns[i].unbind(1):
            at = column - j.start
            in_tile = (at >= 0) & (at < s.shape[1])
            at = at.clamp(0, s.shape[1] - 1).unsqueeze(1)
            # Rows whose column is in another tile write back what they read: a branch would make
            # the CPU wait for the GPU.
            s.scatter_(1, at, s.gather(1, at).masked_fill(in_tile.unsqueeze(1), -torch.inf))

    def whole(self, s: Tensor) -> None:
        """As a call, of the whole matrix."""
        if self.columns is None or not self.all_exist:
            self(s, slice(0, s.shape[0]), slice(0, s.shape[1]))
            return
        if self.row_group is not None and self.col_group is not None:
            s.masked_fill_(self.row_group[:, None] == self.col_group[None, :], -torch.inf)
        s.scatter_(1, self.columns, -torch.inf)


def own_columns(n: int, ranks: Ranks, device: torch.device) -> Tensor:
    """Positions of this rank's n rows among the gathered rows: (n,)."""
    return ranks.rank * n + torch.arange(n, device=device)


def labelled(
    z: Tensor, labels: Tensor, known: Tensor, ranks: Ranks
) -> tuple[Tensor, Tensor, Tensor]:
    """The samples of known label, of all ranks.

    The one stop of these losses: how many labels are known decides the shapes of all that follows.
    To hide the others instead would compute them, which in an archive of few labels is most.

    Returns:
        Their embeddings (N, d) and labels (N, ...), and the indices (B',) of this rank's samples.
    """
    all_known, cols, labels = ranks.gather(known), ranks.gather(z), ranks.gather(labels)
    at = all_known.nonzero()[:, 0]  # the stop
    if len(at) < len(cols):
        cols, labels = cols[at], labels[at]
    if ranks.world == 1:
        return cols, labels, torch.arange(len(at), device=at.device)
    own = own_columns(len(z), ranks, z.device)[known]
    return cols, labels, (all_known.long().cumsum(0) - 1)[own]


def numbered(values: Tensor) -> Tensor:
    """Numbers (N,) from 0 on, equal where ``values`` (N,) are equal: `unique`'s inverse.

    Without the number of them, for which the host would wait for a device.

    Example:
        >>> numbered(torch.tensor([7, -1, 7, 3])).tolist()
        [2, 0, 2, 1]
    """
    ascending, order = values.sort()
    starts = torch.zeros_like(order)
    starts[1:] = ascending[1:] != ascending[:-1]
    return torch.empty_like(order).scatter(0, order, starts.cumsum(0))
