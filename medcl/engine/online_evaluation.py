"""Online evaluation of the encoder during training: collapse monitors, kNN and linear probe."""

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

from medcl.engine import monitors, online_probes
from medcl.engine.data import PARTNER, Selection, some_pairs, tensor
from medcl.engine.module import Pretraining
from medcl.methods.contract import View
from medcl.recipe import Monitor
from medcl.seeds import ONLINE, derive, generator

log = logging.getLogger("medcl.engine")


class OnlineEvaluation(Callback):
    """Every ``monitor.every`` steps, embeds the same training samples and computes metrics on them.

    The encoder is in evaluation mode and has no projector, as it will be saved. The state and the
    random numbers of training do not change. Columns: ``spread`` (1 healthy, 0 collapsed),
    ``effective_rank``, ``rankme``, ``uniformity``, ``lidar`` and ``alignment`` of two positives;
    where there are class labels ``knn`` and ``linear``, the balanced accuracy of nearest neighbours
    and of a logistic regression between two halves of the training patients.
    """

    def __init__(self, monitor: Monitor, selection: Selection, labelled: Selection | None) -> None:
        self.monitor = monitor
        self.selection = selection
        self.labelled = labelled
        self.initial_spread: float | None = None  # of the untrained encoder
        self.warnings: list[str] = []

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run restores from its checkpoint."""
        return {"first": self.initial_spread, "warnings": self.warnings}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.initial_spread, self.warnings = state["first"], list(state["warnings"])

    def on_train_start(self, trainer: Trainer, module: Pretraining) -> None:  # type: ignore[override]
        """Evaluate the untrained encoder, which is the baseline."""
        if trainer.global_step == 0:
            self._evaluate(trainer, module)

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, module: Pretraining, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After the last micro-batch of a step that is due."""
        accumulate = module.recipe.trainer.accumulate
        step = trainer.global_step
        due = step % self.monitor.every == 0 or step == module.recipe.trainer.steps
        if (batch_idx + 1) % accumulate == 0 and due:
            self._evaluate(trainer, module)

    def _evaluate(self, trainer: Trainer, module: Pretraining) -> None:
        evaluation = _Evaluation(module, trainer.precision_plugin.forward_context, self.monitor)
        with evaluating(module.method.encoder), gathered(module.method):
            metrics = evaluation.collapse_metrics(self.selection)
            if self.labelled is not None:
                metrics |= evaluation.probes(self.labelled)
        if self.initial_spread is None:
            self.initial_spread = metrics["spread"]
        module.online_metrics = metrics
        self._warn(trainer, metrics)

    def _warn(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        if trainer.global_step == 0:
            return  # before training, nothing can have collapsed
        problem = monitors.verdict(
            metrics["spread"], metrics["effective_rank"], self.initial_spread or 0.0
        )
        if problem is None or problem in self.warnings:
            return
        self.warnings.append(problem)
        if trainer.is_global_zero:
            log.warning("Step %d: %s", trainer.global_step, problem)


class _Evaluation:
    """One evaluation of the encoder as it is now."""

    def __init__(self, module: Pretraining, precision: Callable[[], Any], monitor: Monitor) -> None:
        self.module, self.precision, self.monitor = module, precision, monitor

    def collapse_metrics(self, selection: Selection) -> dict[str, float]:
        """Spread, ranks, alignment and uniformity."""
        candidates = selection.partners if any(v.source for v in self.positives()) else None
        random = np.random.default_rng(derive(self.seed, ONLINE))
        anchors, partners = some_pairs(selection.patients, self.monitor.samples, random, candidates)
        embedding = self.embed(selection, anchors)
        first, second = self.positives()
        x = self.embed(selection, anchors, first, partners)
        y = self.embed(selection, anchors, second, partners, draw=1)
        return {
            "spread": float(monitors.spread(embedding)),
            "effective_rank": float(monitors.effective_rank(embedding)),
            "rankme": float(monitors.rankme(embedding)),
            "lidar": float(monitors.lidar(torch.stack([x, y]))),
            "alignment": float(monitors.alignment(x, y)),
            "uniformity": float(monitors.uniformity(embedding)),
        }

    def positives(self) -> tuple[View, View]:
        """The method's first view and the next of its kind, or the first view twice."""
        first, *others = self.module.method.views
        same_kind = [view for view in others if view.kind == first.kind]
        return first, same_kind[0] if same_kind else first

    def probes(self, labelled: Selection) -> dict[str, float]:
        """Both between two halves of the patients; empty where they cannot be computed."""
        assert labelled.label is not None
        random = np.random.default_rng(derive(self.seed, ONLINE, 1))
        known = random.permutation(np.flatnonzero(labelled.label >= 0))[: self.monitor.samples]
        half = random.permutation(int(labelled.patients.max()) + 1)[labelled.patients[known]] % 2
        label = labelled.label[known]
        bank = half == 0
        query = (half == 1) & np.isin(label, label[bank])
        if len(np.unique(label[bank])) < 2 or not query.any():
            return {}
        x, y = self.embed(labelled, known), torch.from_numpy(label)
        halves = x[bank], y[bank], x[query], y[query]
        return {
            "knn": online_probes.knn(*halves, neighbours=self.monitor.neighbours),
            "linear": online_probes.linear(*halves),
        }

    @torch.no_grad()
    def embed(
        self,
        selection: Selection,
        positions: np.ndarray,
        view: View | None = None,
        partners: np.ndarray | None = None,
        draw: int = 0,
    ) -> Tensor:
        """Embeddings (N, width) on the CPU, of samples as they are, or of one view of each."""
        if view is not None and view.source and partners is not None:
            positions = partners
        module, size, parts = self.module, self.module.recipe.trainer.batch_size, []
        for start in range(0, len(positions), size):
            rows = selection.rows[positions[start : start + size]]
            x = tensor(selection.samples.read(rows)["x"]).to(module.device)
            if view is None:
                x = x.float()
            else:
                random = generator(module.device, self.seed, ONLINE, 2, start, draw)
                x = module.view(view, {"x": x, PARTNER + "x": x}, random)
            with self.precision():
                parts.append(module.method.encoder(x).float().cpu())
        return torch.cat(parts)

    @property
    def seed(self) -> int:
        return self.module.recipe.seed


@contextmanager
def gathered(method: object) -> Iterator[None]:
    """Under FSDP, gather all weights: the encoder is called without the method."""
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
    """Evaluation mode within the context; afterwards every submodule has its previous mode."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode
