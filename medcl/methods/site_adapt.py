"""Contrastive domain adaptation between sites or scanners: labels from one, pictures from all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from medcl.errors import UsageError
from medcl.methods.batch import class_labels, required
from medcl.methods.contract import State, View
from medcl.methods.views import encode
from medcl.nn.encoders import width_of
from medcl.nn.heads import projector
from medcl.objectives.domain_contrast import domain_contrast


class SiteAdapt(nn.Module):
    """Bhattacharjee 2023 (ConDA), arXiv 2309.03992, for hospitals and scanners.

    L = (1 − λ)/2 (CE₁ + CE₂) + λ/2 (NT-Xent(source) + NT-Xent(target)) + μ MMD(source, target).

    The source is one site, of which labels are used; the others are the target, whose labels are
    never looked at. Sites are numbered by their training samples, 0 the largest. A batch without
    two samples of both is contrasted within the one that is there.

    Args:
        encoder: (B, ...) → (B, width).
        classes: how many the label has.
        source: the number of the site whose labels are used.
        contrast: λ in 0…1.
        discrepancy: μ.
        temperature: τ of NT-Xent.
        variances: of the MMD's kernels, on the projections as they are.
        hidden: width of the projector's hidden layer.
        out: width of the projections.
    """

    needs: tuple[str, ...] = ("label", "site")

    def __init__(
        self,
        encoder: nn.Module,
        *,
        classes: int = 2,
        source: int = 0,
        contrast: float = 0.5,
        discrepancy: float = 1.0,
        temperature: float = 0.5,
        variances: tuple[float, ...] = (10.0, 15.0, 20.0, 50.0),
        hidden: int = 512,
        out: int = 128,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.views = (View(), View())
        self.projector = projector(width_of(encoder), hidden, out)
        self.head = nn.Linear(width_of(encoder), classes)
        self.classes, self.source = classes, source
        self.contrast, self.discrepancy = contrast, discrepancy
        self.temperature, self.variances = temperature, variances

    def step(
        self, views: Sequence[Tensor], batch: Mapping[str, Tensor], state: State
    ) -> dict[str, Tensor]:
        """See `medcl.methods.contract.Method.step`."""
        labels = class_labels(required(batch, "label", "site-adapt"))  # (B,)
        if int(labels.max()) >= self.classes:
            raise UsageError(
                f"The label has class {int(labels.max())}, and site-adapt was told of "
                f"{self.classes}: set method.classes."
            )
        site = required(batch, "site", "site-adapt")  # (B,), −1 where unknown
        h1, h2 = encode(self.encoder, views)  # (B, width) each
        z1, z2 = self.projector(torch.cat([h1, h2])).chunk(2)  # (B, out) each
        # Ranks hold different numbers of each site: all are brought together, then told apart.
        whole = (z1, z2, self.head(h1), self.head(h2), labels, site)
        z1, z2, logits1, logits2, labels, site = (state.ranks.gather(part) for part in whole)
        ours, others = site == self.source, (site >= 0) & (site != self.source)
        if min(int(ours.sum()), int(others.sum())) < 2:  # nothing to bring together
            labels = torch.where(ours, labels, -1)
            ours = others = (site >= 0) | (site < 0).all()  # if none is known, all of them
        loss = domain_contrast(
            z1[ours],
            z2[ours],
            z1[others],
            z2[others],
            logits1[ours],
            logits2[ours],
            labels[ours],
            contrast=self.contrast,
            discrepancy=self.discrepancy,
            temperature=self.temperature,
            variances=self.variances,
        )
        return {"loss": loss, "embedding": h1.detach(), "target_share": others.float().mean()}
