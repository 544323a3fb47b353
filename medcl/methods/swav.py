"""SwAV: predict one view's cluster from another view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from medcl.methods.contract import State
from medcl.methods.views import Positives, encode, pair
from medcl.nn.distributed import Ranks
from medcl.nn.encoders import width_of
from medcl.nn.heads import projector
from medcl.nn.prototypes import Prototypes
from medcl.nn.queue import Queue
from medcl.objectives.swav import swav


class SwAV(nn.Module):
    """Caron 2020, arXiv 2006.09882: L = cross-entropy(softmax(z_s·C/τ), q_t), s ≠ t.

    The codes q_t of each global view are the scores made equipartite over prototypes by Sinkhorn,
    and every other view (local crops too) predicts them. Prototypes are unit vectors, renormalised
    after each step, and do not move during the first ``frozen`` steps.

    Args:
        encoder: (B, ...) → (B, width).
        positives: "instance" or "patient", as in SimCLR.
        prototypes: how many (paper: 3000; Wolf 2023 on CT slices: 500).
        temperature: τ.
        epsilon: Sinkhorn's entropy weight.
        iterations: of Sinkhorn.
        local: number of small crops, in addition to the two global views (multi-crop).
        frozen: steps during which prototypes do not move (paper: one epoch, 313 steps of ImageNet).
        queue: number of queued embeddings for the codes, for small batches; 0: none.
        queue_from: step at which the queue comes into use.
        hidden: width of the projector's hidden layer (paper: 2048).
        out: width of the projections.
    """

    needs: tuple[str, ...] = ()

    def __init__(
        self,
        encoder: nn.Module,
        *,
        positives: Positives = "instance",
        prototypes: int = 500,
        temperature: float = 0.1,
        epsilon: float = 0.05,
        iterations: int = 3,
        local: int = 0,
        frozen: int = 300,
        queue: int = 0,
        queue_from: int = 0,
        hidden: int = 512,
        out: int = 128,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.views = pair(positives, local)
        self.projector = projector(width_of(encoder), hidden, out)
        self.prototypes = Prototypes(out, prototypes)
        self.queue = Queue(queue, 2 * out) if queue else None  # both global views, concatenated
        self.temperature, self.epsilon, self.iterations = temperature, epsilon, iterations
        self.frozen, self.queue_from = frozen, queue_from

    def step(
        self, views: Sequence[Tensor], batch: Mapping[str, Tensor], state: State
    ) -> dict[str, Tensor]:
        """See `medcl.methods.contract.Method.step`."""
        h = encode(self.encoder, views)  # (B, width) each
        z = self.projector(torch.cat(h)).chunk(len(h))  # (B, out) each
        held = state.step < self.frozen
        scores = torch.stack([self.prototypes(each, held=held) for each in z])  # (V, B, prototypes)
        loss = swav(
            scores,
            self._stored(state),
            temperature=self.temperature,
            epsilon=self.epsilon,
            iterations=self.iterations,
            ranks=state.ranks,
        )
        if self.queue is not None:
            self.queue.push(torch.cat(z[:2], dim=1), ranks=state.ranks)
        return {"loss": loss, "embedding": h[0].detach()}

    def _stored(self, state: State) -> Tensor | None:
        """`stored`, once the queue is in use."""
        if self.queue is None or state.step < self.queue_from:
            return None
        return stored(self.queue, self.prototypes, state.ranks)

    def after_step(self, state: State) -> None:
        """Renormalise the prototypes to unit length."""
        self.prototypes.normalise()


@torch.no_grad()
def stored(queue: Queue, prototypes: Prototypes, ranks: Ranks) -> Tensor:
    """Scores of this rank's share of a queue of two views' embeddings: (2, Q, prototypes)."""
    share = queue.count // ranks.world  # ranks split the queue
    keys = queue.keys[share * ranks.rank :][:share]  # (Q, 2·out)
    return torch.stack([prototypes(view) for view in keys.chunk(2, dim=1)])
