"""What predictions of a run are measured by, learnt from its training patients once and kept.

::

    RUN/predict/novelty.safetensors         see `medcl.retrieval.anomaly_score`
    RUN/predict/head.<task>.safetensors     see `medcl.embeddings.head`
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medcl.embeddings import head
from medcl.embeddings.embeddings import embed, fingerprint, take
from medcl.embeddings.head import Head
from medcl.errors import MedclError
from medcl.io.atomic import replacing
from medcl.labels.target import target
from medcl.plugin import Samples
from medcl.retrieval import anomaly_score
from medcl.retrieval.anomaly_score import AnomalyScorer
from medcl.run import Run, load_samples

if TYPE_CHECKING:
    from torch import nn

AT_MOST = 16384
"""Training samples that are embedded, drawn at random; of a task, evenly over its classes."""


@dataclass(frozen=True)
class Reference:
    """The training patients' part in a prediction. ``head`` is None without a task."""

    novelty: AnomalyScorer
    head: Head | None


def reference(run: Run, encoder: nn.Module, task: str | None, *, device: str = "auto") -> Reference:
    """Load what was kept, or learn it from the run's own index.

    Raises:
        UsageError: if the task is unknown, or its samples carry no label.
        MedclError: if nothing was kept and the index that the run was trained on is gone.
    """
    folder = run.path / "predict"
    names = [folder / "novelty.safetensors"]
    if task is not None:
        names = [folder / f"novelty.{task}.safetensors", folder / f"head.{task}.safetensors"]
    made_from = _made_from(run, task)
    found = [_load(name, made_from) for name in names]
    if any(part is None for part in found):
        found = _learn(run, encoder, task, device)
        for name, part in zip(names, found, strict=True):
            assert part is not None
            _save(name, part, made_from)
    kept, classifier = found[0], found[1] if task is not None else None
    assert isinstance(kept, AnomalyScorer)
    assert classifier is None or isinstance(classifier, Head)
    return Reference(kept, classifier)


def _learn(run: Run, encoder: nn.Module, task: str | None, device: str) -> list[Any]:
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
    samples = take(samples, positions)
    rng = np.random.default_rng(run.recipe.seed)
    some = np.sort(rng.permutation(len(samples))[:AT_MOST])
    made = embed(encoder, take(samples, some), device=device, label="training samples")
    found: list[Any] = [
        anomaly_score.learn(made.x, np.asarray(made.patients), seed=run.recipe.seed)
    ]
    if task is not None:
        found.append(_head(run, encoder, task, samples, device))
    return found


def _head(run: Run, encoder: nn.Module, task: str, samples: Samples, device: str) -> Head:
    truth = target(run.plugin.tasks[task], samples)
    known = np.flatnonzero(truth.known)
    if not len(known):
        raise MedclError(f"No training sample of task '{task}' carries a label.")
    some = known[_evenly(truth.y[known], run.recipe.seed)]
    labelled = take(samples, some)
    made = embed(encoder, labelled, device=device, label="labelled samples")
    return head.fit(made.x, truth.at(some), np.asarray(labelled.patients), seed=run.recipe.seed)


def _evenly(y: NDArray, seed: int) -> NDArray[np.int64]:
    """At most `AT_MOST` positions: all of rare classes, some of common ones."""
    order = np.random.default_rng(seed).permutation(len(y))
    if y.ndim > 1 or y.dtype.kind == "f" or len(y) <= AT_MOST:
        return np.sort(order[:AT_MOST])
    classes = np.unique(y)
    share = AT_MOST // len(classes)
    return np.sort(np.concatenate([order[y[order] == c][:share] for c in classes]))


def _made_from(run: Run, task: str | None) -> str:
    """The weights and settings: what was kept for others is learnt anew."""
    nothing = Samples(ids=[], items=[], patients=[], read=lambda at: {})
    settings = [run.recipe.dataset, run.recipe.probe.dataset, task, run.recipe.seed]
    return fingerprint(run, nothing) + json.dumps(settings, sort_keys=True, default=str)


def _hash(made_from: str) -> str:
    """Settings may name places, and these files lie beside what is passed on."""
    return hashlib.sha256(made_from.encode()).hexdigest()


def _save(path: Path, part: AnomalyScorer | Head, made_from: str) -> None:
    from safetensors.numpy import save_file

    arrays = {k: np.ascontiguousarray(v) for k, v in vars(part).items() if hasattr(v, "dtype")}
    about = {k: v for k, v in vars(part).items() if k not in arrays}
    with replacing(path) as temporary:
        facts = {"made_from": _hash(made_from), "about": json.dumps(about)}
        save_file(arrays, temporary, facts)


def _load(path: Path, made_from: str) -> AnomalyScorer | Head | None:
    """What was kept, or None if there is nothing, or it is of other weights or damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            facts = file.metadata() or {}
            if facts.get("made_from") not in (_hash(made_from), made_from):  # in words, earlier
                return None
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError):
        return None
    about = json.loads(facts["about"])
    if "classes" in about:
        return Head(tuple(about["classes"]), about["link"], **arrays)
    return AnomalyScorer(**arrays)
