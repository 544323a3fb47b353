"""CTVIS: patients are told apart by a momentum memory of each, in which some are mistaken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medcl.methods.contract import State, View
from medcl.methods.views import encode
from medcl.nn.encoders import width_of
from medcl.nn.heads import projector
from medcl.nn.identities import Identities
from medcl.objectives.precision import full, widened
from medcl.objectives.unit import unit

_NONE = -1e9  # a similarity of what is left out: its exponential is zero, and its gradient too


class CTVIS(nn.Module):
    """Ying 2023 (ICCV), arXiv 2307.12616: training like the tracker, of patients for objects.

    A tracker knows an object by a memory of its earlier embeddings (`medcl.nn.identities`), and is
    now and then mistaken; training that compares two samples alone never meets either. So here:

    L = mean over samples v of log(1 + Σ_{k⁻} Σ_{k⁺} exp(v·k⁻ − v·k⁺))

    k⁺ are another sample of the patient and the patient's memory, before this step; k⁻ the memories
    of all other patients, and their samples in the batch. A share ``noise`` of the samples enters
    the memory under the name of another patient.

    Three things differ. The authors' memory lives for one clip and passes gradients, here it lives
    for the whole training. They flip a coin between memory and last embedding for k⁺, here it is
    both. And v·k is a cosine over τ, so that their auxiliary loss on the cosine has no place.

    Args:
        encoder: (B, ...) → (B, width).
        temperature: τ.
        noise: share of the samples that are remembered as another patient's (code: 0.05 or less).
        memory: patients that are remembered; of two that share a place the later one is.
        hidden: width of the projector's hidden layer.
        out: width of the projections.
    """

    needs: tuple[str, ...] = ()

    def __init__(
        self,
        encoder: nn.Module,
        *,
        temperature: float = 0.1,
        noise: float = 0.05,
        memory: int = 16384,
        hidden: int = 512,
        out: int = 128,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.views = (View(), View(source=1))
        self.projector = projector(width_of(encoder), hidden, out)
        self.memory = Identities(memory, out)
        self.temperature, self.noise = temperature, noise

    def step(
        self, views: Sequence[Tensor], batch: Mapping[str, Tensor], state: State
    ) -> dict[str, Tensor]:
        """See `medcl.methods.contract.Method.step`; ``known``: patients that were remembered."""
        patients, ranks = batch["patient"], state.ranks
        h1, h2 = encode(self.encoder, views)  # (B, width) each
        v, k = (unit(z, 1.0) for z in self.projector(torch.cat([h1, h2])).chunk(2))
        average, owners = self.memory.average.clone(), self.memory.owners.clone()
        remembered, known = average[patients % len(owners)], self.memory.knows(patients)
        others = torch.cat([average.to(k.dtype), ranks.gather(k)])  # (memory + N, out)
        names = torch.cat([owners, ranks.gather(patients)])
        against = (names >= 0) & (names != patients[:, None])  # (B, memory + N)
        with full(v):
            s = widened(v) @ widened(others).T / self.temperature
        negatives = s.masked_fill(~against, _NONE).logsumexp(dim=1)  # (B,)
        near = torch.stack([(v * k).sum(1), (v * remembered.to(v.dtype)).sum(1)]) / self.temperature
        here = torch.stack([torch.ones_like(known), known])
        positives = (-near).masked_fill(~here, _NONE).logsumexp(dim=0)  # (B,)
        loss = F.softplus(negatives + positives).mean()
        self.memory.remember(k, patients, noise=self.noise, ranks=ranks)
        return {"loss": loss, "embedding": h1.detach(), "known": known.float().mean()}
