"""LP-FT: linear probing, then fine-tuning of all layers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from medcl.classifiers.contract import Declares
from medcl.classifiers.full import Full
from medcl.labels.outputs import Outputs
from medcl.methods.contract import State


class ProbeThenTune(nn.Module):
    """Linear probing, then fine-tuning from there (Kumar 2022, arXiv 2202.10054).

    A random head distorts pretrained features in the first steps of fine-tuning; a fitted head
    does not.

    Args:
        encoder: (B, ...) → (B, width).
        example: a batch.
        outputs: what the classifier predicts.
        probe: share of all steps with a frozen encoder.
        tune: factor on the learning rate of the encoder.
        decay: by layer, see `Full`.
        dropout: of features, before the head.
    """

    declares = Declares(auxiliary=True, mixup=True, head="whole.head")

    def __init__(
        self,
        encoder: nn.Module,
        example: Mapping[str, Tensor],
        outputs: Outputs,
        *,
        probe: float = 0.3,
        tune: float = 0.1,
        decay: float = 1.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.whole = Full(encoder, example, outputs, decay=decay, dropout=dropout)
        self.probe, self.tune = probe, tune
        self.scheduled = probe  # an epoch of the head alone is none to keep

    def step(self, batch: Mapping[str, Tensor], state: State) -> dict[str, Tensor]:
        """See `Classifier.step`; at first only the head gets a gradient."""
        if state.step < self.probe * state.steps:
            self.whole.encoder.eval()  # its running statistics stay frozen too
            with torch.no_grad():
                features = self.whole.encoder(batch["x"].float())
        else:
            self.whole.encoder.train()
            features = self.whole.encoder(batch["x"].float())
        return {"loss": self.whole.loss(features, batch, state)}

    def predict(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Classifier.predict`."""
        return self.whole.predict(batch)

    def rate(self, name: str) -> float:
        """The factor on the learning rate of a parameter, by its name."""
        inner = name.removeprefix("whole.")
        return self.whole.rate(inner) * (self.tune if inner.startswith("encoder.") else 1.0)
