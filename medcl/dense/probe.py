"""``medcl probe`` of a task of masks: a linear model of frozen features at every position."""

from __future__ import annotations

from pathlib import Path

from medcl import recipe as recipes
from medcl.dense.result import DenseResult
from medcl.dense.study import segment
from medcl.errors import UsageError
from medcl.finetune.finetune import Source
from medcl.run import Run

FOLDER = "probe-masks"
SETTINGS = {"epochs": 20, "batch_size": 4, "validation": 0.0}
OPTIMIZER = {"name": "adamw", "lr": 1e-2, "weight_decay": 0.0}


def probe(
    run: Run,
    task: str,
    *,
    out: Path | None = None,
    device: str = "auto",
    command: str = "",
) -> DenseResult:
    """Compare frozen dense features, pretrained and untrained, on the run's test patients.

    Both encoders get the same linear model of all their stages (`medcl.classifiers.unet`), trained
    on the same patches.

    Args:
        run: a finished run.
        task: of the plugin, of kind "mask".
        out: the folder of the study; None for RUN/probe-masks.
        device: "cpu", "cuda", ..., or "auto".
        command: the command line, for the record.

    Raises:
        UsageError: if the task has no masks, or the encoder no features of positions.
    """
    if run.plugin.tasks[task].kind != "mask":
        raise UsageError(f"Task '{task}' has labels, and no masks.")
    recipe = run.recipe
    raw = recipe.model_dump(mode="json") | {
        "classifier": {"name": "voxel-linear"},
        "optimizer": OPTIMIZER,
        "finetune": {**SETTINGS, "task": task, "bootstraps": recipe.probe.bootstraps},
    }
    source = Source(recipes.parse(raw, (), recorded=True), run.data, run)
    return segment(source, out or run.path / FOLDER, device=device, command=command)
