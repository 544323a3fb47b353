"""A finished study opened again: its folds' models, and who was on which side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from medcl import manifest
from medcl.classifiers.standardisation import Standard
from medcl.errors import MedclError, UsageError
from medcl.finetune import build, fold_training
from medcl.finetune.batches import size as size_of
from medcl.finetune.loop import Model
from medcl.finetune.result import FinetuneResult
from medcl.labels.outputs import Also, Loss, Outputs
from medcl.plugin import Samples
from medcl.private import read_recipe
from medcl.reading import read_json, read_table
from medcl.recipe import Recipe
from medcl.run import Run, Trained, dataset_settings, from_nothing, load_samples
from medcl.tensors import tensors

PRETRAINED = "pretrained.parquet"
_REMEDY = "Run the same medcl finetune again."


@dataclass(frozen=True)
class Study(Trained):
    """An opened study. See `Study.open`."""

    kind: ClassVar[str] = "study"
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

    def dataset_settings(self, task: str | None = None) -> dict[str, Any]:
        """Those of what it learnt.

        Raises:
            UsageError: if another task is asked for.
        """
        if task is not None:
            raise UsageError(
                f"{self.path} predicts {self.result.label}, which it was trained for: leave "
                "--task out."
            )
        return dataset_settings(self.recipe, self.recipe.finetune.task)

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
        """The samples of its recipe, labelled or not, of its own index or another.

        Of its own, the patients are those that it was split by: its table may have named them.
        """
        made = load_samples(self.recipe, data or self.data, task=self.recipe.finetune.task)
        return made if data is not None else replace(made, patients=self._patients(made))

    def _patients(self, samples: Samples) -> list[str]:
        told: dict[str, str] = {}
        for fold in self.folds:
            frame = read_table(fold / fold_training.SPLIT, _REMEDY)
            told |= dict(zip(frame["id"], frame["patient"], strict=True))
        pairs = zip(samples.ids, samples.patients, strict=True)
        return [told.get(key, who) for key, who in pairs]

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

        path = fold / fold_training.MODEL
        remedy = f"Remove {fold} and run the same medcl finetune: it trains this fold again."
        manifest.check(path, remedy)
        manifest.note(path, of=self.path)
        facts = read_json(fold / fold_training.FACTS, _REMEDY)
        outputs = _outputs(facts, self.recipe)
        try:
            state = load_file(path)
            inputs, values = (
                Standard(tuple(state[f"{name}.mean"].shape)) for name in ("inputs", "values")
            )
            batch = tensors(example)
            size = size_of(batch)
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
                f"{path} is damaged, or not of this recipe's classifier. {remedy}"
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
