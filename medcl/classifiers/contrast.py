"""Fine-tuning with cross-entropy and supervised contrast."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from medcl.classifiers.contract import Declares
from medcl.classifiers.encoding import width
from medcl.classifiers.full import Full
from medcl.errors import UsageError
from medcl.labels.outputs import Outputs
from medcl.methods.contract import State
from medcl.nn.heads import mlp
from medcl.objectives.supcon import supcon


class Contrast(nn.Module):
    """Gunel 2021, arXiv 2011.01403: L = (1 − λ) · CE + λ · SupCon(projections).

    For one class per sample, ordered classes, and multilabel targets (the overlap of labels is
    then the weight of a pair, see `medcl.objectives.supcon`).

    Args:
        encoder: (B, ...) → (B, width), pretrained.
        example: a batch.
        outputs: classes or labels.
        weight: λ in 0…1 (paper: up to 0.9).
        temperature: τ of the contrast.
        out: width of the projections.
        decay: of the learning rate by layer, see `Full`.

    Raises:
        UsageError: for regression or survival.
    """

    declares = Declares(auxiliary=True, head="whole.head")

    def __init__(
        self,
        encoder: nn.Module,
        example: Mapping[str, Tensor],
        outputs: Outputs,
        *,
        weight: float = 0.5,
        temperature: float = 0.1,
        out: int = 128,
        decay: float = 0.75,
    ) -> None:
        super().__init__()
        if outputs.kind not in ("binary", "multiclass", "ordinal", "multilabel"):
            raise UsageError("contrast is for classes and labels; set classifier.name to full.")
        self.whole = Full(encoder, example, outputs, decay=decay)
        size = width(encoder, example["x"])
        self.projector = mlp((size, size, out))
        self.weight, self.temperature = weight, temperature

    def step(self, batch: Mapping[str, Tensor], state: State) -> dict[str, Tensor]:
        """See `Classifier.step`."""
        h = self.whole.encoder(batch["x"].float())
        loss = self.whole.loss(h, batch, state)
        pull = supcon(
            self.projector(h), batch["y"], temperature=self.temperature, ranks=state.ranks
        )
        total = (1 - self.weight) * loss + self.weight * pull
        return {"loss": total, "contrast": pull.detach()}

    def predict(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Classifier.predict`."""
        return self.whole.predict(batch)

    def rate(self, name: str) -> float:
        """The factor on the learning rate of a parameter, by its name."""
        return self.whole.rate(name.removeprefix("whole."))
