"""The probe's linear classifier on a run's embeddings: fitted once, saved, and used by predict.

::

    RUN/probe/head.<task>.safetensors     `medcl.embeddings.head.Head`

``medcl probe`` writes it and ``medcl predict`` uses the same file. If the run was not probed, it is
fitted here in the same way.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medcl import manifest
from medcl.embeddings import head, linear
from medcl.embeddings.embeddings import embed
from medcl.embeddings.head import Head
from medcl.embeddings.sources import earlier_version, settings, weights
from medcl.errors import MedclError
from medcl.labels import target as targets
from medcl.run import Run, load_samples

if TYPE_CHECKING:
    from torch import nn


def save(run: Run, task: str, fitted: Head) -> None:
    """Save a classifier fitted on the run's training patients."""
    head.save(_path(run, task), fitted, _made_from(run, task))


def classifier(run: Run, encoder: nn.Module, task: str, *, device: str = "auto") -> Head:
    """The saved classifier; if there is none, fit it on the run's own index and save it.

    Args:
        run: a finished run.
        encoder: the run's.
        task: the labelled problem.
        device: see `medcl.embeddings.embeddings.embed`.

    Raises:
        MedclError: if no classifier is saved and the run's index is missing, or holds no labels.
    """
    saved = head.load(_path(run, task), _made_from(run, task))
    if saved is not None:
        return saved
    if not run.data.is_dir():
        earlier = earlier_version(run, "head", task)
        saved = None if earlier is None else head.load(earlier)
        if saved is not None:
            return saved
        raise MedclError(
            f"The index that {run.path} was trained on is missing ({run.data}): restore it, so "
            f"that a classifier of task '{task}' can be fitted on its training patients."
        )
    samples = load_samples(run.recipe, run.data, task=task)
    target = targets.target(run.plugin.tasks[task], samples)
    part = run.split()
    train = np.array([part.get(p) == "train" for p in samples.patients], bool)
    rows = np.flatnonzero(target.known & train)
    if not len(rows):
        raise MedclError(f"No training sample of task '{task}' carries a label.")
    labelled = samples.at(rows)
    x = embed(encoder, labelled, device=device, label="labelled samples").x
    patients = np.asarray(labelled.patients)
    fitted = linear.fit(x, target.at(rows), patients, seed=run.recipe.seed).head
    save(run, task, fitted)
    return fitted


def _path(run: Run, task: str) -> Path:
    return run.path / "probe" / f"head.{task}.safetensors"


def _made_from(run: Run, task: str) -> str:
    """The weights and settings that a classifier depends on."""
    return manifest.digest(weights(run), settings(run, task), task)
