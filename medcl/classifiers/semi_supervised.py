"""Fine-tuning from samples with and without a label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medcl.classifiers.auxiliary import Heads
from medcl.classifiers.contract import VIEW, Declares
from medcl.classifiers.encoding import rates, width
from medcl.classifiers.losses import head, soft, supervised
from medcl.errors import UsageError
from medcl.labels.auxiliary import SOFT, TREE
from medcl.labels.outputs import Outputs
from medcl.methods import semi_supervised as pretraining
from medcl.methods.contract import State
from medcl.methods.schedule import Curve
from medcl.methods.views import encode, pair

LABEL = {"tree_contrast": TREE, "soft_contrast": SOFT}
"""Batch key that an objective reads instead of the label."""


class SemiSupervised(nn.Module):
    """L = CE + λ · [(1 − w)·L_supervised(labelled) + w·NT-Xent(all)], on two views of each sample.

    The pretraining method `semi-supervised` (He 2022, SPACE-2, arXiv 2209.06638; Juyal 2024,
    SC-MIL, arXiv 2303.13405) continues alongside the classifier. A sample without a label enters
    NT-Xent; with a soft label (``finetune.soft``) also CE, as soft cross-entropy; with the coarser
    levels of a tree (``finetune.tree``) L_supervised, if that is "tree_contrast".

    Args:
        encoder: (B, ...) → (B, width), pretrained.
        example: a batch.
        outputs: what the classifier predicts.
        objective: L_supervised: "supcon" for classes and labels, "rank_n_contrast" for grades and
            values, "tree_contrast" for ``finetune.tree``, "soft_contrast" for ``finetune.soft``.
        settings: keyword arguments of that objective.
        weight: λ.
        self_supervised: w at the first and at the last step.
        curve: interpolation of w between the two.
        temperature: τ of NT-Xent.
        hidden: width of the projector's hidden layer.
        out: width of the projections.
        mask_same_patient: in NT-Xent, keep one patient's samples out of the negatives.
        decay: of the learning rate by layer, see `medcl.classifiers.full.Full`.
        dropout: of features, before the head.

    Raises:
        UsageError: for survival, or an objective that the kind of label does not support.
    """

    declares = Declares(views=pair("instance"), auxiliary=True, head="head")

    def __init__(
        self,
        encoder: nn.Module,
        example: Mapping[str, Tensor],
        outputs: Outputs,
        *,
        objective: Literal[
            "supcon", "rank_n_contrast", "tree_contrast", "soft_contrast"
        ] = "supcon",
        settings: dict[str, Any] | None = None,
        weight: float = 0.2,
        self_supervised: tuple[float, float] = (1.0, 0.0),
        curve: Curve = "linear",
        temperature: float = 0.1,
        hidden: int = 512,
        out: int = 128,
        mask_same_patient: bool = True,
        decay: float = 0.75,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        fits = {
            "supcon": ("binary", "multiclass", "ordinal", "multilabel"),
            "rank_n_contrast": ("ordinal", "regression"),
        }
        if outputs.kind not in fits.get(objective, ("binary", "multiclass", "ordinal")):
            raise UsageError(
                f"semi-supervised with '{objective}' is not for finetune.kind {outputs.kind}: "
                "set rank_n_contrast for values, supcon for classes and labels; for survival "
                "use the classifier full."
            )
        self.contrast = pretraining.SemiSupervised(
            encoder,
            objective=objective,
            settings=settings,
            label=LABEL.get(objective, "y"),
            self_supervised=self_supervised,
            curve=curve,
            temperature=temperature,
            hidden=hidden,
            out=out,
            mask_same_patient=mask_same_patient,
        )
        size = width(encoder, example["x"])
        self.head = nn.Sequential(nn.Dropout(dropout), head(size, outputs))
        self.also = Heads(size, outputs.auxiliary)
        self.outputs, self.weight = outputs, weight
        self.scheduled = 1.0 if self_supervised[0] != self_supervised[1] else 0.0
        self._rates = rates(encoder, decay)

    def step(self, batch: Mapping[str, Tensor], state: State) -> dict[str, Tensor]:
        """See `Classifier.step`."""
        if (name := self.contrast.label) not in batch:
            raise UsageError(
                f"'{self.contrast.objective}' learns from finetune.{name}: name the columns there."
            )
        h1, h2 = encode(self.contrast.encoder, [batch[f"{VIEW}{n}"] for n in range(2)])
        supervised_term, self_supervised = self.contrast.terms(h1, h2, batch, state)
        classified = self._classified(torch.cat([h1, h2]), batch, state) + self.also(h1, batch)
        logs = {
            "supervised": supervised_term.detach(),
            "self_supervised": self_supervised.detach(),
        }
        return {"loss": classified + self.weight * (supervised_term + self_supervised), **logs}

    def _classified(self, h: Tensor, batch: Mapping[str, Tensor], state: State) -> Tensor:
        """Cross-entropy on both views (2B, width), with soft labels where present."""
        scores, y = self.head(h), batch["y"].repeat(2, *[1] * (batch["y"].ndim - 1))
        if SOFT not in batch:
            return supervised(self.outputs, scores, y, state.progress)
        hard = F.one_hot(y.clamp_min(0), self.outputs.size).float()  # (2B, C)
        hard = torch.where((y >= 0).unsqueeze(1), hard, torch.nan)
        soft_labels = batch[SOFT].repeat(2, 1)
        return soft(self.outputs, scores, torch.where(soft_labels.isfinite(), soft_labels, hard))

    def predict(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Classifier.predict`."""
        return {"scores": self.head(self.contrast.encoder(batch["x"].float()))}

    def rate(self, name: str) -> float:
        """The factor on the learning rate of a parameter, by its name."""
        return self._rates.get(name.removeprefix("contrast.encoder."), 1.0)
