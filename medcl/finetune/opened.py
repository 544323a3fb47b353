"""A finished study opened again: its folds' models, and who was on which side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from medcl import plugin as plugins
from medcl.classifiers.standardisation import Standard
from medcl.errors import MedclError, UsageError
from medcl.finetune import batches, build, fold_training
from medcl.finetune.loop import Model
from medcl.finetune.result import FinetuneResult
from medcl.labels.outputs import Also, Loss, Outputs
from medcl.plugin import Plugin, Samples
from medcl.private import Where, read_recipe, recall
from medcl.reading import read_json, read_table
from medcl.recipe import Recipe
from medcl.run import Run, from_nothing, load_samples

PRETRAINED = "pretrained.parquet"
_REMEDY = "Run the same medcl finetune again."


@dataclass(frozen=True)
class Study:
    """An opened study. See `Study.open`."""

    path: Path
    recipe: Recipe
    result: FinetuneResult
    only: str | None = None

    @classmethod
    def open(cls, path: Path, *, only: str | None = None) -> Study:
        """Open a finished study; ``only`` one of its folds, by the name of its folder.

        Raises:
            UsageError: if the folder is none, or the study did not come to its end.
        """
        if not (path / fold_training.FOLDER).is_dir():
            raise UsageError(f"{path} is no study. Make one: medcl finetune")
        return cls(path, read_recipe(path), FinetuneResult.load(path), only)

    @property
    def plugin(self) -> Plugin:
        """The modality it belongs to."""
        return plugins.get(self.recipe.plugin)

    @property
    def data(self) -> Path:
        """The index that it was made from."""
        return self.where.data

    @property
    def where(self) -> Where:
        """Where it came from.

        Raises:
            MedclError: if the study came without its private folder.
        """
        return recall(self.path)

    @property
    def run(self) -> Run | None:
        """The run whose encoder it began with."""
        path = self.where.run
        return Run.open(path) if path else None

    def pretrained_on(self) -> set[str] | None:
        """Patients whom the pretraining of its encoder saw; None where nobody can say any more."""
        path = self.path / PRETRAINED
        if path.is_file():
            return set(read_table(path, _REMEDY)["patient"])
        try:  # earlier studies did not note it
            run = self.run
            return set() if run is None else run.pretrained_on()
        except MedclError:  # it is gone; its encoder is in the study's own weights
            return None

    @property
    def folds(self) -> list[Path]:
        """The folders of its trainings, or of the one that is meant."""
        return sorted(
            (
                p
                for p in (self.path / fold_training.FOLDER).glob(self.only or "r*")
                if (p / fold_training.FACTS).is_file()
            ),
            key=lambda p: [int(n) for n in p.name.removeprefix("r").split("f")],
        )

    def samples(self, data: Path | None = None) -> Samples:
        """The samples of its recipe, labelled or not, of its own index or another."""
        return load_samples(self.recipe, data or self.data, task=self.recipe.finetune.task)

    def sides(self, fold: Path, ids: list[str]) -> NDArray[np.str_]:
        """(N,) train, validation, test, or "" of some samples in a fold."""
        frame = read_table(fold / fold_training.SPLIT, _REMEDY)
        side = dict(zip(frame["id"], frame["side"], strict=True))
        return np.array([side.get(key, "") for key in ids])

    def tested(self, fold: Path) -> pl.DataFrame:
        """What a fold predicted: id, patient, truth.*, score.*."""
        return read_table(fold / fold_training.PREDICTIONS, _REMEDY)

    def model(self, fold: Path, example: Mapping[str, np.ndarray]) -> Model:
        """A fold's classifier in evaluation mode.

        Args:
            fold: one of `folds`.
            example: a batch as `Samples.read` returns it; only its shapes matter.

        Raises:
            MedclError: if the weights are damaged, or not of this recipe's classifier.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        facts = read_json(fold / fold_training.FACTS, _REMEDY)
        outputs = _outputs(facts, self.recipe)
        try:
            state = load_file(fold / fold_training.MODEL)
            inputs, values = (
                Standard(tuple(state[f"{name}.mean"].shape)) for name in ("inputs", "values")
            )
            batch = batches.tensors(example)
            size = int(batch["bag"].max()) + 1 if "bag" in batch else len(batch["x"])
            batch |= {"y": _blank(outputs, size), "patient": torch.zeros(size, dtype=torch.int64)}
            classifier = build.build(
                from_nothing(self.recipe) if self.recipe.encoder else self.recipe,
                batch,
                outputs,
                seed=self.recipe.seed,
            )
            model = Model(classifier, inputs, values)
            model.load_state_dict(state)
        except (SafetensorError, RuntimeError, OSError, KeyError):
            raise MedclError(
                f"{fold / fold_training.MODEL} is damaged, or not of this recipe's classifier. Remove "
                f"{fold} and run the same medcl finetune: it trains this fold again."
            ) from None
        return model.eval()


def _outputs(facts: Mapping[str, Any], recipe: Recipe) -> Outputs:
    made = _of(facts["outputs"], recipe.finetune.loss)
    also = tuple(Also(a["name"], _of(a, "ce"), a["weight"]) for a in facts.get("also", ()))
    return replace(made, also=also)


def _of(told: Mapping[str, Any], loss: Loss) -> Outputs:
    weights = told["weights"]
    return Outputs(
        told["kind"],
        tuple(told["classes"]),
        loss,
        tuple(weights) if weights is not None else None,
    )


def _blank(outputs: Outputs, size: int) -> torch.Tensor:
    """Labels of the right shape, of no meaning."""
    if outputs.kind == "multilabel":
        return torch.zeros(size, outputs.size)
    if outputs.kind in ("cox", "hazard"):
        return torch.zeros(size, 2)
    dtype = torch.float32 if outputs.kind == "regression" else torch.int64
    return torch.zeros(size, dtype=dtype)
