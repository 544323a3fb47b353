"""Fine-tuning of a whole encoder."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from medcl.classifiers.auxiliary import Heads
from medcl.classifiers.contract import Declares
from medcl.classifiers.encoding import rates, width
from medcl.classifiers.losses import head, of_batch
from medcl.labels.outputs import Outputs
from medcl.methods.contract import State


class Full(nn.Module):
    """Encoder and linear head, all trained; layers nearer the input more slowly.

    Layer-wise decay as of ELECTRA and BEiT (Clark 2020, arXiv 2003.10555; Bao 2022, arXiv
    2106.08254): a block with k blocks above it, the head counted, learns at ``decay``^k of the
    rate.

    Args:
        encoder: (B, ...) → (B, width), pretrained or new.
        example: a batch.
        outputs: what the classifier predicts.
        decay: in 0…1; 1 trains all layers alike.
        dropout: of features, before the head.
    """

    declares = Declares(auxiliary=True, mixup=True, head="head")

    def __init__(
        self,
        encoder: nn.Module,
        example: Mapping[str, Tensor],
        outputs: Outputs,
        *,
        decay: float = 0.75,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.encoder, self.outputs = encoder, outputs
        self.head = nn.Sequential(nn.Dropout(dropout), head(width(encoder, example["x"]), outputs))
        self.also = Heads(width(encoder, example["x"]), outputs.auxiliary)
        self._rates = rates(encoder, decay)

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) → (B, size)."""
        scores: Tensor = self.head(self.encoder(x.float()))
        return scores

    def step(self, batch: Mapping[str, Tensor], state: State) -> dict[str, Tensor]:
        """See `Classifier.step`."""
        return {"loss": self.loss(self.encoder(batch["x"].float()), batch, state)}

    def loss(self, h: Tensor, batch: Mapping[str, Tensor], state: State) -> Tensor:
        """Loss of features (B, width): main label plus auxiliary labels."""
        scores = self.head(h)
        main = of_batch(self.outputs, scores, batch, state.progress)
        return main + self.also(h, batch)

    def predict(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Classifier.predict`."""
        return {"scores": self(batch["x"])}

    def rate(self, name: str) -> float:
        """The factor on the learning rate of a parameter, by its name."""
        return self._rates.get(name.removeprefix("encoder."), 1.0)
