"""The open sections of a recipe, held against the functions that they configure.

The keyword-only parameters of a function are what ``prepare``, ``dataset``, ``views``, ``encoder``,
``method`` or ``classifier`` may hold (`medcl.registry.checked`). Settings that mean one thing
(`medcl.plugin.Shared`) are filled in from the one that is given, and must agree.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from medcl import plugin as plugins
from medcl.augmentations import checked_steps, refuse_beside_steps
from medcl.catalogue import CLASSIFIERS, METHODS
from medcl.errors import UsageError
from medcl.recipe.sections import Named, Probe, Recipe
from medcl.recipe.shared import agreed
from medcl.registry import checked, did_you_mean, lookup, resolve

LEFT_OUT = "PATH"
"""What a recipe says in place of a file or folder that is not to be shown; see `medcl.private`."""

NAMED = ("encoder", "method", "classifier")


def filled_in(recipe: Recipe, *, recorded: bool, changed: Collection[str]) -> Recipe:
    """Check the open sections, write their defaults out, and settle what they share.

    Args:
        recipe: with what was given in its open sections.
        recorded: it is a run's: settings that contradict each other are warned of, not refused.
        changed: keys that are set anew over a recorded recipe, and must not contradict.

    Raises:
        UsageError: for an unknown or ill-typed setting, or two that contradict each other.
    """
    plugin = plugins.get(recipe.plugin)
    _complete(recipe, plugin)
    functions = factories(recipe, plugin)
    given = {name: _given(recipe, name) for name in functions}
    steps = given["views"].pop("steps", None) if plugin.compose is not None else None
    if steps is not None:
        refuse_beside_steps(functions["views"], given["views"])
    given = agreed(given, functions, plugin.shared, recipe, recorded=recorded, changed=changed)
    settled = {name: _checked(fn, given[name], name) for name, fn in functions.items()}
    if plugin.compose is not None:
        settled["views"].pop("steps", None)  # of the fixed order
    if steps is not None:
        frame = settled["views"]
        settled["views"] = {"steps": checked_steps(steps, plugin.augmentations, frame), **frame}
    named = {
        name: Named.model_validate({"name": section.name, **settled.pop(name)})
        for name in NAMED
        if (section := getattr(recipe, name)) is not None
    }
    probe = _probe(recipe.probe, plugin, settled["dataset"])
    return recipe.model_copy(update={**settled, **named, "probe": probe})


def _complete(recipe: Recipe, plugin: plugins.Plugin) -> None:
    """Refuse a recipe without a section that it needs, or with a task or baseline unknown here."""
    for section in ("encoder", "method") if recipe.classifier is None else ():
        if getattr(recipe, section) is None:
            raise UsageError(f"'{section}' is missing: set it in the recipe or with -s {section}=…")
    if recipe.method is not None and recipe.encoder is None:
        raise UsageError("'encoder' is missing: the method needs one: -s encoder.name=…")
    for task in (recipe.probe.task, recipe.finetune.task):
        if task is not None and task not in plugin.tasks:
            hint = did_you_mean(task, plugin.tasks)
            raise UsageError(f"Unknown task '{task}' of plugin '{plugin.name}'. {hint}")
    for baseline in recipe.probe.baselines or ():
        if baseline not in plugin.baselines:
            hint = did_you_mean(baseline, plugin.baselines)
            raise UsageError(f"Unknown baseline '{baseline}' in probe.baselines. {hint}")


def factories(recipe: Recipe, plugin: plugins.Plugin) -> dict[str, Callable[..., Any]]:
    """Open section → the function that it configures."""
    composed = plugin.compose if recipe.views.get("steps") is not None else None
    found = {
        "prepare": resolve(plugin.prepare),
        "dataset": resolve(plugin.dataset),
        "views": resolve(composed or plugin.views),
    }
    if recipe.encoder is not None:
        found["encoder"] = lookup(plugin.encoders, recipe.encoder.name, "encoder")
    if recipe.method is not None:
        found["method"] = method_factory(recipe)
    if recipe.classifier is not None:
        found["classifier"] = classifier_factory(recipe)
    return found


def _given(recipe: Recipe, section: str) -> dict[str, Any]:
    value = getattr(recipe, section)
    return value.arguments if isinstance(value, Named) else dict(value)


def _checked(fn: Callable[..., Any], values: dict[str, Any], where: str) -> dict[str, Any]:
    """As `medcl.registry.checked`; files and folders as seen from anywhere, not from here alone."""
    return {
        name: Path(os.path.abspath(value.expanduser()))
        if isinstance(value, Path) and value != Path(LEFT_OUT)
        else value
        for name, value in checked(fn, values, where).items()
    }


def _probe(probe: Probe, plugin: plugins.Plugin, dataset: dict[str, Any]) -> Probe:
    """Check ``probe.dataset`` as it will be used: over the task's settings and the recipe's."""
    tasks = plugin.tasks
    settings = {**dataset, **(tasks[probe.task].dataset if probe.task else {}), **probe.dataset}
    used = _checked(resolve(plugin.dataset), settings, "probe.dataset")
    return probe.model_copy(update={"dataset": {key: used[key] for key in probe.dataset}})


def method_factory(recipe: Recipe) -> Any:
    """The recipe's method: medcl's own, or one that its plugin brings."""
    known = {**METHODS, **plugins.get(recipe.plugin).methods}
    return lookup(known, recipe.part("method").name, "method")


def classifier_factory(recipe: Recipe) -> Any:
    """The recipe's classifier: medcl's own, or one that its plugin brings."""
    known = {**CLASSIFIERS, **plugins.get(recipe.plugin).classifiers}
    return lookup(known, recipe.part("classifier").name, "classifier")
