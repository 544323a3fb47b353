"""What predictions of a run are measured by, learnt from its training patients once and kept.

::

    RUN/predict/<task>/novelty.safetensors     see `medcl.retrieval.anomaly_score`
    RUN/predict/<task>/head.safetensors        see `medcl.embeddings.head`
    RUN/predict/<task>/manifest.json           see `medcl.manifest`

Without a task, the folder is called ``pretraining`` and there is no head.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medcl import manifest
from medcl.embeddings import head
from medcl.embeddings.embeddings import embed, take
from medcl.embeddings.head import Head
from medcl.embeddings.sources import settings, weights
from medcl.errors import MedclError
from medcl.labels.target import target
from medcl.plugin import Samples
from medcl.retrieval import anomaly_score
from medcl.retrieval.anomaly_score import AnomalyScorer
from medcl.run import Run, load_samples

if TYPE_CHECKING:
    from torch import nn

PRETRAINING = "pretraining"
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
    names = ["novelty"] if task is None else ["novelty", "head"]
    folder = run.path / "predict" / (task or PRETRAINING)
    made_of = {
        "encoder": weights(run),
        "settings": settings(run, task),
        "task": task,
        "seed": run.recipe.seed,
    }
    found = _kept(folder, names, made_of) or _kept_before(run, names, task)
    if found is None:
        found = _learn(run, encoder, task, device)
        with manifest.new_folder(folder, "predictor", made_of) as fresh:
            for name, part in zip(names, found, strict=True):
                _save(fresh / f"{name}.safetensors", part)
    kept, classifier = found[0], found[1] if task is not None else None
    assert isinstance(kept, AnomalyScorer)
    assert classifier is None or isinstance(classifier, Head)
    return Reference(kept, classifier)


def _kept(
    folder: Path, names: Sequence[str], made_of: Mapping[str, Any]
) -> list[AnomalyScorer | Head] | None:
    """What was kept, or None if there is nothing, or it is of other weights; damage is said."""
    try:
        there = manifest.load(folder)
        if there is None or manifest.difference(there.made_of, made_of) is not None:
            return None
        return [_load(folder / f"{name}.safetensors") for name in names]
    except manifest.DamagedError as error:
        manifest.warn(f"{str(error).partition('. ')[0]}. It is learnt anew.")
        return None


def _kept_before(
    run: Run, names: Sequence[str], task: str | None
) -> list[AnomalyScorer | Head] | None:
    """What was kept before there were manifests, if it is of these weights and settings."""
    from safetensors import SafetensorError, safe_open

    recipe, suffix = run.recipe, "" if task is None else f".{task}"
    paths = [run.path / "predict" / f"{name}{suffix}.safetensors" for name in names]
    if not all(path.is_file() for path in paths):
        return None
    digest = hashlib.sha256(run.encoder_file().read_bytes())
    sections = {"prepare": recipe.prepare, "encoder": recipe.part("encoder").model_dump()}
    digest.update(json.dumps(sections, sort_keys=True, default=str).encode())
    said = [recipe.dataset, recipe.probe.dataset, task, recipe.seed]
    text = digest.hexdigest() + json.dumps(said, sort_keys=True, default=str)
    wanted = (hashlib.sha256(text.encode()).hexdigest(), text)  # in words, earlier
    try:
        for path in paths:
            with safe_open(path, framework="numpy") as file:
                if (file.metadata() or {}).get("made_from") not in wanted:
                    return None
        found = [_read(path) for path in paths]
    except (OSError, SafetensorError, manifest.DamagedError):
        return None
    manifest.note(paths[0])
    return found


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


def _save(path: Path, part: AnomalyScorer | Head) -> None:
    from safetensors.numpy import save_file

    arrays = {k: np.ascontiguousarray(v) for k, v in vars(part).items() if hasattr(v, "dtype")}
    about = {k: v for k, v in vars(part).items() if k not in arrays}
    save_file(arrays, path, {"about": json.dumps(about)})


def _load(path: Path) -> AnomalyScorer | Head:
    """One part.

    Raises:
        DamagedError: if it is not what was written.
    """
    if not manifest.check(path, ""):
        raise manifest.DamagedError(f"{path} is not in its manifest. ")
    return _read(path)


def _read(path: Path) -> AnomalyScorer | Head:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            about = json.loads((file.metadata() or {})["about"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError):
        raise manifest.DamagedError(f"{path} cannot be read. ") from None
    if "classes" in about:
        return Head(tuple(about["classes"]), about["link"], **arrays)
    return AnomalyScorer(**arrays)
