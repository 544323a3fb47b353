"""Looks at the encoder while it trains: collapse monitors and an online kNN probe."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from medcl.engine import knn, monitors
from medcl.engine.data import PARTNER, Selection, paired, tensor
from medcl.engine.module import Pretraining
from medcl.methods.contract import View
from medcl.recipe import Monitor
from medcl.seeds import LOOK, derive, generator

log = logging.getLogger("medcl.engine")


class OnlineEvaluation(Callback):
    """Every ``monitor.every`` steps, embeds the same training samples and judges the result.

    The encoder is looked at in evaluation mode, before any projector: what would be kept. Nothing
    that training draws or holds changes. Columns: ``spread`` (1 healthy, 0 collapsed),
    ``effective_rank``, ``alignment`` of two positives, ``uniformity``, and ``knn`` (balanced
    accuracy between two halves of the training patients, where there are class labels).
    """

    def __init__(self, monitor: Monitor, selection: Selection, labelled: Selection | None) -> None:
        self.monitor = monitor
        self.selection = selection
        self.labelled = labelled
        self.first: float | None = None  # spread of the untrained encoder
        self.warnings: list[str] = []

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must remember."""
        return {"first": self.first, "warnings": self.warnings}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.first, self.warnings = state["first"], list(state["warnings"])

    def on_train_start(self, trainer: Trainer, module: Pretraining) -> None:  # type: ignore[override]
        """The untrained encoder is the baseline."""
        if trainer.global_step == 0:
            self._look(trainer, module)

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, module: Pretraining, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After the last micro-batch of a step that is due."""
        accumulate = module.recipe.trainer.accumulate
        step = trainer.global_step
        due = step % self.monitor.every == 0 or step == module.recipe.trainer.steps
        if (batch_idx + 1) % accumulate == 0 and due:
            self._look(trainer, module)

    def _look(self, trainer: Trainer, module: Pretraining) -> None:
        look = _Look(module, trainer.precision_plugin.forward_context, self.monitor)
        with evaluating(module.method.encoder), gathered(module.method):
            seen = look.health(self.selection)
            if self.labelled is not None:
                seen |= look.neighbours(self.labelled)
        if self.first is None:
            self.first = seen["spread"]
        module.looked = seen
        self._judge(trainer, seen)

    def _judge(self, trainer: Trainer, seen: dict[str, float]) -> None:
        if trainer.global_step == 0:
            return  # before training, nothing can have collapsed
        problem = monitors.verdict(seen["spread"], seen["effective_rank"], self.first or 0.0)
        if problem is None or problem in self.warnings:
            return
        self.warnings.append(problem)
        if trainer.is_global_zero:
            log.warning("Step %d: %s", trainer.global_step, problem)


class _Look:
    """One look: which samples, embedded how."""

    def __init__(self, module: Pretraining, precision: Callable[[], Any], monitor: Monitor) -> None:
        self.module, self.precision, self.monitor = module, precision, monitor

    def health(self, selection: Selection) -> dict[str, float]:
        """Spread, rank, alignment and uniformity."""
        near = selection.partners if any(v.source for v in self.positives()) else None
        anchors, partners = paired(selection.patients, derive(self.seed, LOOK), 0, near)
        _, once = np.unique(anchors[: self.monitor.samples], return_index=True)
        anchors, partners = anchors[once], partners[once]
        plain = self.embed(selection, anchors)
        one, two = self.positives()
        x = self.embed(selection, anchors, one, partners)
        y = self.embed(selection, anchors, two, partners, draw=1)
        return {
            "spread": float(monitors.spread(plain)),
            "effective_rank": float(monitors.effective_rank(plain)),
            "alignment": float(monitors.alignment(x, y)),
            "uniformity": float(monitors.uniformity(plain)),
        }

    def positives(self) -> tuple[View, View]:
        """The method's first two views if they are of one kind, or its first view drawn twice."""
        first, *others = self.module.method.views
        alike = [view for view in others if view.kind == first.kind]
        return first, alike[0] if alike else first

    def neighbours(self, labelled: Selection) -> dict[str, float]:
        """kNN between two halves of the patients; nothing where that cannot be computed."""
        assert labelled.label is not None
        random = np.random.default_rng(derive(self.seed, LOOK, 1))
        known = random.permutation(np.flatnonzero(labelled.label >= 0))[: self.monitor.samples]
        half = random.permutation(int(labelled.patients.max()) + 1)[labelled.patients[known]] % 2
        label = labelled.label[known]
        bank = half == 0
        query = (half == 1) & np.isin(label, label[bank])
        if len(np.unique(label[bank])) < 2 or not query.any():
            return {}
        x, y = self.embed(labelled, known), torch.from_numpy(label)
        score = knn.balanced_accuracy(
            x[bank], y[bank], x[query], y[query], neighbours=self.monitor.neighbours
        )
        return {"knn": score}

    @torch.no_grad()
    def embed(
        self,
        selection: Selection,
        chosen: np.ndarray,
        view: View | None = None,
        partners: np.ndarray | None = None,
        draw: int = 0,
    ) -> Tensor:
        """Embeddings (N, width) on the CPU of the samples as they are, or of one view of each."""
        if view is not None and view.source and partners is not None:
            chosen = partners
        module, size, parts = self.module, self.module.recipe.trainer.batch_size, []
        for start in range(0, len(chosen), size):
            rows = selection.rows[chosen[start : start + size]]
            x = tensor(selection.samples.read(rows)["x"]).to(module.device)
            if view is None:
                x = x.float()
            else:
                random = generator(module.device, self.seed, LOOK, 2, start, draw)
                x = module.view(view, {"x": x, PARTNER + "x": x}, random)
            with self.precision():
                parts.append(module.method.encoder(x).float().cpu())
        return torch.cat(parts)

    @property
    def seed(self) -> int:
        return self.module.recipe.seed


@contextmanager
def gathered(method: object) -> Iterator[None]:
    """Under FSDP, have all weights here for a while: the encoder is called without the method."""
    if not isinstance(method, FSDPModule):
        yield
        return
    method.unshard()
    try:
        yield
    finally:
        method.reshard()


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; every part gets back the mode that it had."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode
