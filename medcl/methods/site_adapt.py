"""Contrastive domain adaptation between sites or scanners: labels of one, samples of all."""

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
from medcl.nn.host import refuse
from medcl.objectives.domain_contrast import domain_contrast


class SiteAdapt(nn.Module):
    """Bhattacharjee 2023 (ConDA), arXiv 2309.03992, for hospitals and scanners.

    L = (1 − λ)/2 (CE₁ + CE₂) + λ/2 (NT-Xent(source) + NT-Xent(target)) + μ MMD(source, target).

    Labels are used of one site, the source; labels of all other sites, the target, are never read.
    Sites are numbered by their training samples, 0 the largest. A batch that lacks two samples of
    each domain is contrasted as one domain.

    Args:
        encoder: (B, ...) → (B, width).
        classes: number of classes of the label.
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
        refuse(
            labels >= self.classes,
            UsageError(f"A label is {self.classes} or more, method.classes: set it higher."),
        )
        site = required(batch, "site", "site-adapt")  # (B,), −1 where unknown
        h1, h2 = encode(self.encoder, views)  # (B, width) each
        z1, z2 = self.projector(torch.cat([h1, h2])).chunk(2)  # (B, out) each
        # Ranks hold different numbers of each site: gather all samples, then split them by site.
        local = (z1, z2, self.head(h1), self.head(h2), labels, site)
        z1, z2, logits1, logits2, labels, site = (state.ranks.gather(tensor) for tensor in local)
        source, target = site == self.source, (site >= 0) & (site != self.source)
        both = torch.stack([source.sum(), target.sum()]).amin() >= 2  # else only one domain
        some = (site >= 0) | (site < 0).all()  # if no site is known, all of them
        labels = torch.where(both | source, labels, -1)
        source, target = torch.where(both, source, some), torch.where(both, target, some)
        s, t = _rows(source, target)
        loss = domain_contrast(
            z1[s],
            z2[s],
            z1[t],
            z2[t],
            logits1[s],
            logits2[s],
            labels[s],
            contrast=self.contrast,
            discrepancy=self.discrepancy,
            temperature=self.temperature,
            variances=self.variances,
        )
        return {"loss": loss, "embedding": h1.detach(), "target_share": target.float().mean()}


def _rows(source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The positions of True in each (N,).

    The one stop of this method: how many there are of each site decides the shapes of its losses.
    """
    chosen = torch.stack([source, target])  # (2, N)
    first = (~chosen).byte().argsort(dim=1, stable=True)
    s, t = chosen.sum(dim=1).tolist()
    return first[0, :s], first[1, :t]
