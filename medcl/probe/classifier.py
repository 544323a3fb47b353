"""The probe's linear classifier on a run's embeddings: fitted once, kept, and predicted with.

::

    RUN/probe/head.<task>.safetensors     `medcl.embeddings.head.Head`

``medcl probe`` leaves it there. ``medcl predict`` uses that very one; where nobody has probed the
run, it is fitted here as the probe would fit it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medcl import manifest
from medcl.embeddings import head, linear
from medcl.embeddings.embeddings import embed
from medcl.embeddings.head import Head
from medcl.embeddings.sources import kept_before, settings, weights
from medcl.errors import MedclError
from medcl.labels.target import target
from medcl.run import Run, load_samples

if TYPE_CHECKING:
    from torch import nn


def keep(run: Run, task: str, fitted: Head) -> None:
    """Keep what the probe fitted on the run's training patients."""
    head.save(_path(run, task), fitted, _made_from(run, task))


def classifier(run: Run, encoder: nn.Module, task: str, *, device: str = "auto") -> Head:
    """What the probe left, or the same fitted on the run's own index, and kept.

    Args:
        run: finished.
        encoder: its own.
        task: the labelled problem.
        device: see `medcl.embeddings.embeddings.embed`.

    Raises:
        MedclError: if nothing was kept and the run's index is gone, or holds no labels.
    """
    kept = head.load(_path(run, task), _made_from(run, task))
    if kept is not None:
        return kept
    if not run.data.is_dir():
        earlier = kept_before(run, "head", task)
        kept = None if earlier is None else head.load(earlier)
        if kept is not None:
            return kept
        raise MedclError(
            f"The index that {run.path} was trained on is gone ({run.data}): bring it back, so "
            f"that a classifier of task '{task}' can be fitted on its training patients."
        )
    samples = load_samples(run.recipe, run.data, task=task)
    found = target(run.plugin.tasks[task], samples)
    part = run.split()
    train = np.array([part.get(p) == "train" for p in samples.patients], bool)
    rows = np.flatnonzero(found.known & train)
    if not len(rows):
        raise MedclError(f"No training sample of task '{task}' carries a label.")
    labelled = samples.at(rows)
    x = embed(encoder, labelled, device=device, label="labelled samples").x
    patients = np.asarray(labelled.patients)
    fitted = linear.fit(x, found.at(rows), patients, seed=run.recipe.seed).head
    keep(run, task, fitted)
    return fitted


def _path(run: Run, task: str) -> Path:
    return run.path / "probe" / f"head.{task}.safetensors"


def _made_from(run: Run, task: str) -> str:
    """The weights and settings that a classifier depends on."""
    return manifest.digest(weights(run), settings(run, task), task)
