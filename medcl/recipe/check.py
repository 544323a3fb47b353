"""Validation of a recipe's open sections against the functions that they configure.

The settings of ``prepare``, ``dataset``, ``views``, ``encoder``, ``method`` and ``classifier`` are
the keyword-only parameters of these functions (`medcl.registry.checked`). Settings with one meaning
(`medcl.plugin.Shared`) are filled in from the one that is set, and must agree.
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
"""The placeholder for a private file or folder in a recipe; see `medcl.private`."""

NAMED = ("encoder", "method", "classifier")


def filled_in(recipe: Recipe, *, recorded: bool, changed: Collection[str]) -> Recipe:
    """Validate the open sections, and fill in their defaults and shared settings.

    Args:
        recipe: with its open sections as given.
        recorded: it is a run's recipe: contradictory settings cause a warning, not an error.
        changed: keys that override a recorded recipe, and must not contradict it.

    Raises:
        UsageError: for an unknown or ill-typed setting, or two that contradict each other.
    """
    plugin = plugins.get(recipe.plugin)
    _complete(recipe, plugin)
    functions = factories(recipe, plugin)
    arguments = {name: _given(recipe, name) for name in functions}
    steps = arguments["views"].pop("steps", None) if plugin.compose is not None else None
    if steps is not None:
        refuse_beside_steps(functions["views"], arguments["views"])
    arguments = agreed(
        arguments, functions, plugin.shared, recipe, recorded=recorded, changed=changed
    )
    complete = {name: _checked(fn, arguments[name], name) for name, fn in functions.items()}
    if plugin.compose is not None:
        complete["views"].pop("steps", None)  # of the fixed order
    if steps is not None:
        frame = complete["views"]
        complete["views"] = {"steps": checked_steps(steps, plugin.augmentations, frame), **frame}
    named = {
        name: Named.model_validate({"name": section.name, **complete.pop(name)})
        for name in NAMED
        if (section := getattr(recipe, name)) is not None
    }
    probe = _probe(recipe.probe, plugin, complete["dataset"])
    return recipe.model_copy(update={**complete, **named, "probe": probe})


def _complete(recipe: Recipe, plugin: plugins.Plugin) -> None:
    """Refuse a recipe with a missing section, or a task or baseline unknown to the plugin."""
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
    functions = {
        "prepare": resolve(plugin.prepare),
        "dataset": resolve(plugin.dataset),
        "views": resolve(composed or plugin.views),
    }
    if recipe.encoder is not None:
        functions["encoder"] = lookup(plugin.encoders, recipe.encoder.name, "encoder")
    if recipe.method is not None:
        functions["method"] = method_factory(recipe)
    if recipe.classifier is not None:
        functions["classifier"] = classifier_factory(recipe)
    return functions


def _given(recipe: Recipe, section: str) -> dict[str, Any]:
    value = getattr(recipe, section)
    return value.arguments if isinstance(value, Named) else dict(value)


def _checked(fn: Callable[..., Any], values: dict[str, Any], where: str) -> dict[str, Any]:
    """As `medcl.registry.checked`, with absolute paths of files and folders."""
    return {
        name: Path(os.path.abspath(value.expanduser()))
        if isinstance(value, Path) and value != Path(LEFT_OUT)
        else value
        for name, value in checked(fn, values, where).items()
    }


def _probe(probe: Probe, plugin: plugins.Plugin, dataset: dict[str, Any]) -> Probe:
    """Validate ``probe.dataset`` as it is used: over the task's settings and the recipe's."""
    tasks = plugin.tasks
    settings = {**dataset, **(tasks[probe.task].dataset if probe.task else {}), **probe.dataset}
    complete = _checked(resolve(plugin.dataset), settings, "probe.dataset")
    return probe.model_copy(update={"dataset": {key: complete[key] for key in probe.dataset}})


def method_factory(recipe: Recipe) -> Any:
    """The recipe's method: medcl's own or the plugin's."""
    methods = {**METHODS, **plugins.get(recipe.plugin).methods}
    return lookup(methods, recipe.part("method").name, "method")


def classifier_factory(recipe: Recipe) -> Any:
    """The recipe's classifier: medcl's own or the plugin's."""
    classifiers = {**CLASSIFIERS, **plugins.get(recipe.plugin).classifiers}
    return lookup(classifiers, recipe.part("classifier").name, "classifier")
