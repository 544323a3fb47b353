"""The one adapter between a `Method`, a plugin's views and Lightning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.utils.data import DataLoader

from medcl.classifiers.encoding import rates
from medcl.engine import optim
from medcl.engine.batchnorm import SyncLayers
from medcl.engine.data import PARTNER, Batches, Selection, loader
from medcl.errors import UsageError
from medcl.methods.contract import ConstantRate, Method, State, View, after_step
from medcl.nn.distributed import ranks
from medcl.nn.micro_batches import MicroBatches
from medcl.plugin import Views
from medcl.recipe import Recipe
from medcl.seeds import STEP, VIEW, generator, reseed


class Pretraining(LightningModule):
    """Runs ``method.step`` on augmented batches; everything random comes from (seed, micro-batch).

    Callbacks read these after a step:

    Attributes:
        scalars: what the method returned, one mapping for each micro-batch of the current step.
        embedding: (B, width) of the last micro-batch.
        lr: the learning rate of the last optimiser step.
        online_metrics: of the online evaluation at this step; empty at most steps.
    """

    def __init__(
        self,
        method: Method,
        augment: Views,
        selection: Selection,
        recipe: Recipe,
        micro_batches: MicroBatches | None = None,
    ) -> None:
        super().__init__()
        assert isinstance(method, nn.Module)
        self.method = method
        self.micro_batches = micro_batches
        self.augment = augment
        self.selection = selection
        self.recipe = recipe
        self.scalars: list[dict[str, Tensor]] = []
        self.embedding = torch.empty(0)
        self.lr = 0.0
        self.online_metrics: dict[str, float] = {}

    def train_dataloader(self) -> DataLoader[tuple[int, dict[str, Tensor]]]:
        """Batches from the current micro-batch on. Lightning has restored the checkpoint by now."""
        trainer = self.recipe.trainer
        batches = Batches(
            self.selection,
            batch_size=trainer.batch_size,
            seed=self.recipe.seed,
            pairs=any(view.source for view in self.method.views),
            rank=self.global_rank,
            world=self.trainer.world_size,
            anew="label" not in self.method.needs,
        )
        return loader(
            batches,
            first=self.global_step * trainer.accumulate,
            total=trainer.steps * trainer.accumulate,
            workers=trainer.workers,
            pin_memory=self.device.type == "cuda",
        )

    def configure_optimizers(self) -> Any:
        """The recipe's optimiser, its learning rate set at every step."""
        settings, steps = self.recipe.optimizer, self.recipe.trainer.steps
        by_layer = rates(self.method.encoder, settings.layer_decay)
        optimizer, scheduler = optim.build(
            self.method,
            settings,
            steps,
            rate=None
            if settings.layer_decay == 1
            else lambda name: by_layer.get(name.removeprefix("encoder."), 1.0),
            constant=self.method.constant_rate if isinstance(self.method, ConstantRate) else (),
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def configure_model(self) -> None:
        """Under strategy fsdp: every rank keeps its part of the weights (FSDP2)."""
        if self.recipe.trainer.strategy != "fsdp" or isinstance(self.method, FSDPModule):
            return
        if self.recipe.trainer.sync_batchnorm:
            SyncLayers().apply(self)
        assert self.device_mesh is not None
        fully_shard(self.method, mesh=self.device_mesh["data_parallel"])
        register_fsdp_forward_method(self.method, "step")

    def training_step(self, numbered: tuple[int, dict[str, Tensor]], batch_idx: int) -> Tensor:
        """One micro-batch: augment, then the method's step."""
        number, batch = numbered
        step, micro = divmod(number, self.recipe.trainer.accumulate)
        reseed(self.device, self.recipe.seed, STEP, number, self.global_rank)  # dropout
        views = [
            self.drawn_view(view, batch, number, v) for v, view in enumerate(self.method.views)
        ]
        result = self.method.step(views, batch, self._state(step))
        if self.micro_batches is not None and not self.micro_batches.used:
            raise UsageError(
                f"{type(self.method).__name__} does not call its encoder as a whole, so "
                "trainer.micro_batch would change nothing: leave it out, and lower "
                "trainer.batch_size."
            )
        if micro == 0:
            self.scalars = []
        self.scalars.append({k: v.detach() for k, v in result.items() if v.ndim == 0})
        self.embedding = result["embedding"]
        return result["loss"]

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None
    ) -> None:
        """Update the weights, then call the method's `after_step`."""
        step = self.global_step
        self.lr = optimizer.param_groups[0]["lr"]
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        after_step(self.method, self._state(step))

    def view(self, view: View, batch: Mapping[str, Tensor], random: torch.Generator) -> Tensor:
        """One augmented input, in float32, outside autograd: (B, ...)."""
        x = batch[PARTNER + "x" if view.source else "x"].float()
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            return self.augment(x, random, view.kind)

    def drawn_view(
        self, view: View, batch: Mapping[str, Tensor], number: int, index: int
    ) -> Tensor:
        """`view` number ``index`` of micro-batch ``number``, with its own random numbers."""
        key = (VIEW, number, self.global_rank, index)
        return self.view(view, batch, generator(self.device, self.recipe.seed, *key))

    def _state(self, step: int) -> State:
        return State(step, self.recipe.trainer.steps, ranks())
