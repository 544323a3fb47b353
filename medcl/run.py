"""A run directory: everything about one pretraining, readable without the code that made it.

::

    RUN/recipe.yaml           the recipe, every default written out, PATH for files and folders
    RUN/run.json              seed, versions, command (without paths), device
    RUN/private/              where the index lies, the recipe's paths: see `medcl.private`
    RUN/split.parquet         patient → train/test
    RUN/encoder.safetensors   the encoder's weights
    RUN/checkpoints/          to resume from
    RUN/metrics.csv           loss and monitors by step (also under tensorboard/)
    RUN/probe/                probe.json, predictions.parquet
    RUN/report.html
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import polars as pl

from medcl import manifest, released
from medcl import plugin as plugins
from medcl.errors import MedclError, UsageError
from medcl.plugin import Arrays, Plugin, Samples
from medcl.private import Where, read_recipe, recall
from medcl.reading import read_json, read_table
from medcl.recipe import Recipe, classifier_factory
from medcl.registry import did_you_mean, lookup, resolve

if TYPE_CHECKING:
    from torch import nn

    from medcl.archive.store import Prepared


HANDCRAFTED = "handcrafted"
"""The key of a batch that a classifier names in ``needs``, for the plugin's baseline of that name
beside ``x``: (B, F) float32, zero where a feature is not defined."""
TRANSDUCTIVE = (
    "Pretraining saw the test patients too, though without labels (split.pretrain: all): the "
    "metrics hold for this archive, not for patients of another one."
)
"""The note on metrics if `Run.pretrained_on` holds test patients."""

_RESTORE = "Restore it from a copy of the run, or train into another --out: medcl pretrain"


@dataclass(frozen=True)
class Trained(ABC):
    """The base of a run and a study: something trained by a recipe, in a folder.

    Attributes:
        path: the folder.
        recipe: of the training.
        kind: "run" or "study".
    """

    path: Path
    recipe: Recipe
    kind: ClassVar[str]

    @property
    def plugin(self) -> Plugin:
        """The modality it belongs to."""
        return plugins.get(self.recipe.plugin)

    @property
    def data(self) -> Path:
        """The index of training."""
        return self.where.data

    @property
    def where(self) -> Where:
        """The paths of its index and inputs.

        Raises:
            MedclError: if its private folder is missing.
        """
        return recall(self.path)

    @abstractmethod
    def dataset_settings(self, task: str | None = None) -> dict[str, Any]:
        """The dataset settings of the samples of ``task``.

        Raises:
            UsageError: if there is no such task.
        """


@dataclass(frozen=True)
class Run(Trained):
    """An opened run directory. See `Run.open`."""

    kind: ClassVar[str] = "run"
    remedy: ClassVar[str] = (
        "Remove it and run the same medcl pretrain: it takes the weights from the last checkpoint."
    )
    """How to restore a damaged encoder."""

    @classmethod
    def open(cls, path: Path) -> Run:
        """Open an existing run, or a released encoder by its name (`medcl.released`).

        Raises:
            UsageError: if the folder is not a run.
            MedclError: if its manifest or recipe is damaged.
        """
        path = released.place(path)
        record = manifest.load(path)
        if (record is not None and record.kind == "study") or (path / "study.json").is_file():
            raise UsageError(
                f"{path} is a study of medcl finetune, not a run of medcl pretrain: give the run. "
                "A study is for medcl evaluate, compare, report and predict."
            )
        if not (path / "recipe.yaml").is_file():
            raise UsageError(
                f"{path} is not a run: it holds no recipe.yaml. Make one: medcl pretrain. "
                "Released encoders: medcl encoders"
            )
        return cls(path, read_recipe(path))

    @property
    def facts(self) -> dict[str, Any]:
        """run.json: versions, seed, command.

        Raises:
            MedclError: if it is missing or damaged.
        """
        return read_json(self.path / "run.json", _RESTORE)

    @property
    def in_memory(self) -> bool:
        """True if it was trained on samples in memory: it has no index then."""
        return bool(self.facts.get("in_memory"))

    @property
    def where(self) -> Where:
        """The path of its index.

        Raises:
            UsageError: if it was trained on arrays in memory.
            MedclError: if the run's private folder is missing.
        """
        if (self.path / "run.json").is_file() and self.in_memory:
            raise UsageError(
                f"{self.path} was trained on arrays in memory, so there is no index to go back to: "
                "give one (--data IDX), or the arrays (medcl.embed in Python)."
            )
        if released.is_released(self.path):
            raise UsageError(
                f"{self.path.name} is a released encoder, without the data it was trained on: give "
                "your own, --data IDX."
            )
        return recall(self.path)

    def dataset_settings(self, task: str | None = None) -> dict[str, Any]:
        """The dataset settings of a task; without one, those of pretraining.

        Raises:
            UsageError: if the plugin has no such task.
        """
        return dataset_settings(self.recipe, task)

    def split(self) -> dict[str, str]:
        """Patient key → "train" or "test".

        Raises:
            MedclError: if the file is missing or damaged.
        """
        frame = read_table(self.path / "split.parquet", _RESTORE)
        return dict(zip(frame["patient"], frame["split"], strict=True))

    def pretrained_on(self) -> set[str]:
        """Patients whose samples, though not labels, pretraining used."""
        all_patients = self.recipe.split.pretrain == "all"
        return {
            patient for patient, part in self.split().items() if all_patients or part == "train"
        }

    def encoder_file(self) -> Path:
        """The file of the trained weights.

        Raises:
            UsageError: if the run has not finished.
        """
        path = self.path / "encoder.safetensors"
        if not path.is_file():
            raise UsageError(
                f"{self.path} has no encoder yet: finish it by running the same medcl pretrain."
            )
        return path

    def encoder(self, *, trained: bool = True, seed: int | None = None) -> nn.Module:
        """The encoder, with its trained weights or as initialised under ``seed``, in eval mode.

        Raises:
            UsageError: if the run has not finished, so that there are no trained weights.
            MedclError: if the weights are damaged, or not those of the recipe's encoder.
        """
        recipe = from_nothing(self.recipe) if trained else self.recipe
        module = build_encoder(recipe, recipe.seed if seed is None else seed)
        if trained:
            weights = self.encoder_file()
            from safetensors import SafetensorError
            from safetensors.torch import load_file

            manifest.check(weights, self.remedy)
            manifest.note(weights)
            try:
                module.load_state_dict(load_file(weights))
            except (SafetensorError, RuntimeError, OSError):
                raise MedclError(
                    f"{weights} is damaged, or not of this recipe's encoder. {self.remedy}"
                ) from None
        return module.eval()


def from_nothing(recipe: Recipe) -> Recipe:
    """The recipe without its encoder's file of initial weights, which trained ones replace."""
    section = recipe.part("encoder")
    if not isinstance(section.arguments.get("weights"), Path):
        return recipe
    blank = section.model_copy(update={"weights": None})
    return recipe.model_copy(update={"encoder": blank})


