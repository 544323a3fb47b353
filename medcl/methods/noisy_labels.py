"""Noisy labels, as headers give them, beside self-supervision: several tasks at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from medcl.errors import UsageError
from medcl.methods.batch import class_labels, required
from medcl.methods.contract import State
from medcl.methods.schedule import Curve, between
from medcl.methods.views import Positives, encode, pair
from medcl.nn.encoders import width_of
from medcl.nn.heads import projector
from medcl.nn.host import refuse
from medcl.objectives.generalised_cross_entropy import Q, generalised_cross_entropy
from medcl.objectives.nt_xent import nt_xent
from medcl.objectives.unit import unit


class NoisyLabels(nn.Module):
    """L = w·mean over tasks t of GCE(cos(h, c_t)/τ_t, y_t) + (1 − w)·NT-Xent, on two views.

    Labels that an archive has anyhow (body part, protocol, department, codes of a report) are many,
    cheap and wrong now and then. Two papers pretrain on such: MOFI (Wu 2024, arXiv 2306.07952) by a
    cosine softmax over entities beside contrast, at a scale where the noise averages out; HVPT
    (Qian 2023, arXiv 2310.07510) by several labelled tasks beside self-supervision, each with a
    head of its own. Archives are smaller, so the cross-entropy is the generalised one (Zhang &
    Sabuncu 2018, arXiv 1805.07836), which a wrong label moves less. Contrast is of views here, and
    in MOFI with texts.

    Args:
        encoder: (B, ...) → (B, width).
        classes: how many each task has: a number for one task; a list where labels are (B, tasks).
        positives: of the second term, "instance" or "patient", as in SimCLR.
        supervised: w at the first and at the last step, from 0 to 1.
        curve: of w from the first to the last step.
        noise: q of the generalised cross-entropy, towards 0 the plain one; 1 ignores noise most.
        scale: 1/τ_t of the tasks' cosines (as CLIP's s, fixed).
        temperature: τ of the contrast.
        hidden: width of the projector's hidden layer.
        out: width of the projections.
        mask_same_patient: in the second term, keep one patient's samples out of the negatives.
    """

    needs: tuple[str, ...] = ("label",)

    def __init__(
        self,
        encoder: nn.Module,
        *,
        classes: int | tuple[int, ...] = 2,
        positives: Positives = "instance",
        supervised: tuple[float, float] = (0.5, 0.5),
        curve: Curve = "linear",
        noise: float = Q,
        scale: float = 16.0,
        temperature: float = 0.1,
        hidden: int = 512,
        out: int = 128,
        mask_same_patient: bool = True,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.views = pair(positives)
        width = width_of(encoder)
        self.projector = projector(width, hidden, out)
        counts = (classes,) if isinstance(classes, int) else classes
        self.centres = nn.ParameterList(torch.randn(count, width) for count in counts)
        self.ends, self.curve = supervised, curve
        self.noise, self.scale, self.temperature = noise, scale, temperature
        self.mask_same_patient = mask_same_patient

    def step(
        self, views: Sequence[Tensor], batch: Mapping[str, Tensor], state: State
    ) -> dict[str, Tensor]:
        """See `medcl.methods.contract.Method.step`; both terms are a ``loss_…``, with gradient.

        Raises:
            UsageError: if there are more or fewer labels than tasks, or a class is too many.
        """
        labels = class_labels(required(batch, "label", "noisy-labels"))
        labels = labels.unflatten(0, (-1, 1)) if labels.dim() == 1 else labels  # (B, tasks)
        if labels.shape[1] != len(self.centres):
            raise UsageError(
                f"Method 'noisy-labels' was made for {len(self.centres)} labels of a sample, and "
                f"these have {labels.shape[1]}: set method.classes to one number for each."
            )
        for task, centres in enumerate(self.centres):
            refuse(
                labels[:, task] >= len(centres),
                UsageError(f"A label is {len(centres)} or more, method.classes: set it higher."),
            )
        weight = between(self.ends, self.curve, state)
        h1, h2 = encode(self.encoder, views)  # (B, width) each
        # The label of a partner sample is not in the batch.
        told = torch.cat([h1, h2]) if self.views[1].source == 0 else h1
        labels = labels.repeat(len(told) // len(labels), 1)
        named = torch.stack(
            [
                generalised_cross_entropy(
                    unit(told, self.scale) @ unit(centres, 1.0).T,
                    labels[:, task],
                    q=self.noise,
                    ranks=state.ranks,
                )
                for task, centres in enumerate(self.centres)
            ]
        ).mean()
        contrast = nt_xent(
            *self.projector(torch.cat([h1, h2])).chunk(2),
            temperature=self.temperature,
            group=batch["patient"] if self.mask_same_patient else None,
            ranks=state.ranks,
        )
        parts = {"loss_named": weight * named, "loss_contrast": (1 - weight) * contrast}
        return {
            "loss": parts["loss_named"] + parts["loss_contrast"],
            "embedding": h1.detach(),
            **parts,
        }
