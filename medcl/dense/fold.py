"""Train one network of a study of masks, measure it on its test images, and write its folder.

::

    OUT/networks/pretrained-r0f3/model.safetensors   weights of the best epoch
    OUT/networks/pretrained-r0f3/cases.parquet       a row for each test image and class
    OUT/networks/pretrained-r0f3/split.parquet       id, patient, split: train, validation or test
    OUT/networks/pretrained-r0f3/overlay-0.png       masks and predictions of some test images
    OUT/networks/pretrained-r0f3/fold.json           history, captions of the overlays

The folder is written atomically: if it exists, the network is complete.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from medcl import manifest
from medcl import plugin as plugins
from medcl import recipe as recipes
from medcl.classifiers.contract import Classifier, declared
from medcl.contract import MASK, SPACING, X
from medcl.dense import inference, measure, train
from medcl.finetune import build
from medcl.finetune.fold_training import FACTS, MODEL, SPLIT, split_table
from medcl.finetune.folds import Part
from medcl.io.atomic import new_folder
from medcl.labels.outputs import Outputs
from medcl.plugin import Samples, Views
from medcl.recipe import Recipe
from medcl.registry import resolve
from medcl.run import Run
from medcl.seeds import derive
from medcl.tensors import tensors

FOLDER, CASES = "networks", "cases.parquet"
OVERLAYS = 3
"""Test images of each network that are drawn."""
Start = Literal["pretrained", "untrained"]


@dataclass(frozen=True, eq=False)
class Work:
    """Shared by all networks of a study; picklable, for worker processes.

    Attributes:
        samples: images with a mask.
        recipe: all settings.
        out: the study's folder.
        run: whose encoder the pretrained networks begin with.
        device: of training.
    """

    samples: Samples
    recipe: Recipe
    out: Path
    run: Path | None = None
    device: str = "cpu"

    @property
    def outputs(self) -> Outputs:
        """The classes of a position."""
        return Outputs("multiclass", self.samples.mask_classes)

    def folder(self, start: Start, part: Part) -> Path:
        """The folder of a network."""
        return self.out / FOLDER / f"{start}-{part.name}"

    def done(self, start: Start, part: Part) -> bool:
        """True if the network is complete."""
        return (self.folder(start, part) / FACTS).is_file()


def run_one(work: Work, job: tuple[Start, Part]) -> None:
    """Train one network, predict its test images, and write its folder."""
    start, part = job
    began = time.perf_counter()
    recipe, device = work.recipe, torch.device(work.device)
    seed = derive(recipe.seed, part.repeat, part.fold)  # of both starts: the same patches
    checkpoint = work.out / FOLDER / f"{start}-{part.name}.ckpt"
    trained = train.fit(
        partial(_build, work, start, seed),
        work.samples,
        part.train,
        part.validation,
        recipe.finetune,
        recipe.optimizer,
        seed=seed,
        device=device,
        checkpoint=checkpoint,
        views=_views(recipe),
    )
    patch = patch_of(work.samples)
    with new_folder(work.folder(start, part)) as folder:
        weights = {k: v.detach().cpu().contiguous() for k, v in trained.model.state_dict().items()}
        save_file({name: values.clone() for name, values in weights.items()}, folder / MODEL)
        rows: list[dict[str, Any]] = []
        overlays: list[dict[str, str]] = []
        for n, row in enumerate(part.test.tolist()):
            image = work.samples.read(np.array([row]))
            predicted = predict(trained.model, image, patch, recipe.finetune.window_overlap, device)
            rows += _cases(work, row, image, predicted)
            if n < OVERLAYS and (
                caption := _draw(work, image, predicted, folder / f"overlay-{n}.png")
            ):
                overlays.append({"file": f"overlay-{n}.png", "caption": caption})
        pl.DataFrame(rows).write_parquet(folder / CASES)
        split_table(work.samples, part).write_parquet(folder / SPLIT)
        facts = {
            "start": start,
            "repeat": part.repeat,
            "fold": part.fold,
            "classes": list(work.samples.mask_classes),
            "input": [image[X].shape[1], *patch],
            "epochs": len(trained.history),
            "best": trained.best,
            "history": trained.history,
            "overlays": overlays,
            "seconds": round(time.perf_counter() - began, 3),
        }
        (folder / FACTS).write_text(json.dumps(facts, ensure_ascii=False) + "\n", encoding="utf-8")
        manifest.seal(folder, "network", {k: facts[k] for k in ("start", "repeat", "fold")})
    checkpoint.unlink(missing_ok=True)


def patch_of(samples: Samples) -> tuple[int, ...]:
    """The size of a patch."""
    return tuple(train.drawn(samples, np.zeros(1, np.int64), 0, 0)[X].shape[2:])


def predict(
    model: torch.nn.Module,
    image: Mapping[str, NDArray],
    patch: tuple[int, ...],
    overlap: float,
    device: torch.device,
) -> NDArray[np.float32]:
    """Probabilities (C, *space) of an image as `Samples.read` gives it."""
    x = tensors({X: image[X]})[X]

    def scores(windows: Tensor) -> Tensor:
        out: Tensor = model.predict({X: windows})["scores"]  # type: ignore[operator]
        return out

    return inference.whole(scores, x, patch, overlap=overlap, device=device).numpy()


def _build(work: Work, start: Start, seed: int, example: Mapping[str, Tensor]) -> Classifier:
    run = Run.open(work.run) if work.run is not None and start == "pretrained" else None
    return build.build(work.recipe, example, work.outputs, seed=seed, run=run)


def _views(recipe: Recipe) -> Views | None:
    """The recipe's augmentations, if the network asks for a view."""
    if not declared(recipes.classifier_factory(recipe)).views:
        return None
    views: Views = resolve(plugins.get(recipe.plugin).views)(**recipe.views)
    return views


def _cases(
    work: Work, row: int, image: Mapping[str, NDArray], probability: NDArray[np.float32]
) -> list[dict[str, Any]]:
    truth, predicted = image[MASK][0], probability.argmax(0)
    names = work.samples.mask_classes
    settings = work.recipe.finetune
    figures = measure.measured(
        predicted, truth, len(names), image[SPACING][0].tolist(), settings.tolerance
    )
    return [
        {
            "id": work.samples.ids[row],
            "patient": work.samples.patients[row],
            "class": name,
            **{key: float(values[n]) for key, values in figures.items()},
            "drawn": int((truth == n + 1).sum()),
            "predicted": int((predicted == n + 1).sum()),
        }
        for n, name in enumerate(names[1:])
    ]


def _draw(
    work: Work, image: Mapping[str, NDArray], probability: NDArray[np.float32], path: Path
) -> str | None:
    """Draw a test image, if the plugin can; returns the caption."""
    overlay = plugins.get(work.recipe.plugin).overlay
    if overlay is None:
        return None
    names = work.samples.mask_classes
    figure, caption = resolve(overlay)(image[X][0], image[MASK][0], probability.argmax(0), names)
    figure.savefig(path, dpi=100)
    return str(caption)
