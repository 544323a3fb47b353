"""Clinical tables as tokens: one per column, with a learned token for missing values."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medcl.errors import MedclError
from medcl.nn.host import refuse
from medcl.nn.vit import Block


class TabularEncoder(nn.Module):
    """A Transformer over the columns of a table (TIP: Du 2024, arXiv 2407.07582).

    Categorical values are embedded, numeric values projected, missing or masked values replaced by
    a learned token. A column embedding is added; a class token comes first.

    Args:
        categories: number of categories of each categorical column; these columns come first.
        numeric: number of numeric columns after them; standardise them beforehand.
        width: of a token and of the pooled output.
        depth: number of blocks.
        heads: attention heads; must divide ``width``.
    """

    offsets: Tensor

    def __init__(
        self,
        *,
        categories: Sequence[int] = (),
        numeric: int = 0,
        width: int,
        depth: int,
        heads: int,
    ) -> None:
        super().__init__()
        self.categories, self.numeric, self.width = tuple(categories), numeric, width
        self.columns = len(self.categories) + numeric
        starts = torch.tensor([0, *self.categories]).cumsum(0)[:-1]
        self.register_buffer("offsets", starts, persistent=False)
        self.category = nn.Embedding(max(sum(self.categories), 1), width)
        self.number = nn.Linear(1, width)
        self.missing, self.cls = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.zeros(width))
        self.column = nn.Embedding(self.columns, width)
        self.first, self.last = nn.LayerNorm(width), nn.LayerNorm(width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        for weight in (self.category.weight, self.column.weight, self.missing, self.cls):
            nn.init.normal_(weight, std=0.02)

    def known(self, table: Tensor) -> Tensor:
        """True for present values: (B, columns) bool. NaN and categories below 0 are missing.

        Raises:
            MedclError: if the number of columns is wrong, or a category is out of range.
        """
        split = len(self.categories)
        if table.shape[1] != self.columns:
            raise MedclError(
                f"The table has {table.shape[1]} columns, the method was set up for "
                f"{self.columns}: {split} categorical, then {self.numeric} numeric."
            )
        codes = table[:, :split]
        known = ~table.isnan()
        known[:, :split] &= codes >= 0
        for column, size in enumerate(self.categories):
            above = MedclError(f"Table column {column} has a category above {size - 1}.")
            refuse(codes[:, column] >= size, above)
        return known

    def tokens(self, table: Tensor, masked: Tensor | None = None) -> Tensor:
        """(B, columns) floats, NaN where missing → (B, 1 + columns, width).

        Category codes run from 0. ``masked`` (B, columns) bool hides further values.
        """
        split = len(self.categories)
        absent = ~self.known(table)
        values = torch.where(absent, 0.0, table)
        codes = self.category(values[:, :split].long() + self.offsets)  # (B, split, width)
        numbers = self.number(values[:, split:, None].to(self.number.weight.dtype))
        h = torch.cat([codes, numbers], dim=1)
        hidden = absent if masked is None else absent | masked
        h = torch.where(hidden[..., None], self.missing.to(h.dtype), h) + self.column.weight
        h = self.first(torch.cat([self.cls.to(h.dtype).expand(len(h), 1, -1), h], dim=1))
        for block in self.blocks:
            h = block(h)
        out: Tensor = self.last(h)
        return out

    def forward(self, table: Tensor) -> Tensor:
        """(B, columns) → (B, width): the class token."""
        return self.tokens(table)[:, 0]
