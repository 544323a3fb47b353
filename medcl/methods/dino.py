"""DINO: self-distillation with no labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medcl.methods.contract import State
from medcl.methods.views import Positives, encode, pair
from medcl.nn.ema import Momentum, cosine_momentum
from medcl.nn.encoders import width_of
from medcl.objectives.dino import dino, move_center


def warmed(ends: tuple[float, float], warmup: float, state: State) -> float:
    """A value that goes linearly from one end to the other in the first ``warmup`` of training."""
    first, last = ends
    progress = min(state.step / max(warmup * state.steps, 1.0), 1.0)
    return first + progress * (last - first)


class DINOHead(nn.Module):
    """(B, width) → (B, out): three GELU layers, a unit bottleneck, a layer of unit rows.

    ``norm`` puts batch normalisation into the first two, as the authors' code can.
    """

    def __init__(self, width: int, hidden: int, bottleneck: int, out: int, *, norm: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before in (width, hidden):
            layers.append(nn.Linear(before, hidden))
            if norm:
                layers.append(nn.BatchNorm1d(hidden))
            layers.append(nn.GELU())
        layers.append(nn.Linear(hidden, bottleneck))
        for layer in layers:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.layers = nn.Sequential(*layers)
        self.last = nn.Parameter(torch.randn(out, bottleneck))

    def forward(self, h: Tensor, *, held: bool = False) -> Tensor:
        """Logits; with ``held`` the last layer gets a gradient of zero."""
        last = self.last.detach() + 0 * self.last if held else self.last
        return F.normalize(self.layers(h), dim=1) @ F.normalize(last, dim=1).T


class DINO(nn.Module):
    """Caron 2021, arXiv 2104.14294: every view predicts the teacher's view of each global one.

    L = mean over (t global, s ≠ t) of H(softmax((g_t − c)/τ_t), softmax(g_s/τ_s)). The teacher is a
    momentum copy with m rising to 1 on a cosine; its centre c follows its mean output; τ_t rises
    linearly over the first ``warmup`` of training; the last layer is held for ``frozen`` steps.

    Args:
        encoder: (B, ...) → (B, width).
        positives: "instance" or "patient", as in SimCLR.
        local: number of small crops that only the student sees (paper: 8 or more).
        out: number of outputs (paper: 65,536).
        hidden: width of the head's hidden layers (paper: 2048).
        bottleneck: width of the unit vector before the last layer.
        norm: batch normalisation in the head; more stable with convolutional encoders.
        student_temperature: τ_s.
        teacher_temperature: τ_t at the end of the warm-up.
        first_temperature: τ_t at the start.
        warmup: share of all steps over which τ_t rises.
        momentum: m of the teacher at the start.
        centre_momentum: how slowly c moves.
        frozen: steps during which the last layer does not move (paper: one epoch).
    """

    needs: tuple[str, ...] = ()
    centre: Tensor  # (out,)

    def __init__(
        self,
        encoder: nn.Module,
        *,
        positives: Positives = "instance",
        local: int = 0,
        out: int = 4096,
        hidden: int = 1024,
        bottleneck: int = 256,
        norm: bool = False,
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.07,
        first_temperature: float = 0.04,
        warmup: float = 0.3,
        momentum: float = 0.996,
        centre_momentum: float = 0.9,
        frozen: int = 100,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.views = pair(positives, local)
        self.head = DINOHead(width_of(encoder), hidden, bottleneck, out, norm=norm)
        self.teacher = Momentum(nn.Sequential(encoder, self.head))
        self.register_buffer("centre", torch.zeros(out))
        self.student_temperature = student_temperature
        self.temperatures, self.warmup = (first_temperature, teacher_temperature), warmup
        self.momentum, self.centre_momentum = momentum, centre_momentum
        self.frozen = frozen

    def step(
        self, views: Sequence[Tensor], batch: Mapping[str, Tensor], state: State
    ) -> dict[str, Tensor]:
        """See `medcl.methods.contract.Method.step`."""
        h = encode(self.encoder, views)  # (B, width) each
        held = state.step < self.frozen
        students = torch.stack([self.head(each, held=held) for each in h])  # (V, B, out)
        teachers = torch.stack([self.teacher(view) for view in views[:2]])  # (2, B, out)
        loss = dino(
            students,
            teachers,
            self.centre.clone(),  # updated below, before the backward pass
            student_temperature=self.student_temperature,
            teacher_temperature=warmed(self.temperatures, self.warmup, state),
        )
        centre = move_center(
            self.centre, teachers, momentum=self.centre_momentum, ranks=state.ranks
        )
        self.centre.copy_(centre)
        return {"loss": loss, "embedding": h[0].detach()}

    def after_step(self, state: State) -> None:
        """Update the teacher."""
        momentum = cosine_momentum(self.momentum, state.step, state.steps)
        self.teacher.follow(nn.Sequential(self.encoder, self.head), momentum)
