"""Joint 2D/3D self-supervision: slices cluster, volumes cluster, hidden slices are predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medcl.errors import UsageError
from medcl.methods.contract import State, View
from medcl.nn.encoders import touch
from medcl.nn.heads import projector
from medcl.objectives.masked_embedding import masked_embedding
from medcl_ct.joint_heads import DeepClusterHead, SwAVHead


class SlicesAndVolumes(Protocol):
    """What the method asks of its encoder; `medcl_ct.encoders.joint.joint` is one."""

    width: int
    inter: nn.Module

    def slices(self, x: Tensor) -> Tensor:
        """(M, 1, H, W) → (M, width)."""
        ...

    def volumes(self, tokens: Tensor, depth: Tensor | None = None) -> Tensor:
        """(B, N, width), the first ``depth`` (B,) real → (B, width)."""
        ...


class Joint2D3D(nn.Module):
    """Nguyen 2023 (AAAI, arXiv 2212.01893): L = L_intra + L_inter + L_mask.

    Of two views s, t of a volume, f_intra embeds each slice (z_i) and f_inter mixes the slices of a
    view into one embedding Z of the volume.

    - L_intra: the same slice in both views belongs to the same cluster; of all slices in the batch,
      those of 2D-only images too.
    - L_inter: both views of a volume belong to the same cluster; prototypes of their own.
    - L_mask: some slice tokens are hidden, and f_inter predicts them from the others.

    The authors' code trains in three stages (slices; masking with slices frozen; volumes, without
    L_intra); the paper's joint objective is what this is. As there, masking teaches f_inter only:
    its inputs and targets are detached. The targets are normalised (as in data2vec,
    arXiv 2202.03555), as here the slice network moves while they are predicted. Cluster
    assignments of the released code collide between data sets (a sample's index is local to each);
    here there are no indices. Its volumes go to the prototypes without a projector; as volume
    embeddings share most of their direction, k-means then soon puts all of them into one cluster,
    so here they have a projector of their own, as slices do.

    Slice i of one view must be slice i of the other: choose views that keep slices in place
    (``views.slices``: consistent or independent) and all of them (no depth in ``views.size``).

    Mixed batches: samples are volumes (B, 1, D, H, W) with ``depth`` (B,), how many slices are
    real: an image is a volume of depth 1. It takes part in L_intra only, and padding is not
    encoded. A batch of slices (B, 1, H, W) is one of images.

    Args:
        encoder: embeds slices and volumes: encoder "joint".
        variant: the clustering: "swav" or "deepcluster".
        intra: weight of L_intra.
        inter: weight of L_inter.
        mask: weight of L_mask.
        slices_first: share of the training before L_inter sets in. While slices are not told apart
            yet, its gradient is noise, and a hundred times that of L_intra; the authors train the
            slice network first.
        mask_share: share of a volume's slices that are hidden; at least one.
        prototypes: slice clusters of SwAV (Wolf 2023, arXiv 2308.06534: 500).
        volume_prototypes: volume clusters of SwAV (authors: 3000).
        clusters: slice clusters of DeepCluster-v2, one k-means each.
        volume_clusters: volume clusters of DeepCluster-v2 (authors: 4, 4, 4).
        temperature: τ.
        epsilon: of Sinkhorn.
        iterations: of Sinkhorn.
        frozen: steps during which prototypes do not move (authors: 313).
        queue: slice embeddings that take part in SwAV's balance.
        volume_queue: volume embeddings that do; a batch holds few volumes.
        memory: slice embeddings kept for k-means.
        volume_memory: volume embeddings kept for k-means.
        every: steps between two runs of k-means.
        rounds: k-means iterations.
        hidden: width of the projectors' hidden layers.
        out: width of the projections.
    """

    needs: tuple[str, ...] = ()

    def __init__(
        self,
        encoder: nn.Module,
        *,
        variant: Literal["swav", "deepcluster"] = "swav",
        intra: float = 1.0,
        inter: float = 1.0,
        mask: float = 1.0,
        slices_first: float = 0.3,
        mask_share: float = 0.1,
        prototypes: int = 500,
        volume_prototypes: int = 300,
        clusters: tuple[int, ...] = (300, 300, 300),
        volume_clusters: tuple[int, ...] = (4, 4, 4),
        temperature: float = 0.1,
        epsilon: float = 0.05,
        iterations: int = 3,
        frozen: int = 313,
        queue: int = 0,
        volume_queue: int = 512,
        memory: int = 16384,
        volume_memory: int = 1024,
        every: int = 200,
        rounds: int = 10,
        hidden: int = 2048,
        out: int = 128,
    ) -> None:
        super().__init__()
        lacking = [name for name in ("slices", "volumes", "inter") if not hasattr(encoder, name)]
        if lacking:
            raise UsageError(
                f"Method 'joint2d3d' cannot train encoder {type(encoder).__name__}, which lacks "
                f"{', '.join(lacking)}: choose encoder 'joint'."
            )
        self.encoder = encoder
        self.views = (View(), View())
        width = self._parts.width
        self.projector = projector(width, hidden, out)
        self.volume_projector = projector(width, hidden, out)
        self.intra_head: SwAVHead | DeepClusterHead
        self.inter_head: SwAVHead | DeepClusterHead
        if variant == "swav":
            shared = (temperature, epsilon, iterations, frozen)
            self.intra_head = SwAVHead(out, prototypes, *shared, queue)
            self.inter_head = SwAVHead(out, volume_prototypes, *shared, volume_queue)
        else:
            self.intra_head = DeepClusterHead(out, clusters, temperature, memory, every, rounds)
            self.inter_head = DeepClusterHead(
                out, volume_clusters, temperature, volume_memory, every, rounds
            )
        self.hidden = nn.Parameter(torch.zeros(width))
        nn.init.normal_(self.hidden, std=0.02)
        self.decoder = nn.Linear(width, width)
        self.weights = {"intra": intra, "inter": inter, "mask": mask}
        self.mask_share, self.slices_first = mask_share, slices_first

    @property
    def _parts(self) -> SlicesAndVolumes:
        return cast(SlicesAndVolumes, self.encoder)

    def step(
        self, views: Sequence[Tensor], batch: Mapping[str, Tensor], state: State
    ) -> dict[str, Tensor]:
        """See `medcl.methods.contract.Method.step`; also returns intra, inter and mask."""
        x = torch.stack([v.unsqueeze(2) if v.dim() == 4 else v for v in views])  # (2,B,1,D,H,W)
        if x.dim() != 6 or x.shape[2] != 1:
            raise UsageError(f"joint2d3d takes slices or volumes, not {tuple(views[0].shape)}.")
        count, most = x.shape[1], x.shape[3]
        depth = batch.get("depth", torch.full((count,), most, device=x.device)).clamp(max=most)
        # From here on the host waits: how many slices are real decides the shapes of all losses.
        # To hide the others instead would encode them, which of images beside volumes are most.
        real = torch.arange(most, device=x.device) < depth[:, None]  # (B, D)
        row, place = real.nonzero(as_tuple=True)
        slices = x.transpose(2, 3)[:, row, place]  # (2, M, 1, H, W)
        z = self._parts.slices(slices.flatten(0, 1)).unflatten(0, (2, -1))  # (2, M, width)
        p = F.normalize(self.projector(z.flatten(0, 1)), dim=1).unflatten(0, (2, -1))
        tokens = z.new_zeros(2, count, most, z.shape[-1])
        tokens[:, row, place] = z  # (2, B, D, width)

        losses = {"intra": self.intra_head.loss(_even(p, state), state)}
        embedding = tokens[0, :, 0].detach()
        thick = (depth > 1).nonzero()[:, 0]
        if _fewest(len(thick), z.device, state):  # on all ranks, or on none
            pairs = tokens[:, thick].flatten(0, 1), depth[thick].repeat(2)
            volumes = self._parts.volumes(*pairs).unflatten(0, (2, -1))  # (2, V, width)
            losses["mask"] = self._predict(*pairs, state)
            if state.step >= self.slices_first * state.steps:
                heads = F.normalize(self.volume_projector(volumes.flatten(0, 1)), dim=1)
                agreeing = _even(heads.unflatten(0, (2, -1)), state)
                losses["inter"] = self.inter_head.loss(agreeing, state)
            embedding = embedding.index_copy(0, thick, volumes[0].detach())
        loss = sum((self.weights[name] * value for name, value in losses.items()), z.new_zeros(()))
        loss = loss + touch(self)  # a batch of images uses nothing of what mixes slices
        parts = {name: value.detach() for name, value in losses.items()}
        return {"loss": loss, "embedding": embedding, **parts}

    def _predict(self, tokens: Tensor, depth: Tensor, state: State) -> Tensor:
        """L_mask of tokens (V, D, width), the first ``depth`` (V,) real."""
        tokens = tokens.detach()
        hidden = self._hide(tokens, depth)
        shown = torch.where(hidden[..., None], self.hidden.to(tokens.dtype), tokens)
        guess = self.decoder(self._parts.inter(shown, depth))
        target = F.layer_norm(tokens, tokens.shape[-1:])
        return masked_embedding(guess, target, hidden, ranks=state.ranks)

    def _hide(self, tokens: Tensor, depth: Tensor) -> Tensor:
        """Which tokens of (V, D, width) to hide: (V, D), a share of the real ones."""
        index = torch.arange(tokens.shape[1], device=tokens.device)
        order = torch.rand(tokens.shape[:2], device=tokens.device)
        order = order.masked_fill(index >= depth[:, None], 2.0).argsort(dim=1).argsort(dim=1)
        count = (self.mask_share * depth).round().clamp_min(1)
        return order < count[:, None]

    def after_step(self, state: State) -> None:
        """Prototypes back onto the sphere, or k-means when its time has come."""
        self.intra_head.settle(state)
        self.inter_head.settle(state)


def _fewest(count: int, device: torch.device, state: State) -> int:
    """The smallest of the ranks' counts."""
    if state.ranks.world == 1:
        return count
    return int(state.ranks.gather(torch.tensor([count], device=device)).min())


def _even(z: Tensor, state: State) -> Tensor:
    """As many embeddings (2, M, width) as every rank has, evenly picked: clusters are shared."""
    if state.ranks.world == 1:
        return z
    count = _fewest(z.shape[1], z.device, state)
    return z[:, torch.linspace(0, z.shape[1] - 1, count, device=z.device).long()]
