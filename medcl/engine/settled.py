"""Settings that wait for the data: ``trainer.batch_size: auto`` and ``trainer.scale``.

They are settled once, when a run begins, from the memory of a dry step, the batch and the number of
training samples; what was taken is said, and stands in the run's recipe in place of "auto".
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from medcl.engine import dry_step
from medcl.engine.module import Pretraining
from medcl.errors import UsageError
from medcl.private import read_recipe
from medcl.recipe import AUTO, Recipe

REFERENCE = 256
"""Samples of a step that ``optimizer.lr`` is meant for, and that "auto" aims at."""
SHARE = 0.6
"""Of the free memory: a dry step counts no workspaces, and others use the machine too."""
WARMUP_EPOCHS = 10
"""Of DINO (arXiv 2104.14294) and MoCo v3's shortest; a long archive needs no more."""
QUEUE_SHARE = 4
"""A queue holds at most one in four training samples: older keys would be of the same samples."""
SAMPLES_EACH = 50
"""Training samples for each prototype, cluster or code, at least."""
FEWEST = 16
"""Prototypes, at least."""
CODES = {"swav": "prototypes", "deepcluster-v2": "clusters", "dino": "out", "dinov2": "out"} | {
    "msn": "prototypes"
}
"""Which setting of a method counts its prototypes, clusters or codes."""


def waiting(recipe: Recipe) -> bool:
    """Whether a setting waits for the data."""
    return recipe.trainer.batch_size == AUTO or recipe.trainer.scale


def recorded(recipe: Recipe, out: Path) -> Recipe:
    """The recipe with what the run in ``out``, if there is one, took where this one waits."""
    if not waiting(recipe) or not (out / "recipe.yaml").is_file():
        return recipe
    before = read_recipe(out)
    taken: dict[str, Any] = {}
    if recipe.trainer.batch_size == AUTO:
        taken = {"batch_size": before.trainer.batch_size, "accumulate": before.trainer.accumulate}
    if recipe.trainer.scale:
        taken["scale"] = before.trainer.scale
        lr = {"lr": before.optimizer.lr, "warmup": before.optimizer.warmup}
        recipe = recipe.model_copy(update={"optimizer": recipe.optimizer.model_copy(update=lr)})
        recipe = _with_method(recipe, before.part("method").arguments)
    return _with_trainer(recipe, **taken)


def batch_that_fits(
    recipe: Recipe, module: Pretraining | None, samples: int, memory: int | None
) -> tuple[Recipe, str]:
    """The recipe with a batch and accumulation that fit, and a sentence on them.

    A step has `REFERENCE` samples, or all that there are: in one batch where ``memory`` allows, or
    else in halves of it, whose gradients are summed.

    Args:
        recipe: with a batch of "auto".
        module: of the recipe with the batch of `goal`; None: the cost of a step is unknown.
        samples: of training, for each process.
        memory: bytes that each process may take; None: unknown.

    Raises:
        UsageError: if not even two samples fit.
    """
    batch = goal(samples)
    cost = None if module is None else dry_step.measured(module)
    if cost is None or memory is None:
        taken = _with_trainer(recipe, batch_size=batch)
        return taken, f"trainer.batch_size is {batch:,}; its memory could not be measured."
    share, whole = int(SHARE * memory), batch
    while batch > 2 and cost.peak(batch) > share:
        batch = max(2, batch // 2)
    if cost.peak(batch) > share:
        raise UsageError(
            f"A step with two samples needs at least {dry_step.size(cost.peak(2))}, and of "
            f"{dry_step.size(memory)} free {SHARE:.0%} are taken: take a smaller encoder or "
            "smaller samples."
        )
    times = recipe.trainer.accumulate * -(-whole // batch)
    note = (
        f"trainer.batch_size is {batch:,} and trainer.accumulate {times:,}: at least "
        f"{dry_step.size(cost.peak(batch))} of {dry_step.size(memory)} free."
    )
    return _with_trainer(recipe, batch_size=batch, accumulate=times), note


def goal(samples: int) -> int:
    """The batch that "auto" aims at, for so many training samples of each process.

    Example:
        >>> goal(10_000), goal(100)
        (256, 100)
    """
    return max(2, min(REFERENCE, samples))


def scaled(recipe: Recipe, samples: int) -> tuple[Recipe, list[str]]:
    """The recipe with its learning rate, warm-up, queue and prototypes scaled, and sentences.

    - ``optimizer.lr`` is that of `REFERENCE` samples a step: times the ratio for sgd and lars
      (Goyal 2017, arXiv 1706.02677), its root for adam and adamw (Malladi 2022, arXiv 2205.10330).
    - ``optimizer.warmup`` is at most `WARMUP_EPOCHS`.
    - The queue, and the prototypes, clusters or codes of the method, are at most what the archive
      supports (`QUEUE_SHARE`, `SAMPLES_EACH`); never more than the recipe says.

    Args:
        recipe: with a batch.
        samples: of training, in all.
    """
    trainer, optimizer = recipe.trainer, recipe.optimizer
    step = trainer.batch_size * trainer.accumulate * trainer.devices * trainer.nodes
    ratio = step / REFERENCE
    factor = ratio if optimizer.name in ("sgd", "lars") else math.sqrt(ratio)
    lr = float(f"{optimizer.lr * factor:.3g}")
    longest = WARMUP_EPOCHS * samples / (step * trainer.steps)
    warmup = min(optimizer.warmup, float(f"{longest:.3g}"))
    notes = []
    if lr != optimizer.lr:
        notes.append(
            f"optimizer.lr is {lr:g} for {step:,} samples a step ({optimizer.lr:g} at 256)."
        )
    if warmup != optimizer.warmup:
        notes.append(f"optimizer.warmup is {warmup:g} of the steps: {WARMUP_EPOCHS} epochs.")
    moved = optimizer.model_copy(update={"lr": lr, "warmup": warmup})
    section = recipe.part("method")
    arguments = dict(section.arguments)
    given = {"queue": max(step, samples // QUEUE_SHARE // step * step)}
    if section.name in CODES:
        given[CODES[section.name]] = max(FEWEST, samples // SAMPLES_EACH)
    for name, most in given.items():
        value = arguments.get(name)
        if value is None:
            continue
        less = tuple(min(v, most) for v in value) if isinstance(value, tuple) else min(value, most)
        if less != value:
            arguments[name] = less
            notes.append(f"method.{name} is {less}, not {value}: {samples:,} training samples.")
    recipe = recipe.model_copy(update={"optimizer": moved})
    return _with_trainer(_with_method(recipe, arguments), scale=False), notes


def _with_trainer(recipe: Recipe, **settings: Any) -> Recipe:
    return recipe.model_copy(update={"trainer": recipe.trainer.model_copy(update=settings)})


def _with_method(recipe: Recipe, arguments: dict[str, Any]) -> Recipe:
    section = recipe.part("method")
    known = {name: arguments.get(name, value) for name, value in section.arguments.items()}
    own = type(section).model_validate({"name": section.name, **known})
    return recipe.model_copy(update={"method": own})
