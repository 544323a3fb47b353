"""The classifier of a user's own labels: ``medcl probe RUN --labels`` saves it, predict uses it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medcl import manifest
from medcl.embeddings import head
from medcl.embeddings.head import Head
from medcl.embeddings.sources import settings, weights
from medcl.errors import MedclError, UsageError
from medcl.probe.own_labels import Level
from medcl.probe.probe import HEAD, file_name
from medcl.probe.result import ProbeResult
from medcl.registry import did_you_mean
from medcl.run import Run, Trained


@dataclass(frozen=True)
class OwnClassifier:
    """A linear classifier of embeddings, and what they must be of.

    Attributes:
        head: the classifier.
        label: its name.
        by: what it classifies: samples; or items or patients, by the mean of their embeddings.
        task: whose samples; None for those of pretraining.
        positive: the class of two that was the positive one.
        elsewhere: True if it was fitted on another index than the run's.
    """

    head: Head
    label: str
    by: Level
    task: str | None
    positive: str | None
    elsewhere: bool


def own_classifier(run: Run, label: str) -> OwnClassifier | None:
    """The classifier that was probed for a label of the user's; None if there is none.

    Raises:
        UsageError: if the plugin has a task of this name too.
        MedclError: if it is damaged, or belongs to other weights or settings.
    """
    folder = run.path / "probe" / file_name(label)
    if not (folder / HEAD).is_file():
        return None
    if label in run.plugin.tasks:
        raise UsageError(
            f"'{label}' is a task of the plugin '{run.plugin.name}' and a label of your own "
            f"({folder}): call the column otherwise, and run medcl probe --labels again."
        )
    remedy = "Run medcl probe RUN --labels again."
    record, result = manifest.load(folder), ProbeResult.load(folder)
    fitted = head.load(folder / HEAD, result.made_from)
    made_of = {} if record is None else record.made_of
    fitted_on = (made_of.get("runs") or [{}])[0]
    task = made_of.get("task")
    now = {"encoder": weights(run), "settings": settings(run, task)}
    if fitted is None or any(fitted_on.get(name) != value for name, value in now.items()):
        raise MedclError(
            f"The classifier of '{label}' in {folder} is damaged, or of other weights. {remedy}"
        )
    elsewhere = fitted_on.get("index") != _index(run)
    level: Level = result.by  # type: ignore[assignment]  # written as one
    return OwnClassifier(fitted, label, level, task, result.positive, elsewhere)


def _index(run: Run) -> str | None:
    """A hash of the index that a run was trained on; None without one."""
    try:
        return manifest.of_file(run.data / "items.parquet")
    except (MedclError, OSError):
        return None


def task_of(model: Trained, task: str | None) -> str | None:
    """The plugin's task whose samples ``task`` is predicted for; None for those of pretraining.

    Raises:
        UsageError: for what is neither a task of the plugin nor a label that was probed, or both.
    """
    if task is None or not isinstance(model, Run):
        return task
    own = own_classifier(model, task)
    if own is None and task in model.plugin.tasks:
        return task
    if own is None:
        names = [*model.plugin.tasks, *probed(model.path)]
        raise UsageError(
            f"Unknown task '{task}' of plugin '{model.plugin.name}'. {did_you_mean(task, names)} "
            "For labels of your own, first: medcl probe RUN --labels TABLE"
        )
    return own.task


def probed(run: Path) -> list[str]:
    """The labels of the user's that a run has classifiers for."""
    return sorted(ProbeResult.load(path.parent).task for path in run.glob(f"probe/*/{HEAD}"))
