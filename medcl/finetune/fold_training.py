"""Train one fold and write its folder.

::

    OUT/folds/r0f3/model.safetensors     weights of the best epoch, with the standardisation
    OUT/folds/r0f3/predictions.parquet   id, patient, truth, scores; of the test samples
    OUT/folds/r0f3/split.parquet         id, patient, split: train, validation or test
    OUT/folds/r0f3/instances.parquet     for bags, on request: each instance's contribution
    OUT/folds/r0f3/fold.json             outputs, temperature, threshold, history

The folder is written atomically: if it exists, the fold is complete.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from medcl import manifest
from medcl import plugin as plugins
from medcl.contract import BAG, COORDS
from medcl.finetune import batches, build, devices, loop
from medcl.finetune.folds import PARTS, Part
from medcl.finetune.places import FACTS as FACTS
from medcl.finetune.places import FOLDER as FOLDER
from medcl.finetune.result import REMEDY
from medcl.io.atomic import new_folder
from medcl.labels import target as targets
from medcl.labels.activation import CALIBRATED, probabilities
from medcl.labels.auxiliary import on_one_scale
from medcl.labels.outputs import ALSO, Auxiliary, Outputs
from medcl.labels.target import Target
from medcl.metrics import calibration
from medcl.nn.distributed import ranks
from medcl.plugin import Samples, Views
from medcl.reading import read_table
from medcl.recipe import Recipe
from medcl.registry import resolve
from medcl.run import Run
from medcl.seeds import derive
from medcl.tensors import tensor

PREDICTIONS, INSTANCES, MODEL = "predictions.parquet", "instances.parquet", "model.safetensors"
SPLIT = "split.parquet"
SCORE = "score."


@dataclass(frozen=True, eq=False)
class Work:
    """Shared by all folds of a study; picklable, for worker processes.

    Attributes:
        samples: labelled samples first, then unlabelled ones to learn from.
        target: their labels.
        recipe: all settings.
        out: the study's folder.
        run: whose encoder is the start; None for a new one.
        device: of training.
        instances: True to write each instance's contribution.
        auxiliary: name → (N, ...) auxiliary targets, see `medcl.labels.auxiliary`.
        auxiliary_labels: the further labels among them.
    """

    samples: Samples
    target: Target
    recipe: Recipe
    out: Path
    run: Path | None = None
    device: str = "cpu"
    instances: bool = False
    auxiliary: Mapping[str, NDArray] = field(default_factory=dict)
    auxiliary_labels: tuple[Auxiliary, ...] = ()

    def folder(self, part: Part) -> Path:
        """The folder of a fold."""
        return self.out / FOLDER / part.name

    def done(self, part: Part) -> bool:
        """True if the fold is complete."""
        return (self.folder(part) / FACTS).is_file()


@lru_cache(maxsize=1)
def _opened(work: Work) -> batches.Read:
    """The samples, read once for all folds that this process trains."""
    return batches.reader(work.samples)


def train(work: Work, part: Part) -> None:
    """Train one fold, predict its test samples, and write its folder."""
    count = work.recipe.finetune.devices
    if count == 1 or ranks().world > 1:
        _train(work, part)
    else:
        devices.on_each(count, work.device, partial(_train_on, work, part))


def _train_on(work: Work, part: Part, device: str) -> None:
    _train(replace(work, device=device), part)


def _train(work: Work, part: Part) -> None:
    start = time.perf_counter()
    settings, device = work.recipe.finetune, torch.device(work.device)
    seed = derive(work.recipe.seed, part.repeat, part.fold)
    target = work.target
    edges: tuple[float, ...] = ()
    if target.kind == "hazard":
        target, edges = targets.cut(target, part.train, settings.intervals)
    outputs = replace(
        targets.outputs(target, part.train, settings), auxiliary=work.auxiliary_labels
    )
    learnt = np.concatenate([part.train, part.unlabelled])
    read = _opened(work)
    patients = np.unique(np.asarray(work.samples.patients), return_inverse=True)[1]
    learning = loop.Learning(
        read,
        torch.from_numpy(target.y).to(torch.int64 if target.y.dtype.kind == "i" else torch.float32),
        torch.from_numpy(patients.astype(np.int64)),
        learnt,
        part.validation,
        _strata(work, part),
        {n: tensor(_scaled(n, values, learnt)) for n, values in work.auxiliary.items()},
        work.samples.instances,
    )
    trained = loop.fit(
        partial(_build, work, seed),
        outputs,
        learning,
        settings,
        work.recipe.optimizer,
        seed=seed,
        device=device,
        views=partial(_views, work.recipe),
    )
    if ranks().rank:
        return  # the first process writes
    listed = _Instances(work.samples, outputs) if work.instances else None
    size = settings.batch_size
    scores = loop.predict(trained.model, read, part.test, size, device, listed).numpy()
    validation_scores = np.empty((0, outputs.size), np.float32)
    if len(part.validation):
        validation_scores = loop.predict(trained.model, read, part.validation, size, device).numpy()
    facts = {
        "repeat": part.repeat,
        "fold": part.fold,
        "outputs": _described(outputs),
        "auxiliary": [
            {"name": a.name, "weight": a.weight, **_described(a.outputs)}
            for a in work.auxiliary_labels
        ],
        "edges": edges,
        **_chosen(outputs, validation_scores, work.target.y[part.validation]),
        "samples": {s: len(getattr(part, s)) for s in (*PARTS, "unlabelled")},
        "classes": {s: targets.counts(work.target, getattr(part, s)) for s in ("train", "test")},
        "epochs": trained.epochs,
        "best": trained.best,
        "history": trained.history,
        "seconds": round(time.perf_counter() - start, 3),
    }
    with new_folder(work.folder(part)) as folder:
        weights = {k: v.contiguous().cpu() for k, v in trained.model.state_dict().items()}
        save_file(_unshared(weights), folder / MODEL)
        table(work.samples, work.target, part.test, scores).write_parquet(folder / PREDICTIONS)
        split_table(work.samples, part).write_parquet(folder / SPLIT)
        if listed is not None and listed.frames:
            pl.concat(listed.frames).write_parquet(folder / INSTANCES)
        (folder / FACTS).write_text(json.dumps(facts, ensure_ascii=False) + "\n", encoding="utf-8")
        manifest.seal(folder, "fold", {"repeat": part.repeat, "fold": part.fold})


def _build(work: Work, seed: int, example: Mapping[str, Tensor], outputs: Outputs) -> Any:
    run = Run.open(work.run) if work.run is not None else None
    return build.build(work.recipe, example, outputs, seed=seed, run=run)


def _described(outputs: Outputs) -> dict[str, Any]:
    return {
        "kind": outputs.kind,
        "classes": outputs.classes,
        "weights": outputs.weights,
        **({"counts": outputs.counts} if outputs.counts is not None else {}),
    }


def _scaled(name: str, values: NDArray, learnt: NDArray[np.int64]) -> NDArray:
    return on_one_scale(values, learnt) if name.startswith(ALSO) else values


def _views(recipe: Recipe) -> Views:
    views: Views = resolve(plugins.get(recipe.plugin).views)(**recipe.views)
    return views


def _strata(work: Work, part: Part) -> NDArray[np.str_] | None:
    """Strata of the sampler: classes, if it is balanced; and samples without a label.

    Half of every batch is labelled; with C balanced classes, C of C + 1 parts.
    """
    balanced = work.recipe.finetune.sampler == "balanced"
    if not balanced and not len(part.unlabelled):
        return None
    classes = (
        batches.classes_of(work.target, part.train) if balanced else ["class"] * len(part.train)
    )
    names = [f"a {name}" for name in classes]
    return np.array([*names, *["none"] * len(part.unlabelled)])


def _unshared(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Safetensors refuses two names for one storage (a momentum copy at its start)."""
    return {name: values.clone() for name, values in weights.items()}


