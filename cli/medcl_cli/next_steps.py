"""What a verb suggests to type next. Every line works as it is printed."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from medcl.archive.index import Index
    from medcl.run import Run


def after_index(index: Index, *, gpu: bool | None = None) -> str | None:
    """The command with the recipe for what was found; None if nothing was, or nobody knows.

    Args:
        index: what was found.
        gpu: whether there is a GPU; None: that of this machine. Without one, it is a recipe of
            minutes.
    """
    from medcl import doctor
    from medcl import plugin as plugins
    from medcl import recipe as recipes

    plugin = plugins.get(index.plugin_name)
    if plugin.suggest is None or not len(index.items):
        return None
    recipe = plugin.suggest(index.items, doctor.driver() if gpu is None else gpu)
    data = shlex.quote(str(index.path))
    if recipes.load(recipe).method is None:  # a classifier of bags
        labels = [name for name in index.items.columns if name.startswith("label.")]
        if not labels:
            return None
        known = shlex.quote(labels[0].removeprefix("label."))
        return f"medcl finetune {recipe} --data {data} --label-column {known} --out study"
    return f"medcl pretrain {recipe} --data {data} --out run"


def after_finetune(studies: Sequence[Path], out: Path) -> str:
    """The report of a study, or of the several studies of a folder."""
    folders = " ".join(shlex.quote(str(study)) for study in studies)
    page = f" --out {shlex.quote(str(out / 'report.html'))}" if len(studies) > 1 else ""
    return f"medcl report {folders}{page}"


def after_pretrain(run: Run) -> str:
    """A probe where the index has the recipe's labels or places, and the report."""
    from medcl.errors import MedclError
    from medcl.run import load_samples

    path, task = shlex.quote(str(run.path)), run.recipe.probe.task
    probe = ""
    try:
        samples = load_samples(run.recipe, run.data, task=task)
        known = run.plugin.tasks.get(task) if task is not None else None
        if known is not None and known.label in samples.labels:
            probe = f"medcl probe {path} && "
        elif task is None and samples.locations is not None:
            probe = f"medcl probe {path} --localisation && "
    except MedclError:  # the labels of the task are not there
        pass
    return f"{probe}medcl report {path}"
