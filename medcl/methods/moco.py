"""MoCo: negatives from a momentum encoder; in a queue (v2), or all in the batch (v3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from medcl.methods.contract import State
from medcl.methods.views import Positives, pair
from medcl.nn.ema import Momentum, cosine_momentum
from medcl.nn.encoders import width_of
from medcl.nn.heads import mlp
from medcl.nn.queue import Queue
from medcl.nn.vit import ViT
from medcl.objectives.info_nce import info_nce


class MoCoV2(nn.Module):
    """He 2020, arXiv 1911.05722, with the MLP head of Chen 2020, arXiv 2003.04297.

    L = InfoNCE(q, k⁺; queue), q from view 1, k⁺ from view 2 by the momentum copy. The queue also
    stores patients, so that earlier keys of the same patient are not negatives.

    The paper shuffles samples over GPUs, because batch statistics that a query shares with its key
    reveal the key. We do not: synchronised batch normalisation (the default of medcl's trainer)
    computes them over a larger batch, which reduces this leak without removing it. Encoders with
    group or layer normalisation do not leak.

    Args:
        encoder: (B, ...) → (B, width).
        positives: "instance" or "patient", as in SimCLR.
        temperature: τ.
        momentum: m of the copy, constant.
        queue: number of keys in the queue, over all ranks (paper: 65,536).
        hidden: width of the projector's hidden layer (paper: 2048).
        out: width of the projections.
        mask_same_patient: keep keys of the query's patient out of its negatives.
    """

    needs: tuple[str, ...] = ()

    def __init__(
        self,
        encoder: nn.Module,
        *,
        positives: Positives = "instance",
        temperature: float = 0.2,
        momentum: float = 0.999,
        queue: int = 16384,
        hidden: int = 2048,
        out: int = 128,
        mask_same_patient: bool = True,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.views = pair(positives)
        self.projector = mlp((width_of(encoder), hidden, out), norm=False)
        self.target = Momentum(nn.Sequential(encoder, self.projector))
        self.queue = Queue(queue, out)
        self.temperature, self.momentum = temperature, momentum
        self.mask_same_patient = mask_same_patient

    def step(
        self, views: Sequence[Tensor], batch: Mapping[str, Tensor], state: State
    ) -> dict[str, Tensor]:
        """See `medcl.methods.contract.Method.step`."""
        h = self.encoder(views[0])  # (B, width)
        q = self.projector(h)  # (B, out)
        k = self.target(views[1])  # (B, out)
        masked = self.mask_same_patient
        loss = info_nce(
            q,
            k,
            temperature=self.temperature,
            negatives=self.queue.keys,
            group=batch["patient"] if masked else None,
            negative_group=self.queue.patients if masked else None,
            in_batch=False,
            ranks=state.ranks,
        )
        self.queue.push(k, patients=batch["patient"], ranks=state.ranks)
        return {"loss": loss, "embedding": h.detach()}

    def after_step(self, state: State) -> None:
        """The copy follows the encoder and projector."""
        self.target.follow(nn.Sequential(self.encoder, self.projector), self.momentum)


class MoCoV3(nn.Module):
    """Chen 2021, arXiv 2104.02057: no queue, a predictor, both directions.

    L = ½(InfoNCE(p1, k2) + InfoNCE(p2, k1)) with the batch's keys as negatives. The paper scales
    the loss by 2τ, which the learning rate can absorb; we do not. m rises to 1 on a cosine.

    Args:
        encoder: (B, ...) → (B, width).
        positives: "instance" or "patient", as in SimCLR.
        temperature: τ.
        momentum: m of the copy at the start.
        hidden: width of hidden layers (paper: 4096).
        out: width of the projections (paper: 256).
        freeze_patches: keep a Transformer's first projection, of patches, as it was drawn, which
            makes training stable (paper, section 4.2). Other encoders have none.
        mask_same_patient: keep keys of the query's patient out of its negatives.
    """

    needs: tuple[str, ...] = ()

    def __init__(
        self,
        encoder: nn.Module,
        *,
        positives: Positives = "instance",
        temperature: float = 0.2,
        momentum: float = 0.99,
        hidden: int = 1024,
        out: int = 256,
        freeze_patches: bool = True,
        mask_same_patient: bool = True,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        if freeze_patches and isinstance(encoder, ViT):
            encoder.embed.requires_grad_(False)
        self.views = pair(positives)
        self.projector = mlp((width_of(encoder), hidden, hidden, out), last_norm=True)
        self.predictor = mlp((out, hidden, out), last_norm=True)
        self.target = Momentum(nn.Sequential(encoder, self.projector))
        self.temperature, self.momentum = temperature, momentum
        self.mask_same_patient = mask_same_patient

    def step(
        self, views: Sequence[Tensor], batch: Mapping[str, Tensor], state: State
    ) -> dict[str, Tensor]:
        """See `medcl.methods.contract.Method.step`."""
        h = [self.encoder(view) for view in views]  # (B, width) each
        p1, p2 = (self.predictor(self.projector(each)) for each in h)  # (B, out) each
        k1, k2 = (self.target(view) for view in views)  # (B, out) each
        group = batch["patient"] if self.mask_same_patient else None
        loss1, loss2 = (
            info_nce(p, k, temperature=self.temperature, group=group, ranks=state.ranks)
            for p, k in ((p1, k2), (p2, k1))
        )
        return {"loss": (loss1 + loss2) / 2, "embedding": h[0].detach()}

    def after_step(self, state: State) -> None:
        """The copy follows the encoder and projector."""
        momentum = cosine_momentum(self.momentum, state.step, state.steps)
        self.target.follow(nn.Sequential(self.encoder, self.projector), momentum)
