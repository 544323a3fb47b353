"""CLIP-style two towers: a sample and its second modality (a table, a text vector, a sensor)."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from medcl.methods.batch import required
from medcl.methods.contract import State, View
from medcl.nn.encoders import width_of
from medcl.nn.heads import mlp
from medcl.nn.tabular import TabularEncoder
from medcl.objectives.clip import clip

Tower = Literal["table", "vector", "same"]
MAX_SCALE = 100.0


def restart(module: nn.Module) -> nn.Module:
    """A copy of ``module``; layers with ``reset_parameters`` get new random weights."""
    fresh = copy.deepcopy(module)
    for part in fresh.modules():
        reset = getattr(part, "reset_parameters", None)
        if callable(reset):
            reset()
    return fresh


class TwoTower(nn.Module):
    """Radford 2021 (CLIP), arXiv 2103.00020: L = ½(CE(s·A·Bᵀ) + CE(s·B·Aᵀ)), s learned.

    The encoder embeds the sample; the other tower embeds ``batch[key]`` of the same sample: a
    clinical table with missing values ("table", `medcl.nn.tabular`), a vector such as a sentence
    embedding of the report ("vector"), or a second signal or image through another encoder of the
    same architecture ("same": ECG and PPG, PET and CT).

    Args:
        encoder: (B, ...) → (B, width).
        key: what the second tower reads from the batch: "table", or the dataset's own name for it.
        tower: the kind of the second tower.
        categories: table: categories of each categorical column; these columns come first.
        numeric: table: number of numeric columns after them. vector: its length.
        inner: table: width of its tower.
        depth: table: number of blocks.
        heads: table: attention heads.
        temperature: 1/s at the start (paper: 0.07).
        hidden: width of the projectors' hidden layers (paper: none, one linear layer).
        out: width of the shared space.
        mask_same_patient: keep one patient's samples out of each other's negatives.
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        key: str = "table",
        tower: Tower = "table",
        categories: tuple[int, ...] = (),
        numeric: int = 0,
        inner: int = 128,
        depth: int = 2,
        heads: int = 4,
        temperature: float = 0.07,
        hidden: int = 512,
        out: int = 128,
        mask_same_patient: bool = True,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.views = (View(),)
        self.needs, self.modalities = (key,), ("sample", key)
        self.other: nn.Module
        if tower == "table":
            self.other = TabularEncoder(
                categories=categories, numeric=numeric, width=inner, depth=depth, heads=heads
            )
        elif tower == "vector":
            self.other = nn.Identity()
            inner = numeric
        else:
            self.other = restart(encoder)
            inner = width_of(encoder)
        self.projector = mlp((width_of(encoder), hidden, out))
        self.other_projector = mlp((inner, hidden, out))
        self.log_scale = nn.Parameter(torch.tensor(1.0 / temperature).log())
        self.key, self.mask_same_patient = key, mask_same_patient

    def step(
        self, views: Sequence[Tensor], batch: Mapping[str, Tensor], state: State
    ) -> dict[str, Tensor]:
        """See `medcl.methods.contract.Method.step`."""
        h = self.encoder(views[0])  # (B, width)
        a = self.projector(h)  # (B, out)
        b = self._project_second(required(batch, self.key, "clip"))
        loss = clip(
            a,
            b,
            self.log_scale,
            group=batch["patient"] if self.mask_same_patient else None,
            ranks=state.ranks,
        )
        return {"loss": loss, "embedding": h.detach(), "scale": self.log_scale.detach().exp()}

    def project(self, batch: Mapping[str, Tensor], modality: str) -> Tensor:
        """See `medcl.methods.contract.Paired`."""
        if modality == self.modalities[0]:
            projected: Tensor = self.projector(self.encoder(batch["x"]))
            return projected
        second = required(batch, self.key, "clip")
        if isinstance(self.other, TabularEncoder):
            present = self.other.known(second).any(dim=1)
        else:
            present = (second.nan_to_num() != 0).flatten(1).any(dim=1)
        return torch.where(present.unsqueeze(1), self._project_second(second), 0.0)

    def _project_second(self, second: Tensor) -> Tensor:
        """The second modality in the shared space: (B, out)."""
        projected: Tensor = self.other_projector(self.other(second))
        return projected

    @torch.no_grad()
    def after_step(self, state: State) -> None:
        """Clamp s to at most 100, as in the paper; its gradient is not clipped."""
        self.log_scale.clamp_(max=math.log(MAX_SCALE))