def _chosen(outputs: Outputs, scores: NDArray, y: NDArray) -> dict[str, float]:
    """Temperature and threshold, from the validation samples alone."""
    if outputs.kind not in CALIBRATED or not len(scores):
        return {"temperature": 1.0, "threshold": 0.5}
    temperature = calibration.temperature(scores, y)
    if outputs.kind != "binary":
        return {"temperature": temperature, "threshold": 0.5}
    probability = probabilities("binary", scores, temperature)[:, 1]
    return {"temperature": temperature, "threshold": calibration.threshold(probability, y == 1)}


def split_table(samples: Samples, part: Part) -> pl.DataFrame:
    """The part (train, validation or test) of each sample."""
    learnt = np.concatenate([part.train, part.unlabelled])  # unlabelled samples are seen too
    named = (("train", learnt), ("validation", part.validation), ("test", part.test))
    rows = np.concatenate([rows for _, rows in named])
    return pl.DataFrame(
        {
            "id": [samples.ids[r] for r in rows],
            "patient": [samples.patients[r] for r in rows],
            "split": [name for name, rows in named for _ in rows],
        }
    )


def read_split(folder: Path) -> pl.DataFrame:
    """The table of `split_table` in the folder of a fold or network.

    Raises:
        MedclError: if it is missing or damaged.
    """
    frame = read_table(folder / SPLIT, REMEDY)
    return frame.rename({"side": "split"}) if "side" in frame.columns else frame  # earlier name


def learnt_from(folder: Path) -> frozenset[str]:
    """Patients of training and of validation, which chose epoch and threshold."""
    return frozenset(read_split(folder).filter(pl.col("split") != "test")["patient"])


def table(samples: Samples, target: Target, rows: NDArray, scores: NDArray) -> pl.DataFrame:
    """Predictions of samples: keyed hashes, the target as numbers, and the scores."""
    y = target.y[rows].astype(np.float64)
    y = y[:, None] if y.ndim == 1 else y
    columns: dict[str, Any] = {
        "row": rows,
        "id": [samples.ids[r] for r in rows],
        "patient": [samples.patients[r] for r in rows],
        **{f"truth.{n}": values for n, values in enumerate(y.T)},
        **{f"{SCORE}{n}": values for n, values in enumerate(scores.T)},
    }
    return pl.DataFrame(columns)


class _Instances:
    """Collects the contributions of the test bags' instances."""

    def __init__(self, samples: Samples, outputs: Outputs) -> None:
        self.samples, self.outputs = samples, outputs
        self.frames: list[pl.DataFrame] = []

    def __call__(self, rows: NDArray, batch: Mapping[str, Tensor], scores: Tensor) -> None:
        bag = batch[BAG].numpy()
        scores = scores.unsqueeze(1) if scores.ndim == 1 else scores
        first = np.searchsorted(bag, np.arange(len(rows)))
        columns: dict[str, Any] = {
            "id": np.asarray(self.samples.ids)[rows][bag],
            "instance": np.arange(len(bag)) - first[bag],
        }
        if COORDS in batch:
            coords = batch[COORDS].numpy()
            columns |= {"x": coords[:, 0], "y": coords[:, 1]}
        several = scores.shape[1] == len(self.outputs.classes)
        for n, values in enumerate(scores.numpy().T):
            columns[f"{SCORE}{self.outputs.classes[n] if several else n}"] = values
        self.frames.append(pl.DataFrame(columns))
