"""One fold, from its samples to its folder.

::

    OUT/folds/r0f3/model.safetensors     weights of the best epoch, with the standardisation
    OUT/folds/r0f3/predictions.parquet   id, patient, truth, scores; of the test samples
    OUT/folds/r0f3/split.parquet         id, patient, side: train, validation or test
    OUT/folds/r0f3/instances.parquet     of bags, where asked for: what each instance counted for
    OUT/folds/r0f3/fold.json             what was trained, temperature, threshold, history

The folder appears at once and whole: it is there, or the fold is still to be done.
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

from medcl import plugin as plugins
from medcl.finetune import batches, build, loop
from medcl.finetune.folds import SIDES, Part
from medcl.io.atomic import new_folder
from medcl.labels import target as targets
from medcl.labels.activation import CALIBRATED, probabilities
from medcl.labels.auxiliary import on_one_scale
from medcl.labels.outputs import ALSO, Also, Outputs
from medcl.labels.target import Target
from medcl.metrics import calibration
from medcl.plugin import Samples, Views
from medcl.recipe import Recipe
from medcl.registry import resolve
from medcl.run import Run
from medcl.seeds import derive

FOLDER, FACTS = "folds", "fold.json"
PREDICTIONS, INSTANCES, MODEL = "predictions.parquet", "instances.parquet", "model.safetensors"
SPLIT = "split.parquet"
SCORE = "score."


@dataclass(frozen=True, eq=False)
class Work:
    """What all folds of a study share; picklable, for worker processes.

    Attributes:
        samples: the labelled ones, and behind them others to learn from.
        truth: their labels.
        recipe: what to do.
        out: the study's folder.
        run: whose encoder to begin with.
        device: where to train.
        instances: whether to write down what each instance counted for.
        beside: what samples say beside the label, see `medcl.labels.auxiliary`.
        also: the further labels among it.
    """

    samples: Samples
    truth: Target
    recipe: Recipe
    out: Path
    run: Path | None = None
    device: str = "cpu"
    instances: bool = False
    beside: Mapping[str, NDArray] = field(default_factory=dict)
    also: tuple[Also, ...] = ()

    def folder(self, part: Part) -> Path:
        """Where a fold is written."""
        return self.out / FOLDER / part.name

    def done(self, part: Part) -> bool:
        """Whether it was."""
        return (self.folder(part) / FACTS).is_file()


@lru_cache(maxsize=1)
def _opened(work: Work) -> batches.Read:
    """The samples, read once for all folds that this process trains."""
    return batches.reader(work.samples)


def train(work: Work, part: Part) -> None:
    """Train one fold, predict its test samples, and write all of it down."""
    start = time.perf_counter()
    settings, device = work.recipe.finetune, torch.device(work.device)
    seed = derive(work.recipe.seed, part.repeat, part.fold)
    found = work.truth
    edges: tuple[float, ...] = ()
    if found.kind == "hazard":
        found, edges = targets.cut(found, part.train, settings.intervals)
    outputs = replace(targets.outputs(found, part.train, settings), also=work.also)
    learnt = np.concatenate([part.train, part.unlabelled])
    read = _opened(work)
    patients = np.unique(np.asarray(work.samples.patients), return_inverse=True)[1]
    learning = loop.Learning(
        read,
        torch.from_numpy(found.y).to(torch.int64 if found.y.dtype.kind == "i" else torch.float32),
        torch.from_numpy(patients.astype(np.int64)),
        learnt,
        part.validation,
        _strata(work, part),
        {n: batches.tensor(_scaled(n, values, learnt)) for n, values in work.beside.items()},
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
    listed = _Instances(work.samples, outputs) if work.instances else None
    size = settings.batch_size
    scores = loop.predict(trained.model, read, part.test, size, device, listed).numpy()
    told = np.empty((0, outputs.size), np.float32)
    if len(part.validation):
        told = loop.predict(trained.model, read, part.validation, size, device).numpy()
    facts = {
        "repeat": part.repeat,
        "fold": part.fold,
        "outputs": _told(outputs),
        "also": [{"name": a.name, "weight": a.weight, **_told(a.outputs)} for a in work.also],
        "edges": edges,
        **_chosen(outputs, told, work.truth.y[part.validation]),
        "samples": {s: len(getattr(part, s)) for s in (*SIDES, "unlabelled")},
        "classes": {s: targets.counts(work.truth, getattr(part, s)) for s in ("train", "test")},
        "epochs": trained.epochs,
        "best": trained.best,
        "history": trained.history,
        "seconds": round(time.perf_counter() - start, 3),
    }
    with new_folder(work.folder(part)) as folder:
        weights = {k: v.contiguous().cpu() for k, v in trained.model.state_dict().items()}
        save_file(_unshared(weights), folder / MODEL)
        table(work.samples, work.truth, part.test, scores).write_parquet(folder / PREDICTIONS)
        sides(work.samples, part).write_parquet(folder / SPLIT)
        if listed is not None and listed.frames:
            pl.concat(listed.frames).write_parquet(folder / INSTANCES)
        (folder / FACTS).write_text(json.dumps(facts, ensure_ascii=False) + "\n", encoding="utf-8")


def _build(work: Work, seed: int, example: Mapping[str, Tensor], outputs: Outputs) -> Any:
    run = Run.open(work.run) if work.run is not None else None
    return build.build(work.recipe, example, outputs, seed=seed, run=run)


def _told(outputs: Outputs) -> dict[str, Any]:
    return {"kind": outputs.kind, "classes": outputs.classes, "weights": outputs.weights}


def _scaled(name: str, values: NDArray, learnt: NDArray[np.int64]) -> NDArray:
    return on_one_scale(values, learnt) if name.startswith(ALSO) else values


def _views(recipe: Recipe) -> Views:
    made: Views = resolve(plugins.get(recipe.plugin).views)(**recipe.views)
    return made


def _strata(work: Work, part: Part) -> NDArray[np.str_] | None:
    """What the sampler balances: classes, where that is asked for; and those without a label.

    Half of every batch carries a label, or of C balanced classes C of C + 1 parts.
    """
    balanced = work.recipe.finetune.sampler == "balanced"
    if not balanced and not len(part.unlabelled):
        return None
    told = batches.classes_of(work.truth, part.train) if balanced else ["class"] * len(part.train)
    names = [f"a {name}" for name in told]
    return np.array([*names, *["none"] * len(part.unlabelled)])


def _unshared(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Safetensors refuses two names for one storage (a momentum copy at its start)."""
    return {name: tensor.clone() for name, tensor in weights.items()}


