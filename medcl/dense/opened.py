"""A finished study of masks, reopened: its networks and splits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from medcl import manifest
from medcl.contract import MASK, X
from medcl.dense.fold import FOLDER
from medcl.dense.result import DenseResult
from medcl.errors import MedclError, UsageError
from medcl.finetune import build
from medcl.finetune.fold_training import FACTS, MODEL, learnt_from
from medcl.finetune.opened import PRETRAINED
from medcl.finetune.result import REMEDY
from medcl.labels.outputs import Outputs
from medcl.private import read_recipe
from medcl.reading import read_json, read_table
from medcl.run import Trained, dataset_settings, from_nothing


@dataclass(frozen=True)
class DenseStudy(Trained):
    """An opened study of masks. See `DenseStudy.open`."""

    kind: ClassVar[str] = "masks"
    result: DenseResult

    @classmethod
    def open(cls, path: Path) -> DenseStudy:
        """Open a finished study.

        Raises:
            UsageError: if the folder is not a study of masks, or the study is not finished.
        """
        if not (path / FOLDER).is_dir():
            raise UsageError(f"{path} is not a study of masks. Make one: medcl finetune")
        return cls(path, read_recipe(path), DenseResult.load(path))

    def dataset_settings(self, task: str | None = None) -> dict[str, Any]:
        """Dataset settings of the study.

        Raises:
            UsageError: if ``task`` is given: a study has one target.
        """
        if task is not None:
            raise UsageError(f"{self.path} predicts only its own classes: omit --task.")
        return dataset_settings(self.recipe, self.recipe.finetune.task)

    @property
    def networks(self) -> list[Path]:
        """Folders of the networks to predict with: from the run's encoder, if there is one."""
        found = (self.path / FOLDER).glob(f"{self.result.starts[0]}-r*")
        return sorted(
            (p for p in found if (p / FACTS).is_file()),
            key=lambda p: [int(n) for n in p.name.partition("-r")[2].split("f")],
        )

    def facts(self, network: Path) -> dict[str, Any]:
        """What is known of a network: see `medcl.dense.fold`."""
        return read_json(network / FACTS, REMEDY)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, the background first."""
        return tuple(self.facts(self.networks[0])["classes"])

    @cached_property
    def patch(self) -> tuple[int, ...]:
        """The size of a window."""
        return tuple(self.facts(self.networks[0])["input"][1:])

    def learnt_from(self, network: Path) -> frozenset[str]:
        """See `medcl.finetune.fold_training.learnt_from`."""
        return learnt_from(network)

    def pretrained_on(self) -> set[str]:
        """Patients that the encoder was pretrained on."""
        path = self.path / PRETRAINED
        return set(read_table(path, REMEDY)["patient"]) if path.is_file() else set()

    def model(self, network: Path) -> nn.Module:
        """A network in evaluation mode.

        Raises:
            MedclError: if the weights are damaged, or not of this recipe's network.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = network / MODEL
        remedy = f"Remove {network} and run the same medcl finetune: it trains this network again."
        manifest.check(path, remedy)
        manifest.note(path, of=self.path)
        example = {X: torch.zeros(1, *self.facts(network)["input"])}
        example[MASK] = torch.zeros(1, *self.patch, dtype=torch.int64)
        try:
            model = build.build(
                from_nothing(self.recipe),
                example,
                Outputs("multiclass", self.classes),
                seed=self.recipe.seed,
            )
            assert isinstance(model, nn.Module)
            model.load_state_dict(load_file(path))
        except (SafetensorError, RuntimeError, OSError):
            raise MedclError(
                f"{path} is damaged, or not of this recipe's network. {remedy}"
            ) from None
        return model.eval()
