"""TIP: an image or signal and its clinical table, which may have missing values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from medcl.methods.batch import required
from medcl.methods.contract import State, View
from medcl.nn.distributed import Ranks
from medcl.nn.encoders import features, token_width, touch, width_of
from medcl.nn.fusion import Fusion
from medcl.nn.heads import projector
from medcl.nn.tabular import TabularEncoder
from medcl.objectives.info_nce import info_nce
from medcl.objectives.masked_columns import masked_columns
from medcl.objectives.matching import hard_negatives, matching


def corrupt(table: Tensor, share: float) -> Tensor:
    """Replace a share of the values by those of the same column in other rows: (B, columns)."""
    rows = torch.randint(len(table), table.shape, device=table.device)
    return torch.where(torch.rand_like(table) < share, table.gather(0, rows), table)


class TIP(nn.Module):
    """Du 2024 (ECCV), arXiv 2407.07582: L = (ITC + ITM + MTR) / 3.

    ITC: CLIP's loss between the sample and its table, a share of whose values are replaced by
    others of their column. ITM: do sample and table match? One true pair and two hard negatives,
    drawn by similarity, through cross-attention from table to sample. MTR: half of the table is
    hidden and predicted from the rest and the sample, ½(cross-entropy of categories + squared error
    of numbers); missing values are neither input nor target.

    The table attends to the encoder's patches or positions if it has them
    (`medcl.nn.encoders.features`), else to its pooled output. Replacement values come from the
    batch, in the paper from the whole data set.

    Args:
        encoder: (B, ...) → (B, width).
        categories: number of categories of each categorical column; these columns come first.
        numeric: number of numeric columns after them; standardise them beforehand.
        temperature: τ of ITC, constant.
        corruption: share of values replaced for ITC and ITM.
        mask: share of values hidden for MTR.
        inner: width of table tokens (paper: 512).
        depth: blocks of the table's encoder and of the fusion (paper: 4).
        heads: attention heads (paper: 8).
        out: width of the projections.
        mask_same_patient: keep one patient's samples out of each other's negatives.
    """

    needs: tuple[str, ...] = ("table",)
    modalities: tuple[str, ...] = ("sample", "table")

    def __init__(
        self,
        encoder: nn.Module,
        *,
        categories: tuple[int, ...] = (),
        numeric: int = 0,
        temperature: float = 0.1,
        corruption: float = 0.3,
        mask: float = 0.5,
        inner: int = 128,
        depth: int = 2,
        heads: int = 4,
        out: int = 128,
        mask_same_patient: bool = True,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.views = (View(),)
        self.tabular = TabularEncoder(
            categories=categories, numeric=numeric, width=inner, depth=depth, heads=heads
        )
        self.fusion = Fusion(inner, token_width(encoder), depth, heads)
        self.projector = projector(width_of(encoder), width_of(encoder), out)
        self.table_projector = projector(inner, inner, out)
        self.match = nn.Linear(inner, 2)
        self.category = nn.Linear(inner, max(sum(categories), 1))
        self.number = nn.Linear(inner, 1)
        self.temperature, self.corruption, self.mask = temperature, corruption, mask
        self.mask_same_patient = mask_same_patient

    def step(
        self, views: Sequence[Tensor], batch: Mapping[str, Tensor], state: State
    ) -> dict[str, Tensor]:
        """See `medcl.methods.contract.Method.step`; each part is a ``loss_…``, with gradient."""
        table = required(batch, "table", "tip")  # (B, columns)
        group = batch["patient"] if self.mask_same_patient else None
        h, tokens = features(self.encoder, views[0])  # (B, width), (B, N, D)
        shown = self.tabular.tokens(corrupt(table, self.corruption))  # (B, 1 + columns, inner)
        a, b = self.projector(h), self.table_projector(shown[:, 0])  # (B, out) each
        parts = {
            "loss_itc": info_nce(
                a,
                b,
                temperature=self.temperature,
                group=group,
                symmetric=True,
                ranks=state.ranks,
            ),
            "loss_itm": self._matching(a, b, shown, tokens, group),
            "loss_mtr": self._reconstruction(table, tokens, state.ranks),
        }
        parts = {name: part / 3 for name, part in parts.items()}
        loss = torch.stack(list(parts.values())).sum() + touch(self)
        return {"loss": loss, "embedding": h.detach(), **parts}

    def _matching(
        self, a: Tensor, b: Tensor, shown: Tensor, tokens: Tensor, group: Tensor | None
    ) -> Tensor:
        other_table, other_sample = hard_negatives(a, b, temperature=self.temperature, group=group)
        tables = torch.cat([shown, shown[other_table], shown])
        samples = torch.cat([tokens, tokens, tokens[other_sample]])
        logits = self.match(self.fusion(tables, samples)[:, 0])  # (3B, 2)
        return matching(logits[: len(a)], logits[len(a) :])

    def _reconstruction(self, table: Tensor, tokens: Tensor, ranks: Ranks) -> Tensor:
        known = self.tabular.known(table)
        hidden = torch.rand_like(table) < self.mask
        masked = hidden & known
        fused = self.fusion(self.tabular.tokens(table, hidden), tokens)[:, 1:]
        split = len(self.tabular.categories)
        codes = table[:, :split].nan_to_num().long() + self.tabular.offsets
        return masked_columns(
            self.category(fused[:, :split]),
            self.number(fused[:, split:])[..., 0],
            codes,
            table[:, split:],
            masked,
            ranks=ranks,
        )

    def project(self, batch: Mapping[str, Tensor], modality: str) -> Tensor:
        """See `medcl.methods.contract.Paired`: as ITC sees both, nothing of the table replaced."""
        if modality == self.modalities[0]:
            projected: Tensor = self.projector(self.encoder(batch["x"]))
            return projected
        table = required(batch, "table", "tip")
        present = self.tabular.known(table).any(dim=1, keepdim=True)
        return torch.where(present, self.table_projector(self.tabular(table)), 0.0)
