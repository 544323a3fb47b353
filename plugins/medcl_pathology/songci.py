"""SongCi's prototype encoder: self-distillation, and prototypes of tissue across organs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medcl.errors import UsageError
from medcl.methods.contract import State
from medcl.methods.dino import warmed
from medcl.methods.swav import stored
from medcl.methods.views import Positives, encode, pair
from medcl.nn.ema import Momentum, cosine_momentum
from medcl.nn.encoders import width_of
from medcl.nn.prototypes import Prototypes
from medcl.nn.queue import Queue
from medcl.objectives.dino import dino, move_center
from medcl.objectives.me_max import me_max
from medcl.objectives.nearest_prototype import nearest_prototype
from medcl.objectives.swav import swav


class SongCi(nn.Module):
    """Shen 2024 (arXiv 2407.14904), as its authors train it (github.com/shenxiaochenn/SongCi).

    L = 0.6·DINO + swapped prediction of prototypes + distance to the nearest one + 0.1·its
    cross-entropy + me-max. Two heads on one encoder: DINO's, in which the student alone has a
    predictor, and a projector to unit vectors whose cosines with unit prototypes the other terms
    take, of all views. The teacher is a momentum copy, m rising to 1 on a cosine; prototypes do not
    move during the first ``frozen`` steps, the last layer during ``frozen_last``.

    The authors begin with DINO's ViT-S of ImageNet and hold its patch embedding and first six
    blocks: ``frozen_blocks``, for an encoder that is trained already (`trainer.weights` or
    ``encoder.folder``).

    Args:
        encoder: (B, ...) → (B, width).
        positives: "instance" or "patient", as in SimCLR.
        local: small crops that only the student sees (authors: 10).
        frozen_blocks: first blocks of a Transformer, with what is before them, that stay (6).
        prototypes: how many (1024).
        hidden: width of all hidden layers (2048).
        out: width of the projections and of DINO's bottleneck (256).
        dino_out: outputs of DINO's head (65,536).
        dino_weight: 0.6.
        contrast: weight of the cross-entropy with the nearest prototype.
        temperature: τ of the swapped prediction and of me-max.
        epsilon: Sinkhorn's entropy weight.
        frozen: steps during which prototypes do not move (5000).
        frozen_last: steps during which DINO's last layer does not move (one epoch).
        queue: embeddings remembered for the assignments (3840); 0: none.
        queue_from: step at which the queue comes into use (ten epochs).
        first_temperature: the teacher's τ at the start.
        teacher_temperature: at the end of the warm-up.
        warmup: share of all steps over which it rises (30 of 250 epochs).
        momentum: m of the teacher at the start.

    Raises:
        UsageError: if the encoder has fewer blocks than are to be frozen.
    """

    needs: tuple[str, ...] = ()
    centre: Tensor  # (dino_out,)

    def __init__(
        self,
        encoder: nn.Module,
        *,
        positives: Positives = "instance",
        local: int = 10,
        frozen_blocks: int = 0,
        prototypes: int = 1024,
        hidden: int = 2048,
        out: int = 256,
        dino_out: int = 65_536,
        dino_weight: float = 0.6,
        contrast: float = 0.1,
        temperature: float = 0.1,
        epsilon: float = 0.05,
        frozen: int = 5000,
        frozen_last: int = 5000,
        queue: int = 3840,
        queue_from: int = 50_000,
        first_temperature: float = 0.04,
        teacher_temperature: float = 0.07,
        warmup: float = 0.12,
        momentum: float = 0.996,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.views = pair(positives, local)
        width = width_of(encoder)
        self.projector = perceptron(width, hidden, out)
        self.prototypes = Prototypes(out, prototypes)
        self.head = perceptron(width, hidden, out)
        self.predictor = perceptron(out, hidden, out)
        for head in (self.head, self.predictor):
            head.apply(_as_dino)
        self.last = nn.utils.parametrizations.weight_norm(nn.Linear(out, dino_out, bias=False))
        self.last.parametrizations.weight.original0.data.fill_(1)  # lengths of the rows
        self.teacher = Momentum(nn.Sequential(encoder, self.head, _Unit(), self.last))
        self.register_buffer("centre", torch.zeros(dino_out))
        self.queue = Queue(queue, 2 * out) if queue else None  # both global views, concatenated
        self.dino_weight, self.contrast = dino_weight, contrast
        self.temperature, self.epsilon = temperature, epsilon
        self.frozen, self.frozen_last, self.queue_from = frozen, frozen_last, queue_from
        self.temperatures, self.warmup = (first_temperature, teacher_temperature), warmup
        self.momentum = momentum
        for part in first_parts(encoder, frozen_blocks):
            part.requires_grad_(False)

    def step(
        self, views: Sequence[Tensor], batch: Mapping[str, Tensor], state: State
    ) -> dict[str, Tensor]:
        """See `medcl.methods.contract.Method.step`; each term is logged."""
        h = encode(self.encoder, views)  # (B, width) each
        together = torch.cat(h)  # (V·B, width)
        z = self.projector(together)
        scores = self.prototypes(z, held=state.step < self.frozen)  # (V·B, K)
        terms = {
            "dino": self.dino_weight * self._distilled(together, views, state),
            "swapped": self._swapped(scores.unflatten(0, (len(h), -1)), state),
            "nearest": nearest_prototype(scores, contrast=self.contrast),
            "me_max": me_max(scores, temperature=self.temperature, ranks=state.ranks),
        }
        if self.queue is not None:
            one, two = z.chunk(len(h))[:2]
            self.queue.push(torch.cat((one, two), dim=1), ranks=state.ranks)
        loss = torch.stack([*terms.values()]).sum()
        return {
            "loss": loss,
            "embedding": h[0].detach(),
            **{name: term.detach() for name, term in terms.items()},
        }

    def _distilled(self, h: Tensor, views: Sequence[Tensor], state: State) -> Tensor:
        """DINO's term of the student's embeddings of all views (V·B, width)."""
        guess = F.normalize(self.predictor(self.head(h)), dim=1)
        weight = self.last.weight
        if state.step < self.frozen_last:
            weight = weight.detach() + 0 * weight
        students = (guess @ weight.T).unflatten(0, (len(views), -1))  # (V, B, dino_out)
        teachers = self.teacher(torch.cat(list(views[:2]))).unflatten(0, (2, -1))
        loss = dino(
            students,
            teachers,
            self.centre.clone(),  # updated below, before the backward pass
            teacher_temperature=warmed(self.temperatures, self.warmup, state),
        )
        self.centre.copy_(move_center(self.centre, teachers, ranks=state.ranks))
        return loss

    def _swapped(self, scores: Tensor, state: State) -> Tensor:
        """SwAV's term of the scores of all views (V, B, K)."""
        in_use = self.queue if state.step >= self.queue_from else None
        return swav(
            scores,
            None if in_use is None else stored(in_use, self.prototypes, state.ranks),
            temperature=self.temperature,
            epsilon=self.epsilon,
            ranks=state.ranks,
        )

    def after_step(self, state: State) -> None:
        """Prototypes keep their length, the teacher follows."""
        self.prototypes.normalise()
        momentum = cosine_momentum(self.momentum, state.step, state.steps)
        self.teacher.follow(nn.Sequential(self.encoder, self.head, _Unit(), self.last), momentum)


