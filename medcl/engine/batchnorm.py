"""Batch normalisation over the batches of all ranks, on a CPU too, where torch has none."""

from __future__ import annotations

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.plugins import LayerSync, TorchSyncBatchNorm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from medcl.nn.distributed import ranks


class SyncLayers(LayerSync):
    """Replaces batch norms by synchronised ones: torch's on a GPU, `RankNorm` elsewhere."""

    def apply(self, model: nn.Module) -> nn.Module:
        """Replace the batch norms."""
        if isinstance(model, LightningModule) and model.device.type == "cuda":
            return TorchSyncBatchNorm().apply(model)
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.__class__ = RankNorm
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        """Nothing to do: after training only the weights in the checkpoint are used."""
        return model


class RankNorm(_BatchNorm):
    """Batch norm with the mean and variance over all ranks, whose batches must have one size.

    (B, C, ...) → (B, C, ...). The gradient goes through the statistics to every rank, so W ranks
    × B train as one process with W·B does (Peng 2018, MegDet, arXiv 1711.07240).
    """

    def _check_input_dim(self, input: Tensor) -> None:
        pass  # the class that this one replaces has accepted such inputs

    def forward(self, x: Tensor) -> Tensor:
        """Normalise; in training also update the running statistics."""
        if not self.training and self.running_mean is not None:
            return super().forward(x)
        processes = ranks()
        dims = [0, *range(2, x.ndim)]
        shape = [1, -1, *[1] * (x.ndim - 2)]
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        mean = processes.mean(wide.mean(dims))  # (C,)
        centred = wide - mean.view(shape)
        variance = processes.mean(centred.square().mean(dims))  # (C,)
        self._update(mean, variance, processes.world * x.numel() // x.shape[1])
        out = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            out = out * self.weight.view(shape) + self.bias.view(shape)
        return out.to(x.dtype)

    @torch.no_grad()
    def _update(self, mean: Tensor, variance: Tensor, count: int) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        # momentum None means the plain average over all batches
        rate = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, rate)
        self.running_var.lerp_(variance * count / (count - 1), rate)
