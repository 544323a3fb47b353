"""LoRA: a transformer's linear layers move within a few directions."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn.utils import parametrize

from medcl.classifiers.contract import Declares
from medcl.classifiers.encoding import width
from medcl.classifiers.losses import head, of_batch
from medcl.errors import UsageError
from medcl.labels.outputs import Outputs
from medcl.methods.contract import State
from medcl.nn.lora import adapt


class LoRA(nn.Module):
    """Hu 2022, arXiv 2106.09685: a frozen encoder with a trained low-rank addition to its weights.

    Every linear layer of the encoder whose name holds one of ``layers`` is adapted: in the core's
    and MONAI's transformers ``qkv`` and ``out``, in Hugging Face's ``query``, ``key``, ``value``.

    Args:
        encoder: (B, ...) → (B, width), a pretrained transformer.
        example: a batch.
        outputs: what the classifier predicts.
        rank: r.
        alpha: α.
        layers: parts of names; empty: all linear layers.
        dropout: of features, before the head.

    Raises:
        UsageError: if the encoder has no such layer.
    """

    declares = Declares(mixup=True, head="head")

    def __init__(
        self,
        encoder: nn.Module,
        example: Mapping[str, Tensor],
        outputs: Outputs,
        *,
        rank: int = 8,
        alpha: float = 16.0,
        layers: tuple[str, ...] = (),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        size = width(encoder, example["x"])
        self.encoder, self.outputs = encoder, outputs
        self.adapted = adapt(encoder, rank, alpha, layers)
        if not self.adapted:
            named = f" whose name holds one of {list(layers)}" if layers else ""
            raise UsageError(
                f"LoRA adapts the linear layers of a transformer, and this encoder has none{named}."
                " Set classifier.name to full or lp-ft."
            )
        self.head = nn.Sequential(nn.Dropout(dropout), head(size, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) → (B, size)."""
        with parametrize.cached():  # a weight used twice is computed once
            scores: Tensor = self.head(self.encoder(x.float()))
        return scores

    def step(self, batch: Mapping[str, Tensor], state: State) -> dict[str, Tensor]:
        """See `Classifier.step`."""
        scores = self(batch["x"])
        return {"loss": of_batch(self.outputs, scores, batch, state.progress)}

    def predict(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Classifier.predict`."""
        return {"scores": self(batch["x"])}
