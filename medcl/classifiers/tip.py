"""TIP downstream: a sample with its clinical table, of which any values may be missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from medcl.classifiers.contract import Declares
from medcl.classifiers.encoding import rates
from medcl.classifiers.losses import head, of_batch
from medcl.errors import UsageError
from medcl.labels.outputs import Outputs
from medcl.methods.contract import State
from medcl.methods.tip import TIP
from medcl.nn.encoders import features

HEADS = ("sample", "table", "both")


class TIPClassifier(nn.Module):
    """Du 2024 (ECCV), arXiv 2407.07582, section 3.4: classification with incomplete tables.

    Three heads, on the pooled sample, on the table's class token and on that of the fusion of both;
    scores are the mean of those heads that have what they look at. A table without any known value
    leaves the sample's head, a sample without finite values (or none in the batch) the table's.
    Each head learns by itself, so that one alone is as good as it can be.

    In training each table loses a share of its known values, drawn anew for it from 0 to
    ``missing``: what the network meets later, and with 0.9 a table that is almost gone.

    Args:
        method: TIP, pretrained or new; its encoder, table and fusion are trained on.
        example: a batch with ``x`` and ``table``.
        outputs: what the classifier predicts.
        inputs: "both", or only one of them, with its one head: for comparison, or because the other
            does not exist.
        missing: largest share of a table's values that is hidden in training, 0 to below 1.
        frozen: train the heads alone.
        decay: of the learning rate from block to block of the encoder, as in `full`.

    Raises:
        UsageError: if ``method`` is not TIP.
    """

    declares = Declares(needs=("table",), method=True)

    def __init__(
        self,
        method: nn.Module,
        example: Mapping[str, Tensor],
        outputs: Outputs,
        *,
        inputs: Literal["both", "sample", "table"] = "both",
        missing: float = 0.9,
        frozen: bool = False,
        decay: float = 1.0,
    ) -> None:
        super().__init__()
        if not isinstance(method, TIP):
            raise UsageError(
                "The classifier 'tip' goes on from method tip, and this recipe's method is "
                f"{type(method).__name__}: pretrain with tip (recipes tip-ecg, tip-3d)."
            )
        if not 0 <= missing < 1:
            raise UsageError(f"classifier.missing is a share from 0 to below 1, not {missing}.")
        self.outputs, self.missing, self.frozen = outputs, missing, frozen
        self.encoder, self.tabular, self.fusion = method.encoder, method.tabular, method.fusion
        for part in (self.encoder, self.tabular, self.fusion):
            part.requires_grad_(not frozen)
        with torch.inference_mode():
            pooled, _ = features(self.encoder.eval(), example["x"][:2].float())
        widths = {"sample": pooled.shape[1], "table": self.tabular.width}
        widths["both"] = self.tabular.width
        names = HEADS if inputs == "both" else (inputs,)
        self.heads = nn.ModuleDict({name: head(widths[name], outputs) for name in names})
        self._rates = rates(self.encoder, decay)

    def forward(self, x: Tensor | None, table: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Scores (B, size) by head, and which of them have what they look at (heads, B)."""
        known = self.tabular.known(table).any(dim=1)  # (B,)
        seen = torch.zeros_like(known)
        pooled = tokens = None
        if x is not None and set(self.heads) != {"table"}:
            seen = x.flatten(1).isfinite().all(dim=1)
            pooled, tokens = features(self.encoder, torch.nan_to_num(x.float()))
        asked = {"sample": seen, "table": known, "both": seen & known}
        found: dict[str, Tensor] = {}
        shown = self.tabular.tokens(table) if set(self.heads) != {"sample"} else None
        for name, layer in self.heads.items():
            if name == "sample" and pooled is not None:
                found[name] = layer(pooled)
            elif name == "table" and shown is not None:
                found[name] = layer(shown[:, 0])
            elif name == "both" and shown is not None and tokens is not None:
                found[name] = layer(self.fusion(shown, tokens)[:, 0])
        if not found:
            raise UsageError("The classifier 'tip' was trained on samples, and these have none.")
        return found, torch.stack([asked[name] for name in found])

    def step(self, batch: Mapping[str, Tensor], state: State) -> dict[str, Tensor]:
        """See `Classifier.step`; the loss is the mean of the heads'."""
        table = batch["table"]
        share = self.missing * torch.rand(len(table), 1, device=table.device)
        table = torch.where(torch.rand_like(table) < share, torch.nan, table)
        if self.frozen:
            self.eval()
        found, _ = self(batch["x"], table)
        losses = {
            f"loss_{name}": of_batch(self.outputs, scores, batch, state.progress)
            for name, scores in found.items()
        }
        return {"loss": torch.stack(list(losses.values())).mean(), **losses}

    def predict(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Classifier.predict`; ``batch["x"]`` may be left out.

        A sample with neither has the scores of a table without values.
        """
        found, there = self(batch.get("x"), batch["table"])
        scores = torch.stack(list(found.values()))  # (heads, B, size)
        weight = torch.where(there.any(0), there, torch.ones_like(there)).to(scores.dtype)
        return {"scores": (weight[..., None] * scores).sum(0) / weight.sum(0)[:, None]}

    def rate(self, name: str) -> float:
        """The factor on the learning rate of a parameter, by its name."""
        return self._rates.get(name.removeprefix("encoder."), 1.0)