def _chosen(outputs: Outputs, scores: NDArray, y: NDArray) -> dict[str, float]:
    """Temperature and threshold, by the validation samples alone."""
    if outputs.kind not in CALIBRATED or not len(scores):
        return {"temperature": 1.0, "threshold": 0.5}
    mended = calibration.temperature(scores, y)
    if outputs.kind != "binary":
        return {"temperature": mended, "threshold": 0.5}
    probability = probabilities("binary", scores, mended)[:, 1]
    return {"temperature": mended, "threshold": calibration.threshold(probability, y == 1)}


def sides(samples: Samples, part: Part) -> pl.DataFrame:
    """Who was on which side."""
    learnt = np.concatenate([part.train, part.unlabelled])  # who has no label is not unseen either
    named = (("train", learnt), ("validation", part.validation), ("test", part.test))
    rows = np.concatenate([rows for _, rows in named])
    return pl.DataFrame(
        {
            "id": [samples.ids[r] for r in rows],
            "patient": [samples.patients[r] for r in rows],
            "side": [side for side, rows in named for _ in rows],
        }
    )


def table(samples: Samples, found: Target, rows: NDArray, scores: NDArray) -> pl.DataFrame:
    """Predictions of samples: keyed hashes, the truth as numbers, and the scores."""
    y = found.y[rows].astype(np.float64)
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
    """Collects what the instances of the test bags counted for."""

    def __init__(self, samples: Samples, outputs: Outputs) -> None:
        self.samples, self.outputs = samples, outputs
        self.frames: list[pl.DataFrame] = []

    def __call__(self, rows: NDArray, batch: Mapping[str, Tensor], found: Tensor) -> None:
        bag = batch["bag"].numpy()
        found = found.unsqueeze(1) if found.ndim == 1 else found
        first = np.searchsorted(bag, np.arange(len(rows)))
        columns: dict[str, Any] = {
            "id": np.asarray(self.samples.ids)[rows][bag],
            "instance": np.arange(len(bag)) - first[bag],
        }
        if "coords" in batch:
            coords = batch["coords"].numpy()
            columns |= {"x": coords[:, 0], "y": coords[:, 1]}
        several = found.shape[1] == len(self.outputs.classes)
        for n, values in enumerate(found.numpy().T):
            columns[f"{SCORE}{self.outputs.classes[n] if several else n}"] = values
        self.frames.append(pl.DataFrame(columns))
