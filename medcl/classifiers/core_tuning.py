"""Core-tuning: fine-tuning with focal contrast of hard pairs and a smooth classifier."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributions import Beta
from torch.nn import functional as F

from medcl.classifiers.contract import Declares
from medcl.classifiers.encoding import width
from medcl.classifiers.full import Full
from medcl.classifiers.losses import soft
from medcl.errors import UsageError
from medcl.labels.outputs import Outputs
from medcl.methods.contract import State
from medcl.nn.heads import mlp
from medcl.objectives.focal_contrast import focal_contrast, hardest, mix_hard_pairs


class CoreTuning(nn.Module):
    """Zhang 2021, arXiv 2102.06605: L = CE(samples and mixed samples) + η · focal contrast.

    Hard positives and negatives are mixed from the batch's features (`mix_hard_pairs`); they are
    contrasted, and the classifier sees them too, with labels mixed in the same shares, so that it
    is smooth between the classes. Class weights multiply the cross-entropy's terms.

    Args:
        encoder: (B, ...) → (B, width), pretrained.
        example: a batch.
        outputs: two or more classes.
        eta: η, weight of the contrast (paper: 0.1 on CIFAR-10).
        alpha: α of Beta(α, α), from which shares are drawn (paper: 1).
        temperature: τ of the contrast (paper: 0.07).
        out: width of the projections (paper: 256).
        decay: of the learning rate by layer, see `Full`; 1 as in the paper.

    Raises:
        UsageError: for another kind of problem.
    """

    declares = Declares(head="whole.head")

    def __init__(
        self,
        encoder: nn.Module,
        example: Mapping[str, Tensor],
        outputs: Outputs,
        *,
        eta: float = 0.1,
        alpha: float = 1.0,
        temperature: float = 0.07,
        out: int = 256,
        decay: float = 1.0,
    ) -> None:
        super().__init__()
        if outputs.kind not in ("binary", "multiclass") or outputs.loss not in ("ce", "weighted"):
            raise UsageError(
                "core-tuning is for one class per sample, with finetune.loss ce or weighted; "
                "otherwise set classifier.name to full."
            )
        self.whole = Full(encoder, example, outputs, decay=decay)
        size = width(encoder, example["x"])
        self.projector = mlp((size, size, out))
        self.outputs, self.eta, self.alpha, self.temperature = outputs, eta, alpha, temperature

    def step(self, batch: Mapping[str, Tensor], state: State) -> dict[str, Tensor]:
        """See `Classifier.step`."""
        known = batch["y"] >= 0
        y = batch["y"][known]
        h = self.whole.encoder(batch["x"].float())[known]  # (B, width)
        if len(y) < 2:
            return {"loss": soft(self.outputs, self.whole.head(h), self._one_hot(y))}
        share, far = Beta(self.alpha, self.alpha).sample((2, len(y))).to(h)
        partner = torch.randperm(len(y), device=y.device)
        positive, negative = mix_hard_pairs(h, y, share, partner, far)
        labels, (least, most) = self._one_hot(y), hardest(h, y)
        share, far = share.unsqueeze(1), far.clamp_min(0.8).unsqueeze(1)
        mixed = share * labels[least] + (1 - share) * labels[most]
        far_mixed = (1 - far) * labels + far * labels[partner]
        contrast = focal_contrast(
            self.projector(h),
            y,
            self.projector(positive),
            self.projector(negative),
            temperature=self.temperature,
            ranks=state.ranks,
        )
        smooth = soft(
            self.outputs,
            self.whole.head(torch.cat([h, positive, negative])),
            torch.cat([labels, mixed, far_mixed]),
        )
        return {"loss": smooth + self.eta * contrast, "contrast": contrast.detach()}

    def _one_hot(self, y: Tensor) -> Tensor:
        return F.one_hot(y, self.outputs.size).float()

    def predict(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Classifier.predict`."""
        return self.whole.predict(batch)

    def rate(self, name: str) -> float:
        """The factor on the learning rate of a parameter, by its name."""
        return self.whole.rate(name.removeprefix("whole."))
