"""One training of a network on patches, resumable at every epoch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medcl import recipe as recipes
from medcl.classifiers.contract import Classifier, Layerwise
from medcl.contract import MASK, X
from medcl.engine import optim
from medcl.errors import MedclError, UsageError
from medcl.finetune.loop import on
from medcl.io.atomic import replacing
from medcl.methods.contract import State
from medcl.plugin import Samples, Views
from medcl.seeds import DRAW, MODEL, ORDER, STEP, VIEW, derive, generator, reseed
from medcl.tensors import tensors

VALIDATED = 4
"""Patches of each validation image: the same ones in every epoch."""
_VALIDATION = 102  # stream of `derive`
Build = Callable[[Mapping[str, Tensor]], Classifier]


@dataclass
class Trained:
    """A training and its progress.

    Attributes:
        model: with the weights of the best epoch once it is finished.
        history: by epoch: training loss, and validation loss if there is a validation part.
        best: the epoch kept, counted from 1.
    """

    model: nn.Module
    history: list[dict[str, float]] = field(default_factory=list)
    best: int = 0


def fit(
    build: Build,
    samples: Samples,
    train: NDArray[np.int64],
    validation: NDArray[np.int64],
    settings: recipes.Finetune,
    optimization: recipes.Optimizer,
    *,
    seed: int,
    device: torch.device,
    checkpoint: Path,
    views: Views | None = None,
) -> Trained:
    """Train for all epochs; without a validation part the last epoch is kept.

    The patches of step s, their views and dropout are functions of (seed, s), so that a training
    that resumes from ``checkpoint`` gives the weights of one that was not interrupted.

    Args:
        build: a batch of patches → the network, initialised by torch's global generator.
        samples: with `Samples.draw` and masks.
        train, validation: positions of images.
        settings: epochs, their steps, batch size, patience.
        optimization: of the network.
        seed: of everything random.
        device: of the network.
        checkpoint: written after each epoch; the caller removes it.
        views: moves patches and masks alike (``together``); None for none.

    Raises:
        MedclError: if the loss is no longer finite.
    """
    reseed(device, seed, MODEL)
    example = tensors(drawn(samples, train[:1], seed, -1))
    model = build(example)
    assert isinstance(model, nn.Module)
    model.to(device)
    per_epoch = settings.epoch_steps or max(1, -(-len(train) // settings.batch_size))
    steps = settings.epochs * per_epoch
    rate = model.rate if isinstance(model, Layerwise) else None
    optimizer, scheduler = optim.build(model, optimization, steps, rate=rate)
    trained, kept = Trained(model), dict[str, Tensor]()
    if checkpoint.is_file():
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
        kept, trained.history, trained.best = state["kept"], state["history"], state["best"]
    for epoch in range(len(trained.history) + 1, settings.epochs + 1):
        if _over(trained, settings.patience, validation):
            break
        model.train()
        total = torch.zeros((), device=device)
        first = (epoch - 1) * per_epoch
        for step, batch in _batches(samples, train, settings.batch_size, seed, first, per_epoch):
            batch = on(batch, device)
            if views is not None:
                batch = viewed(views, batch, generator(device, seed, VIEW, step))
            reseed(device, seed, STEP, step)
            loss = model.step(batch, State(step, steps))["loss"]
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if optimization.clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), optimization.clip)
            optimizer.step()
            scheduler.step()
            total += loss.detach() / per_epoch
        if not np.isfinite(float(total)):
            raise MedclError(
                f"The loss is not finite in epoch {epoch}: lower optimizer.lr, or set "
                "optimizer.clip."
            )
        trained.history.append({"loss": float(total)})
        if len(validation):
            loss_now = _validated(model, samples, validation, settings.batch_size, seed, device)
            trained.history[-1]["validation"] = loss_now
            if trained.best == 0 or loss_now < trained.history[trained.best - 1]["validation"]:
                trained.best, kept = epoch, copy.deepcopy(_weights(model))
        with replacing(checkpoint) as temporary, temporary.open("wb") as file:
            state = {
                "model": _weights(model),
                "optimizer": optimizer.state_dict(),
                "scheduler": scheduler.state_dict(),
                "kept": kept,
                "history": trained.history,
                "best": trained.best,
            }
            torch.save(state, file)
    if kept:
        model.load_state_dict(kept)
    trained.best = trained.best or len(trained.history)
    model.eval()
    return trained


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: values.detach().cpu().clone() for name, values in model.state_dict().items()}


def _over(trained: Trained, patience: int | None, validation: NDArray[np.int64]) -> bool:
    waited = len(trained.history) - trained.best
    return patience is not None and bool(len(validation)) and waited >= patience > 0


def _batches(
    samples: Samples,
    train: NDArray[np.int64],
    size: int,
    seed: int,
    first: int,
    count: int,
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """The batches of steps ``first`` …, each read while the one before is trained on."""
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(_batch, samples, train, size, seed, first)
        for step in range(first, first + count):
            batch = pending.result()
            if step + 1 < first + count:
                pending = pool.submit(_batch, samples, train, size, seed, step + 1)
            yield step, batch


def _batch(
    samples: Samples, train: NDArray[np.int64], size: int, seed: int, step: int
) -> dict[str, Tensor]:
    """The patches of a step: images take turns, in an order drawn anew for each turn."""
    turns = np.arange(step * size, (step + 1) * size)
    order = {
        turn: np.random.default_rng(derive(seed, ORDER, int(turn))).permutation(train)
        for turn in np.unique(turns // len(train))
    }
    rows = np.array([order[turn // len(train)][turn % len(train)] for turn in turns])
    return tensors(drawn(samples, rows, seed, step))


def drawn(samples: Samples, rows: NDArray[np.int64], seed: int, step: int) -> dict[str, np.ndarray]:
    """A patch of each image of ``rows``, a function of (seed, step)."""
    seeds = np.array([derive(seed, DRAW, step + 1, n) for n in range(len(rows))], np.uint64)
    assert samples.draw is not None
    return samples.draw(rows, seeds)


@torch.inference_mode()
def _validated(
    model: nn.Module,
    samples: Samples,
    validation: NDArray[np.int64],
    size: int,
    seed: int,
    device: torch.device,
) -> float:
    """Mean loss of fixed patches of the validation images."""
    model.eval()
    rows, losses = np.repeat(validation, VALIDATED), []
    fixed = derive(seed, _VALIDATION)
    for n, part in enumerate(np.array_split(rows, max(1, -(-len(rows) // size)))):
        batch = on(tensors(drawn(samples, part, fixed, n)), device)
        losses.append(float(model.step(batch, State())["loss"]) * len(part))  # type: ignore[operator]
    return sum(losses) / len(rows)


def viewed(views: Views, batch: dict[str, Tensor], random: torch.Generator) -> dict[str, Tensor]:
    """The batch with its patches and masks moved alike.

    Raises:
        UsageError: if the plugin's views move images alone, or change their size.
    """
    together = getattr(views, "together", None)
    if together is None:
        raise UsageError(
            "These views move images and not their masks: leave the section 'views' out, or leave "
            "views.steps out of it."
        )
    with torch.no_grad():
        x, mask = together(batch[X], batch[MASK], random)
    return {**batch, X: x, MASK: mask}
