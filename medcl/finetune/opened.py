"""A finished study, reopened: its folds' models and splits."""

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
from medcl.finetune.result import REMEDY, FinetuneResult
from medcl.labels.outputs import Auxiliary, Loss, Outputs
from medcl.plugin import Samples
from medcl.private import read_recipe
from medcl.reading import read_json, read_table
from medcl.recipe import Recipe
from medcl.run import Run, Trained, dataset_settings, from_nothing, load_samples
from medcl.tensors import tensors

PRETRAINED = "pretrained.parquet"
NAMED = "named.parquet"
"""Where the table of labels names patients: ``indexed``, the index's keys of them; ``patient``."""


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
            UsageError: if the folder is not a study, or the study is not finished.
        """
        if not (path / fold_training.FOLDER).is_dir():
            raise UsageError(f"{path} is not a study. Make one: medcl finetune")
        return cls(path, read_recipe(path), FinetuneResult.load(path), only)

    def dataset_settings(self, task: str | None = None) -> dict[str, Any]:
        """Dataset settings of the study's task.

        Raises:
            UsageError: if ``task`` is another one.
        """
        if task is not None:
            raise UsageError(f"{self.path} predicts only {self.result.label}: omit --task.")
        return dataset_settings(self.recipe, self.recipe.finetune.task)

    @property
    def run(self) -> Run | None:
        """The run whose encoder was the start; None for a new encoder."""
        path = self.where.run
        return Run.open(path) if path else None

    def pretrained_on(self) -> set[str] | None:
        """Patients that the encoder was pretrained on; None if no longer known."""
        path = self.path / PRETRAINED
        if path.is_file():
            return set(read_table(path, REMEDY)["patient"])
        try:  # earlier studies did not record it
            run = self.run
            return set() if run is None else run.pretrained_on()
        except MedclError:  # the run is gone; the study's weights hold its encoder
            return None

    def as_indexed(self, patients: frozenset[str]) -> frozenset[str]:
        """Patients of the study, with the keys that its index has of those.

        A table of labels may name the patients of recordings that name none; new recordings are
        without that table, and a patient is recognised by the index's key.
        """
        path = self.path / NAMED
        if not path.is_file():
            return patients
        table = read_table(path, REMEDY)
        pairs = zip(table["indexed"], table["patient"], strict=True)
        return patients | {key for key, patient in pairs if patient in patients}

    @property
    def folds(self) -> list[Path]:
        """The folders of its trainings, or of the one selected."""
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

        For its own index, patients are those of the split: the label table may have named them.
        """
        samples = load_samples(self.recipe, data or self.data, task=self.recipe.finetune.task)
        return samples if data is not None else replace(samples, patients=self._patients(samples))

    def _patients(self, samples: Samples) -> list[str]:
        patient_of: dict[str, str] = {}
        for fold in self.folds:
            frame = fold_training.read_split(fold)
            patient_of |= dict(zip(frame["id"], frame["patient"], strict=True))
        pairs = zip(samples.ids, samples.patients, strict=True)
        return [patient_of.get(key, patient) for key, patient in pairs]

    def parts(self, fold: Path, ids: list[str]) -> NDArray[np.str_]:
        """(N,) part of samples in a fold: train, validation, test, or "" for none."""
        frame = fold_training.read_split(fold)
        part = dict(zip(frame["id"], frame["split"], strict=True))
        return np.array([part.get(key, "") for key in ids])

    def tested(self, fold: Path) -> pl.DataFrame:
        """Test predictions of a fold: id, patient, truth.*, score.*."""
        return read_table(fold / fold_training.PREDICTIONS, REMEDY)

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
        facts = read_json(fold / fold_training.FACTS, REMEDY)
        try:
            state = load_file(path)
            recipe = from_nothing(self.recipe) if self.recipe.encoder else self.recipe
            model = blank(recipe, facts, tensors(example), state)
            model.load_state_dict(state)
        except (SafetensorError, RuntimeError, OSError, KeyError):
            raise MedclError(
                f"{path} is damaged, or not of this recipe's classifier. {remedy}"
            ) from None
        return model.eval()


def blank(
    recipe: Recipe,
    facts: Mapping[str, Any],
    batch: Mapping[str, torch.Tensor],
    state: Mapping[str, torch.Tensor],
    prefix: str = "",
) -> Model:
    """A fold's classifier with untrained weights.

    Args:
        recipe: its classifier and encoder.
        facts: of the fold: ``outputs`` and ``auxiliary``.
        batch: an example; only its shapes matter.
        state: the weights it is built for, whose names begin with ``prefix``.
        prefix: see ``state``.
    """
    inputs, values = (
        Standard(tuple(state[f"{prefix}{name}.mean"].shape)) for name in ("inputs", "values")
    )
    outputs, size = _outputs(facts, recipe), size_of(batch)
    labels = {"y": _blank(outputs, size), "patient": torch.zeros(size, dtype=torch.int64)}
    classifier = build.build(recipe, {**batch, **labels}, outputs, seed=recipe.seed)
    return Model(classifier, inputs, values)


def _outputs(facts: Mapping[str, Any], recipe: Recipe) -> Outputs:
    outputs = _of(facts["outputs"], recipe.finetune.loss)
    described = facts.get("auxiliary", facts.get("also", ()))  # the second: its earlier name
    auxiliary = tuple(Auxiliary(a["name"], _of(a, "ce"), a["weight"]) for a in described)
    return replace(outputs, auxiliary=auxiliary)


def _of(facts: Mapping[str, Any], loss: Loss) -> Outputs:
    weights, counts = facts["weights"], facts.get("counts")
    return Outputs(
        facts["kind"],
        tuple(facts["classes"]),
        loss,
        tuple(weights) if weights is not None else None,
        counts=tuple(counts) if counts is not None else None,
    )


def _blank(outputs: Outputs, size: int) -> torch.Tensor:
    """Placeholder labels of the right shape."""
    if outputs.kind == "multilabel":
        return torch.zeros(size, outputs.size)
    if outputs.kind in ("cox", "hazard"):
        return torch.zeros(size, 2)
    dtype = torch.float32 if outputs.kind == "regression" else torch.int64
    return torch.zeros(size, dtype=dtype)
