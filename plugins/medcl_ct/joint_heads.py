"""Cluster agreement between two views, in the two variants of the joint method."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medcl.methods.contract import State
from medcl.nn.prototypes import Prototypes, cluster_sphere
from medcl.nn.queue import Queue
from medcl.objectives.deepcluster import deepcluster
from medcl.objectives.swav import swav


class SwAVHead(nn.Module):
    """Learnt prototypes, balanced codes (Caron 2020, arXiv 2006.09882).

    Args:
        width: of the embeddings.
        prototypes: how many.
        temperature: τ.
        epsilon: of Sinkhorn.
        iterations: of Sinkhorn.
        frozen: steps during which the prototypes do not move.
        queue: embeddings of earlier batches that take part in the balance; needed where a batch
            holds fewer samples than there are prototypes.
    """

    def __init__(
        self,
        width: int,
        prototypes: int,
        temperature: float,
        epsilon: float,
        iterations: int,
        frozen: int,
        queue: int,
    ) -> None:
        super().__init__()
        self.prototypes = Prototypes(width, prototypes)
        self.queues = nn.ModuleList(Queue(queue, width) for _ in range(2 if queue else 0))
        self.temperature, self.epsilon = temperature, epsilon
        self.iterations, self.frozen = iterations, frozen

    def loss(self, z: Tensor, state: State) -> Tensor:
        """Unit embeddings of two views (2, M, width) → scalar."""
        scores = self.prototypes(z, held=state.step < self.frozen)  # (2, M, K)
        older = None
        if len(self.queues):
            queues = [cast(Queue, queue) for queue in self.queues]
            keys = [queue.keys for queue in queues]  # before this batch joins them
            for queue, each in zip(queues, z.detach(), strict=True):
                queue.push(each, ranks=state.ranks)
            share = len(keys[0]) // state.ranks.world  # the ranks share the queue out
            mine = slice(share * state.ranks.rank, share * (state.ranks.rank + 1))
            if share:
                with torch.no_grad():
                    older = torch.stack([self.prototypes(k[mine]) for k in keys])
        return swav(
            scores,
            older,
            temperature=self.temperature,
            epsilon=self.epsilon,
            iterations=self.iterations,
            ranks=state.ranks,
        )

    def settle(self, state: State) -> None:
        """Prototypes back onto the unit sphere."""
        self.prototypes.normalise()


class DeepClusterHead(nn.Module):
    """Centroids of k-means over recent embeddings (DeepCluster-v2, arXiv 2006.09882, appendix).

    A sample belongs to the centroid nearest to the mean of its two views.

    Args:
        width: of the embeddings.
        clusters: numbers of clusters, one k-means each.
        temperature: τ.
        memory: embeddings kept, over all ranks.
        every: steps between two runs of k-means.
        rounds: k-means iterations.
    """

    clustered: Tensor  # () whether there are centroids yet

    def __init__(
        self,
        width: int,
        clusters: tuple[int, ...],
        temperature: float,
        memory: int,
        every: int,
        rounds: int,
    ) -> None:
        super().__init__()
        self.memory = Queue(memory, width)
        self.centroids = nn.ParameterList(
            nn.Parameter(torch.zeros(count, width), requires_grad=False) for count in clusters
        )
        self.register_buffer("clustered", torch.tensor(False))
        self._ready = False  # `clustered`, for the host, which would wait for a device's flag
        self.register_load_state_dict_post_hook(_reread)
        self.temperature, self.every, self.rounds = temperature, every, rounds

    def loss(self, z: Tensor, state: State) -> Tensor:
        """Unit embeddings of two views (2, M, width) → scalar."""
        with torch.no_grad():
            middle = F.normalize(z.mean(dim=0), dim=1)  # (M, width)
            self.memory.push(middle, ranks=state.ranks)
        if not self._ready:
            self._cluster()
        losses = [
            deepcluster(
                z @ centroids.T,
                (middle @ centroids.T).argmax(dim=1),
                temperature=self.temperature,
                ranks=state.ranks,
            )
            for centroids in self.centroids
        ]
        return torch.stack(losses).mean()

    @torch.no_grad()
    def _cluster(self) -> None:
        keys = self.memory.keys
        for centroids in self.centroids:
            # The same on all ranks without a word between them, as the memory is.
            first = keys[torch.linspace(0, len(keys) - 1, len(centroids)).long()]
            centroids.copy_(cluster_sphere(keys, first, self.rounds))
        self.clustered.fill_(True)
        self._ready = True

    def settle(self, state: State) -> None:
        """k-means when its time has come."""
        if self._ready and (state.step + 1) % self.every == 0:
            self._cluster()


def _reread(head: DeepClusterHead, _keys: object) -> None:
    head._ready = bool(head.clustered)
