"""MSN: a masked view is of the same prototypes as another view that a slow copy sees whole."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from medcl.methods.contract import State
from medcl.methods.views import Positives, pair
from medcl.nn.ema import Momentum, cosine_momentum
from medcl.nn.heads import mlp
from medcl.nn.patches import grid_of, random_mask, seen, visible_count
from medcl.nn.prototypes import Prototypes
from medcl.nn.vit import vit_of
from medcl.objectives.precision import widened


class MSN(nn.Module):
    """Assran 2022, arXiv 2204.07141: L = mean H(p⁺, p) − λ·H(p̄), p̄ the mean of p over the batch.

    p⁺ = softmax(cos(z⁺, q)/τ_t) are the sharpened prototypes of the first view, by a momentum copy;
    p = softmax(cos(z, q)/τ_s) those of the second, of which a share of the patches is dropped (and
    so is their cost), and of small crops. The entropy of p̄, over all ranks, keeps prototypes in
    use. Its last term is given as log K − H(p̄), which is never negative, as in the authors' code;
    they can also balance p⁺ by Sinkhorn, which is left out.

    Args:
        encoder: a `medcl.nn.vit.ViT`.
        positives: "instance" or "patient", as in SimCLR.
        local: number of small crops, which are not masked (paper: 10).
        mask: share of the second view's patches that is dropped (paper: 0.15 for ViT-S, up to 0.7).
        prototypes: K (paper: 1,024).
        entropy: λ.
        student_temperature: τ_s.
        teacher_temperature: τ_t, lower.
        momentum: of the copy at the start, rising to 1 on a cosine.
        hidden: width of the projector's two hidden layers.
        out: width of the projections (paper: 256).

    Raises:
        UsageError: if the encoder is no ViT.
    """

    needs: tuple[str, ...] = ()

    def __init__(
        self,
        encoder: nn.Module,
        *,
        positives: Positives = "instance",
        local: int = 0,
        mask: float = 0.3,
        prototypes: int = 1024,
        entropy: float = 1.0,
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.025,
        momentum: float = 0.996,
        hidden: int = 1024,
        out: int = 256,
    ) -> None:
        super().__init__()
        self.encoder = encoder = vit_of(encoder, method="msn", other="swav")
        self.views = pair(positives, local)
        self.projector = mlp((encoder.width, hidden, hidden, out))
        self.prototypes = Prototypes(out, prototypes)
        self.teacher = Momentum(nn.Sequential(encoder, self.projector))
        self.mask, self.entropy, self.momentum = mask, entropy, momentum
        self.temperatures = student_temperature, teacher_temperature

    def step(
        self, views: Sequence[Tensor], batch: Mapping[str, Tensor], state: State
    ) -> dict[str, Tensor]:
        """See `medcl.methods.contract.Method.step`."""
        first, second, *local = views
        cells = math.prod(grid_of(second.shape[2:], self.encoder.patch))
        keep = seen(
            random_mask(len(second), cells, self.mask, second.device),
            visible_count(cells, self.mask),
        )
        h = self.encoder.pooled(self.encoder.tokens(second, keep))  # (B, width)
        students = torch.cat([h, *(self.encoder(view) for view in local)])
        scores = self.prototypes(self.projector(students))  # (A·B, K), A anchors of each sample
        tau, sharp = self.temperatures
        log_p = (widened(scores) / tau).log_softmax(1)
        with torch.no_grad():
            target = (widened(self.prototypes(self.teacher(first))) / sharp).softmax(1)  # (B, K)
        anchors = 1 + len(local)
        match = -(target.repeat(anchors, 1) * log_p).sum(1).mean()
        mean = state.ranks.mean(log_p.exp().mean(0))  # (K,)
        unused = math.log(len(mean)) + torch.xlogy(mean, mean).sum()
        return {
            "loss": match + self.entropy * unused,
            "embedding": h.detach(),
            "match": match.detach(),
            "unused": unused.detach(),
        }

    def after_step(self, state: State) -> None:
        """The copy follows; prototypes are of unit length again."""
        self.prototypes.normalise()
        momentum = cosine_momentum(self.momentum, state.step, state.steps)
        self.teacher.follow(nn.Sequential(self.encoder, self.projector), momentum)
