"""DeepCluster-v2: the encoder predicts clusters that k-means finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medcl.methods.contract import State
from medcl.methods.views import Positives, encode, pair
from medcl.nn.encoders import width_of
from medcl.nn.heads import projector
from medcl.nn.prototypes import cluster_sphere
from medcl.nn.queue import Queue
from medcl.objectives.deepcluster import deepcluster


class DeepClusterV2(nn.Module):
    """Caron 2020, arXiv 2006.09882, section 4.2 and appendix: L = CE(z·C/τ, nearest centroid).

    Every ``every`` steps, spherical k-means over the memory gives the centroids C (for several
    numbers of clusters at once: ``clusters``), which get no gradient. Each view is classified as
    the *other* view's embedding is now assigned.

    The paper assigns a sample by its embedding of the previous epoch, for which it stores all
    embeddings.
    Here the memory is a queue of recent embeddings, so that its size does not grow with the
    archive, and the assignment uses the current embedding of the other view.

    Args:
        encoder: (B, ...) → (B, width).
        positives: "instance" or "patient", as in SimCLR.
        clusters: number of clusters of each of the k-means (paper: 3000 thrice).
        temperature: τ.
        memory: number of embeddings in the queue for k-means, over all ranks.
        every: steps between two runs of k-means.
        rounds: k-means iterations.
        local: number of small crops, in addition to the two global views.
        hidden: width of the projector's hidden layer (paper: 2048).
        out: width of the projections.
    """

    needs: tuple[str, ...] = ()
    clustered: Tensor  # () whether there are centroids yet

    def __init__(
        self,
        encoder: nn.Module,
        *,
        positives: Positives = "instance",
        clusters: tuple[int, ...] = (300, 300, 300),
        temperature: float = 0.1,
        memory: int = 16384,
        every: int = 200,
        rounds: int = 10,
        local: int = 0,
        hidden: int = 512,
        out: int = 128,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.views = pair(positives, local)
        self.projector = projector(width_of(encoder), hidden, out)
        self.memory = Queue(memory, out)
        self.centroids = nn.ParameterList(
            nn.Parameter(torch.zeros(count, out), requires_grad=False) for count in clusters
        )
        self.register_buffer("clustered", torch.tensor(False))
        self._ready = False  # `clustered`, for the host, which would wait for a device's flag
        self.register_load_state_dict_post_hook(_reread)
        self.temperature, self.every, self.rounds = temperature, every, rounds

    def step(
        self, views: Sequence[Tensor], batch: Mapping[str, Tensor], state: State
    ) -> dict[str, Tensor]:
        """See `medcl.methods.contract.Method.step`."""
        h = encode(self.encoder, views)  # (B, width) each
        z = F.normalize(self.projector(torch.cat(h)), dim=1).chunk(len(h))  # (B, out) each
        self.memory.push(z[0], ranks=state.ranks)
        if not self._ready:
            self._cluster(state.step)
        losses = [
            self._swapped(torch.stack([each @ centroids.T for each in z]))
            for centroids in self.centroids
        ]
        return {"loss": torch.stack(losses).mean(), "embedding": h[0].detach()}

    def _swapped(self, scores: Tensor) -> Tensor:
        """Predict each global view's cluster from all other views: (V, B, K) → scalar."""
        losses = []
        for a in (0, 1):
            others = [v for v in range(len(scores)) if v != a]
            cluster = scores[a].detach().argmax(dim=1)  # (B,)
            losses.append(deepcluster(scores[others], cluster, temperature=self.temperature))
        return torch.stack(losses).mean()

    @torch.no_grad()
    def _cluster(self, step: int) -> None:
        keys = self.memory.keys
        for head, centroids in enumerate(self.centroids):
            # No communication: the queue is equal on all ranks, and so is this generator.
            generator = torch.Generator().manual_seed(step * len(self.centroids) + head)
            order = torch.randperm(len(keys), generator=generator)
            first = keys[order[torch.arange(len(centroids)) % len(order)].to(keys.device)]
            centroids.copy_(cluster_sphere(keys, first, self.rounds))
        self.clustered.fill_(True)
        self._ready = True

    def after_step(self, state: State) -> None:
        """Run k-means every ``every`` steps."""
        if (state.step + 1) % self.every == 0:
            self._cluster(state.step)


def _reread(method: DeepClusterV2, _keys: object) -> None:
    method._ready = bool(method.clustered)
