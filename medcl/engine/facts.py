"""run.json and the question whether a folder holds this very run."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml

from medcl import recipe as recipes
from medcl.archive.atomic import write_text
from medcl.engine.data import Selection
from medcl.errors import UsageError
from medcl.provenance import commit, versions
from medcl.run import Run


def check_same(run: Run, data: Path) -> None:
    """Refuse to continue somebody else's run.

    Raises:
        UsageError: if the folder holds a run of another recipe (names the first differing key) or
            other data.
    """
    path = run.path / "recipe.yaml"
    if not path.is_file():
        return
    old = dict(_flat(yaml.safe_load(path.read_text(encoding="utf-8"))))
    new = dict(_flat(yaml.safe_load(recipes.dump(run.recipe))))
    for key in [*new, *old]:
        if old.get(key) != new.get(key):
            raise UsageError(
                f"{run.path} holds a run of another recipe: {key} is {old.get(key)!r} there and "
                f"{new.get(key)!r} here. Take another --out, or remove that folder."
            )
    if (run.path / "run.json").is_file() and run.facts["data"] != str(data.resolve()):
        raise UsageError(
            f"{run.path} holds a run on other data: {run.facts['data']}, not {data.resolve()}. "
            "Take another --out, or remove that folder."
        )


def _flat(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of a nested mapping by dotted key."""
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _flat(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, node


def finished(run: Run) -> bool:
    """Whether the run came to its end."""
    whole = (run.path / "encoder.safetensors").is_file() and (run.path / "run.json").is_file()
    return whole and bool(run.facts["finished"])


def start(run: Run, data: Path, selection: Selection, command: str) -> None:
    """Write run.json as far as it is known before training."""
    recipe = run.recipe
    path = run.path / "run.json"
    _write(
        path,
        {
            "finished": False,
            "recipe": recipe.name,
            "plugin": recipe.plugin,
            "data": str(data.resolve()),
            "command": command,
            "seed": recipe.seed,
            "steps": recipe.trainer.steps,
            "samples": len(selection),
            "patients": int(selection.patients.max()) + 1,
            "samples_outside_training": len(selection.samples) - len(selection),
            "versions": versions(recipe.plugin),
            "commit": commit(),
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        },
    )


def finish(run: Run, device: torch.device, seconds: float, warnings: list[str]) -> dict[str, Any]:
    """Complete run.json: the run is done."""
    settings = run.recipe.trainer
    processes = settings.devices * settings.nodes
    seen = settings.steps * settings.accumulate * settings.batch_size * processes
    facts = run.facts | {
        "finished": True,
        "device": device_name(device),
        "processes": processes,
        "threads": torch.get_num_threads(),
        "seconds": round(seconds, 3),
        "samples_per_second": round(seen / seconds, 1),
        "warnings": warnings,
    }
    _write(run.path / "run.json", facts)
    return facts


def device_name(device: torch.device) -> str:
    """A name that a reader can compare timings by."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {platform.machine()}, {os.cpu_count()} cores"


def is_first_process() -> bool:
    """Whether this is rank 0, by the launcher's variables: there is no process group yet."""
    names = ("RANK", "SLURM_PROCID", "LOCAL_RANK")
    return next((int(os.environ[n]) for n in names if n in os.environ), 0) == 0


def _write(path: Path, facts: dict[str, Any]) -> None:
    write_text(path, json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
