"""Semi-supervised: a supervised objective on labelled samples, NT-Xent on two views of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from medcl.errors import UsageError
from medcl.methods.batch import class_labels, number_labels, required
from medcl.methods.contract import State
from medcl.methods.schedule import Curve, between
from medcl.methods.views import encode, pair
from medcl.nn.distributed import Ranks
from medcl.nn.encoders import width_of
from medcl.nn.heads import projector
from medcl.objectives import OBJECTIVES
from medcl.objectives.nt_xent import nt_xent
from medcl.objectives.unit import unit
from medcl.registry import checked, resolve

Supervised = Literal[
    "supcon",
    "tree_contrast",
    "soft_contrast",
    "ot_contrast",
    "rank_n_contrast",
    "listwise_wasserstein",
]
CODES = ("supcon", "tree_contrast")
"""Objectives with codes as labels, −1 where missing; the others take numbers, NaN where missing."""

NOWHERE = -1e4
"""Score and relevance of a candidate that no list may hold: its share of the softmax is zero."""

PAIRED = ("tree_contrast", "soft_contrast")
"""Objectives that take the two views separately, with a label per pair; the others one per view."""


class SemiSupervised(nn.Module):
    """L = (1 − w)·L_supervised(labelled) + w·NT-Xent(all), w along a curve.

    The mix follows He 2022 (SPACE-2, arXiv 2209.06638, with label trees), the schedule Juyal 2024
    (SC-MIL, arXiv 2303.13405). Labels by objective:

    - "supcon": (B,) classes or (B, L) sets of labels.
    - "tree_contrast": (B, D) codes from the root down (ICD-10, OncoTree), known to some level.
    - "soft_contrast": (B, e) an embedding of each label.
    - "ot_contrast": (B, e) the embedding of each sample by an encoder trained with labels.
    - "rank_n_contrast": (B,) or (B, T) numbers: ages, grades, ejection fractions.
    - "listwise_wasserstein": (B,) numbers: each sample ranks all others, whose relevance falls with
      the difference of their numbers (grades one apart: 1).

    −1 or NaN is missing (NaN only for floating-point labels). The first term ignores such samples,
    except "tree_contrast", where only their second view is a positive; the second term uses all.
    Both terms are also returned, for `harmonised`.

    Args:
        encoder: (B, ...) → (B, width).
        objective: of the labelled samples.
        settings: of that objective, as its function takes them.
        label: the batch key of the labels.
        self_supervised: w at the first and at the last step, from 0 to 1.
        curve: of w from the first to the last step.
        temperature: τ of NT-Xent.
        hidden: width of the projector's hidden layer.
        out: width of the projections.
        mask_same_patient: in NT-Xent, keep one patient's samples out of the negatives.

    Raises:
        UsageError: for unknown settings of the objective.
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        objective: Supervised = "supcon",
        settings: dict[str, Any] | None = None,
        label: str = "label",
        self_supervised: tuple[float, float] = (1.0, 0.0),
        curve: Curve = "linear",
        temperature: float = 0.1,
        hidden: int = 512,
        out: int = 128,
        mask_same_patient: bool = True,
    ) -> None:
        super().__init__()
        fn = resolve(OBJECTIVES[objective].target)
        self.settings = checked(fn, settings or {}, "method.settings")
        self.encoder, self.objective, self.fn = encoder, objective, fn
        self.views, self.needs, self.label = pair("instance"), (label,), label
        self.projector = projector(width_of(encoder), hidden, out)
        self.ends, self.curve = self_supervised, curve
        self.temperature, self.mask_same_patient = temperature, mask_same_patient

    def step(
        self, views: Sequence[Tensor], batch: Mapping[str, Tensor], state: State
    ) -> dict[str, Tensor]:
        """See `medcl.methods.contract.Method.step`."""
        h1, h2 = encode(self.encoder, views)  # (B, width) each
        supervised, self_supervised = self.terms(h1, h2, batch, state)
        return {
            "loss": supervised + self_supervised,
            "embedding": h1.detach(),
            "loss_supervised": supervised,
            "loss_self_supervised": self_supervised,
        }

    def terms(
        self, h1: Tensor, h2: Tensor, batch: Mapping[str, Tensor], state: State
    ) -> tuple[Tensor, Tensor]:
        """Both terms, weighted, of the two views' embeddings (B, width)."""
        label = required(batch, self.label, "semi-supervised")
        weight = between(self.ends, self.curve, state)
        z1, z2 = self.projector(torch.cat([h1, h2])).chunk(2)  # (B, out) each
        supervised = (1 - weight) * self._supervised(z1, z2, label, state.ranks)
        self_supervised = weight * nt_xent(
            z1,
            z2,
            temperature=self.temperature,
            group=batch["patient"] if self.mask_same_patient else None,
            ranks=state.ranks,
        )
        return supervised, self_supervised

    def _supervised(self, z1: Tensor, z2: Tensor, label: Tensor, ranks: Ranks) -> Tensor:
        label = class_labels(label) if self.objective in CODES else number_labels(label)
        if self.objective in ("soft_contrast", "ot_contrast") and label.ndim != 2:
            raise UsageError(
                f"Method 'semi-supervised' with '{self.objective}' needs an embedding (B, e) of "
                f"each sample's label, and '{self.label}' is {tuple(label.shape)}."
            )
        if self.objective == "tree_contrast" and label.ndim == 1:
            label = label.unsqueeze(1)  # a tree of one level
        settings = self.settings | {"ranks": ranks}
        if self.objective == "listwise_wasserstein":
            label = label.squeeze(1) if label.shape[1:] == (1,) else label  # a table's only column
            if label.ndim != 1:
                raise UsageError(
                    f"Method 'semi-supervised' with '{self.objective}' needs one number of each "
                    f"sample, and '{self.label}' is {tuple(label.shape)}."
                )
            scores, relevance = lists(torch.cat([z1, z2]), torch.cat([label, label]), ranks)
            graded: Tensor = self.fn(scores, relevance, **settings)
            return graded
        if self.objective in PAIRED:
            loss: Tensor = self.fn(z1, z2, label, **settings)
        else:
            loss = self.fn(torch.cat([z1, z2]), torch.cat([label, label]), **settings)
        return loss


def lists(z: Tensor, label: Tensor, ranks: Ranks) -> tuple[Tensor, Tensor]:
    """Every sample as a query to the samples of all ranks, for `listwise_wasserstein`.

    Args:
        z: (B, d) embeddings.
        label: (B,) numbers, NaN where unknown: no list, and a candidate of no weight in others.
        ranks: the other processes.

    Returns:
        cosines (B, W·B), and relevance: minus the difference of the numbers.
    """
    z = unit(z)
    candidates, grades = ranks.gather(z), ranks.gather(label.to(z.dtype))
    unknown = grades.isnan()
    scores = (z @ candidates.T).masked_fill(unknown, NOWHERE)
    relevance = -(label.to(z.dtype)[:, None] - grades.nan_to_num()).abs()
    relevance = relevance.masked_fill(unknown & ~label.isnan()[:, None], NOWHERE)
    return scores, relevance