def build_encoder(recipe: Recipe, seed: int) -> nn.Module:
    """A freshly initialised encoder of the recipe: same seed, same weights."""
    import torch

    section = recipe.part("encoder")
    factory = lookup(plugins.get(recipe.plugin).encoders, section.name, "encoder")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder: nn.Module = factory(**section.arguments)
    return encoder


def is_untrained(recipe: Recipe) -> bool:
    """Whether the recipe's encoder has no weights but those drawn at random.

    One that is given a file or folder has some; of others, two seeds tell: without weights they
    make two encoders.
    """
    import torch

    if any(isinstance(value, Path) for value in recipe.part("encoder").arguments.values()):
        return False
    one, other = (build_encoder(recipe, seed).state_dict() for seed in (0, 1))
    return any(not torch.equal(one[name], other[name]) for name in one)


def load_samples(
    recipe: Recipe, data: Path, *, task: str | None = None, workers: int = 1
) -> Samples:
    """Open an index, prepare missing store entries, and build the samples of a recipe or its task.

    Items that could not be prepared are left out; the store keeps the reasons. Call `prepared` and
    `samples_of` instead to report them.

    Raises:
        UsageError: for an unknown task, or settings that the plugin does not take.
        MedclError: if no item can be used.
    """
    return samples_of(recipe, prepared(recipe, data, workers=workers), task=task)


