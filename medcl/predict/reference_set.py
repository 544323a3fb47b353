"""What predictions of a run are measured by, learnt from its training patients once and kept.

::

    RUN/predict/novelty.safetensors         see `medcl.retrieval.anomaly_score`
    RUN/probe/head.<task>.safetensors       see `medcl.probe.classifier`
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medcl.embeddings.embeddings import embed, fingerprint
from medcl.embeddings.head import Head
from medcl.errors import MedclError
from medcl.io.atomic import replacing
from medcl.plugin import Samples
from medcl.probe.classifier import classifier
from medcl.retrieval import anomaly_score
from medcl.retrieval.anomaly_score import AnomalyScorer
from medcl.run import Run, load_samples

if TYPE_CHECKING:
    from torch import nn

AT_MOST = 16384
"""Training samples that are embedded, drawn at random."""


@dataclass(frozen=True)
class Reference:
    """The training patients' part in a prediction. ``head`` is None without a task."""

    anomaly_scorer: AnomalyScorer
    head: Head | None


def reference(run: Run, encoder: nn.Module, task: str | None, *, device: str = "auto") -> Reference:
    """Load what was kept, or learn it from the run's own index.

    Raises:
        UsageError: if the task is unknown, or its samples carry no label.
        MedclError: if nothing was kept and the index that the run was trained on is gone.
    """
    name = "novelty.safetensors" if task is None else f"novelty.{task}.safetensors"
    path, made_from = run.path / "predict" / name, _made_from(run, task)
    anomaly_scorer = _load(path, made_from)
    if anomaly_scorer is None:
        anomaly_scorer = _learn(run, encoder, task, device)
        _save(path, anomaly_scorer, made_from)
    head = None if task is None else classifier(run, encoder, task, device=device)
    return Reference(anomaly_scorer, head)


def _learn(run: Run, encoder: nn.Module, task: str | None, device: str) -> AnomalyScorer:
    if not run.data.is_dir():
        raise MedclError(
            f"The index that {run.path} was trained on is gone ({run.data}): bring it back, so "
            "that its training patients can be compared with."
        )
    samples = load_samples(run.recipe, run.data, task=task)
    side = run.split()
    positions = np.flatnonzero([side.get(p) == "train" for p in samples.patients])
    if not len(positions):
        raise MedclError(f"{run.data}: no sample of the run's training patients is left.")
    samples = samples.at(positions)
    rng = np.random.default_rng(run.recipe.seed)
    some = np.sort(rng.permutation(len(samples))[:AT_MOST])
    made = embed(encoder, samples.at(some), device=device, label="training samples")
    return anomaly_score.learn(made.x, np.asarray(made.patients), seed=run.recipe.seed)


def _made_from(run: Run, task: str | None) -> str:
    """The weights and settings: what was kept for others is learnt anew."""
    nothing = Samples(ids=[], items=[], patients=[], read=lambda at: {})
    settings = [run.recipe.dataset, run.recipe.probe.dataset, task, run.recipe.seed]
    return fingerprint(run, nothing) + json.dumps(settings, sort_keys=True, default=str)


def _hash(made_from: str) -> str:
    """Settings may name places, and these files lie beside what is passed on."""
    return hashlib.sha256(made_from.encode()).hexdigest()


def _save(path: Path, anomaly_scorer: AnomalyScorer, made_from: str) -> None:
    from safetensors.numpy import save_file

    arrays = {name: np.ascontiguousarray(values) for name, values in vars(anomaly_scorer).items()}
    with replacing(path) as temporary:
        save_file(arrays, temporary, {"made_from": _hash(made_from)})


def _load(path: Path, made_from: str) -> AnomalyScorer | None:
    """What was kept, or None if there is nothing, or it is of other weights or damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            facts = file.metadata() or {}
            if facts.get("made_from") not in (_hash(made_from), made_from):  # in words, earlier
                return None
            return AnomalyScorer(**{name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except (OSError, SafetensorError):
        return None
