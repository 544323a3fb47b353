"""The reference of a run's predictions, fitted on its training patients once and saved.

::

    RUN/predict/<task>/novelty.safetensors     see `medcl.retrieval.anomaly_score`
    RUN/predict/<task>/manifest.json           see `medcl.manifest`
    RUN/probe/head.<task>.safetensors          see `medcl.probe.classifier`
    RUN/probe/<label>/head.safetensors         see `medcl.probe.own_classifier`

Without a task, the folder is called ``pretraining``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medcl import manifest
from medcl.embeddings.embeddings import embed
from medcl.embeddings.head import Head
from medcl.embeddings.sources import earlier_version, settings, weights
from medcl.errors import MedclError
from medcl.probe.classifier import classifier
from medcl.probe.own_classifier import OwnClassifier, own_classifier, task_of
from medcl.retrieval import anomaly_score
from medcl.retrieval.anomaly_score import AnomalyScorer
from medcl.run import Run, load_samples

if TYPE_CHECKING:
    from torch import nn

PRETRAINING, NAME = "pretraining", "novelty.safetensors"
AT_MOST = 16384
"""Maximum number of training samples embedded, drawn at random."""


@dataclass(frozen=True)
class Reference:
    """Anomaly scorer and classifier from training patients.

    ``head`` is None without a task; ``own`` is what it is of a label of the user's.

    The scorer is None if none was saved and the run's index is not here to learn it from.
    """

    anomaly_scorer: AnomalyScorer | None
    head: Head | None
    own: OwnClassifier | None = None


def reference(run: Run, encoder: nn.Module, task: str | None, *, device: str = "auto") -> Reference:
    """Load the saved reference, or fit it on the run's own index.

    Raises:
        UsageError: if the task is unknown, or its samples carry no label.
        MedclError: if no classifier is saved and the run's index is missing.
    """
    own = None if task is None else own_classifier(run, task)
    task = task_of(run, task)
    folder = run.path / "predict" / (task or PRETRAINING)
    made_of = {
        "encoder": weights(run),
        "settings": settings(run, task),
        "task": task,
        "seed": run.recipe.seed,
    }
    scorer = _saved(folder, made_of) or _earlier(run, task)
    if scorer is None and (run.data / "index.json").is_file():
        scorer = _learn(run, encoder, task, device)
        with manifest.new_folder(folder, "anomaly scorer", made_of) as fresh:
            _save(fresh / NAME, scorer)
    if own is not None:
        return Reference(scorer, own.head, own)
    head = None if task is None else classifier(run, encoder, task, device=device)
    return Reference(scorer, head)


def _saved(folder: Path, made_of: Mapping[str, object]) -> AnomalyScorer | None:
    """The saved scorer; None if it is missing or of other weights. Damage gives a warning."""
    try:
        stored = manifest.load(folder)
        if stored is None or manifest.difference(stored.made_of, made_of) is not None:
            return None
        if not manifest.check(folder / NAME, ""):
            raise manifest.DamagedError(f"{folder / NAME} is not in its manifest. ")
        return _read(folder / NAME)
    except manifest.DamagedError as error:
        manifest.warn(f"{str(error).partition('. ')[0]}. It is learnt anew.")
        return None


def _earlier(run: Run, task: str | None) -> AnomalyScorer | None:
    """A scorer saved before manifests existed."""
    path = earlier_version(run, "novelty", task)
    try:
        return None if path is None else _read(path)
    except manifest.DamagedError:
        return None


def _learn(run: Run, encoder: nn.Module, task: str | None, device: str) -> AnomalyScorer:
    samples = load_samples(run.recipe, run.data, task=task)
    part = run.split()
    positions = np.flatnonzero([part.get(p) == "train" for p in samples.patients])
    if not len(positions):
        raise MedclError(f"{run.data}: no sample of the run's training patients is left.")
    samples = samples.at(positions)
    rng = np.random.default_rng(run.recipe.seed)
    some = np.sort(rng.permutation(len(samples))[:AT_MOST])
    embedded = embed(encoder, samples.at(some), device=device, label="training samples")
    return anomaly_score.learn(embedded.x, np.asarray(embedded.patients), seed=run.recipe.seed)


def _save(path: Path, scorer: AnomalyScorer) -> None:
    from safetensors.numpy import save_file

    save_file({name: np.ascontiguousarray(values) for name, values in vars(scorer).items()}, path)


def _read(path: Path) -> AnomalyScorer:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return AnomalyScorer(**{n: file.get_tensor(n) for n in file.keys()})  # noqa: SIM118
    except (OSError, SafetensorError, TypeError):
        raise manifest.DamagedError(f"{path} cannot be read. ") from None