def prepared(recipe: Recipe, data: Path, *, workers: int = 1) -> Prepared:
    """Open an index and prepare the items that the store lacks.

    With one worker the plugin prepares in this process, so a crash of the plugin (a segmentation
    fault) ends it. With two or more, such a crash costs its own item only.

    Raises:
        UsageError: for settings that the plugin does not take.
        MedclError: if no item can be used, with the reason.
    """
    from medcl.archive.index import Index
    from medcl.archive.store import prepare

    items = prepare(Index.open(data), plugins.get(recipe.plugin), recipe.prepare, workers=workers)
    if items.items.is_empty() and (reason := items.left_out()):
        raise MedclError(f"Nothing of {data} can be used. {reason}")
    return items


def samples_of(recipe: Recipe, items: Prepared, *, task: str | None = None) -> Samples:
    """The samples of a recipe or its task, from prepared items.

    With ``task``, the task's dataset settings and then ``recipe.probe.dataset`` override
    ``recipe.dataset``.

    Raises:
        UsageError: for an unknown task, or settings that the plugin does not take.
    """
    return samples_from(recipe, items.items, items.arrays, dataset_settings(recipe, task))


def samples_from(
    recipe: Recipe, items: pl.DataFrame, arrays: Arrays, settings: Mapping[str, Any]
) -> Samples:
    """Samples of some prepared items under dataset settings, with what the classifier needs.

    Raises:
        UsageError: for settings that the plugin does not take, or a classifier that needs
            hand-crafted features of a plugin without any.
    """
    plugin = plugins.get(recipe.plugin)
    samples: Samples = resolve(plugin.dataset)(items, arrays, **settings)
    if HANDCRAFTED not in _needs(recipe):
        return samples
    baseline = lookup(plugin.baselines, HANDCRAFTED, "baseline")
    return replace(samples, read=partial(_with_handcrafted, samples.read, baseline))


def _needs(recipe: Recipe) -> tuple[str, ...]:
    """What the recipe's classifier needs of a batch beside the sample itself."""
    if recipe.classifier is None:
        return ()
    declares = getattr(classifier_factory(recipe), "declares", None)
    return tuple(getattr(declares, "needs", ()))


def _with_handcrafted(
    read: Callable[[np.ndarray], dict[str, np.ndarray]],
    baseline: Callable[[Mapping[str, np.ndarray]], np.ndarray],
    positions: np.ndarray,
) -> dict[str, np.ndarray]:
    batch = read(positions)
    features = np.asarray(baseline(batch), np.float32)
    return {**batch, HANDCRAFTED: np.nan_to_num(features, posinf=0, neginf=0)}


def dataset_settings(recipe: Recipe, task: str | None) -> dict[str, Any]:
    """The settings of a recipe's dataset, overridden by those of a task: see `samples_of`.

    Raises:
        UsageError: for an unknown task.
    """
    if task is None:
        return dict(recipe.dataset)
    plugin = plugins.get(recipe.plugin)
    if task not in plugin.tasks:
        hint = did_you_mean(task, plugin.tasks)
        raise UsageError(f"Unknown task '{task}' of plugin '{plugin.name}'. {hint}")
    return {**recipe.dataset, **plugin.tasks[task].dataset, **recipe.probe.dataset}