def first_parts(encoder: nn.Module, blocks: int) -> list[nn.Module]:
    """The patch embedding and the first ``blocks`` blocks of a Transformer; none of 0.

    Raises:
        UsageError: if it has fewer blocks.
    """
    if not blocks:
        return []
    for module in encoder.modules():
        own = getattr(module, "blocks", None)
        if isinstance(own, nn.ModuleList | nn.Sequential) and len(own) >= blocks:
            names = ("patch_embed", "embed")
            before = [
                part for n in names if isinstance(part := getattr(module, n, None), nn.Module)
            ]
            return [*before, *list(own)[:blocks]]
    raise UsageError(
        f"method.frozen_blocks: encoder {type(encoder).__name__} has no {blocks} blocks to hold. "
        "Choose a Vision Transformer, or set it to 0."
    )


def perceptron(width: int, hidden: int, out: int) -> nn.Sequential:
    """(B, width) → (B, out), one hidden layer with batch normalisation and GELU."""
    return nn.Sequential(
        nn.Linear(width, hidden), nn.BatchNorm1d(hidden), nn.GELU(), nn.Linear(hidden, out)
    )


def _as_dino(layer: nn.Module) -> None:
    if isinstance(layer, nn.Linear):
        nn.init.trunc_normal_(layer.weight, std=0.02)
        nn.init.zeros_(layer.bias)


class _Unit(nn.Module):
    """Rows of length 1."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, F) → (B, F)."""
        return F.normalize(x, dim=1)
