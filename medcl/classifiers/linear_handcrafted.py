"""A linear classifier on frozen features beside the plugin's hand-crafted ones."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from medcl.classifiers.contract import Declares
from medcl.classifiers.encoding import width
from medcl.classifiers.losses import supervised
from medcl.labels.outputs import Outputs
from medcl.methods.contract import State
from medcl.nn.feature_groups import LEARNED, group_weights
from medcl.run import HANDCRAFTED


class LinearHandcrafted(nn.Module):
    """The encoder is frozen; its features and the hand-crafted ones are standardised by running
    statistics, and the two groups get equal total variance.

    As `medcl.embeddings.linear` weighs groups ("hard block scaling", Eriksson 2006, Multi- and
    Megavariate Data Analysis): otherwise the wider group decides.

    Args:
        encoder: (B, ...) → (B, width).
        example: a batch, with ``handcrafted`` (B, F).
        outputs: what the classifier predicts.
        dropout: of features.
        weight: of the encoder's features where hand-crafted ones weigh 1.
    """

    declares = Declares(needs=(HANDCRAFTED,), head="head")
    weights: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        example: Mapping[str, Tensor],
        outputs: Outputs,
        *,
        dropout: float = 0.2,
        weight: float = LEARNED[0],
    ) -> None:
        super().__init__()
        self.encoder, self.outputs = encoder.requires_grad_(False).eval(), outputs
        groups = width(encoder, example["x"]), example[HANDCRAFTED].shape[1]
        self.norm = nn.BatchNorm1d(sum(groups), affine=False)
        weights = torch.from_numpy(group_weights(groups, learned=weight))
        self.register_buffer("weights", weights)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(sum(groups), outputs.size))

    def train(self, mode: bool = True) -> LinearHandcrafted:
        """The encoder stays in evaluation mode."""
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, x: Tensor, handcrafted: Tensor) -> Tensor:
        """(B, ...), (B, F) → (B, size)."""
        with torch.set_grad_enabled(x.requires_grad):  # for a saliency map; never in training
            embedding = self.encoder(x.float())
        both = torch.cat([embedding, handcrafted.float()], dim=1)
        scores: Tensor = self.head(self.norm(both) * self.weights)
        return scores

    def step(self, batch: Mapping[str, Tensor], state: State) -> dict[str, Tensor]:
        """See `Classifier.step`."""
        scores = self(batch["x"], batch[HANDCRAFTED])
        return {"loss": supervised(self.outputs, scores, batch["y"])}

    def predict(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Classifier.predict`."""
        return {"scores": self(batch["x"], batch[HANDCRAFTED])}
