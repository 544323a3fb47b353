"""run.json and the question whether a folder holds this very run."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from medcl import recipe as recipes
from medcl.checkpoints import saved
from medcl.engine.data import Selection
from medcl.errors import UsageError
from medcl.io.atomic import locked, write_text
from medcl.private import command_without_paths, read_recipe, remember
from medcl.provenance import commit, versions
from medcl.run import Run


def check_same(run: Run, data: Path) -> None:
    """Refuse to continue somebody else's run.

    Raises:
        UsageError: if the folder holds a run of another recipe (names the first differing key) or
            other data, or checkpoints of which nobody can say.
    """
    path = run.path / "recipe.yaml"
    for file in (path, run.path / "run.json"):
        if not file.is_file() and saved(run.path / "checkpoints"):
            raise UsageError(
                f"{run.path} holds checkpoints and no {file.name}: whose they are cannot be told. "
                f"Restore {file.name}, take another --out, or remove that folder."
            )
    if not path.is_file():
        return
    before = read_recipe(run.path)  # with the defaults of settings that it was written without
    old, new = (dict(_flat(yaml.safe_load(recipes.dump(r)))) for r in (before, run.recipe))
    for key in [*new, *old]:
        if old.get(key) != new.get(key):
            raise UsageError(
                f"{run.path} holds a run of another recipe: {key} is {old.get(key)!r} there and "
                f"{new.get(key)!r} here. Take another --out, or remove that folder."
            )
    if (run.path / "run.json").is_file() and run.data != data.resolve():
        raise UsageError(
            f"{run.path} holds a run on other data: {run.data}, not {data.resolve()}. "
            "Take another --out, or remove that folder."
        )


def trained_on(selection: Selection, parts: Mapping[str, str]) -> str:
    """A hash of what decides the batches: sample ids, their patients, the split and the label."""
    samples = selection.samples
    part = [parts.get(patient) for patient in samples.patients]
    keys = json.dumps([list(map(str, samples.ids)), list(map(str, samples.patients)), part])
    label = b"" if selection.label is None else np.ascontiguousarray(selection.label).tobytes()
    return hashlib.sha256(keys.encode() + label).hexdigest()


def check_same_samples(run: Run, selection: Selection, parts: Mapping[str, str]) -> None:
    """Refuse to continue on other samples: checkpoints know them, and their split, by position.

    Raises:
        UsageError: if the run began with others.
    """
    if not begun(run):
        return
    facts = run.facts
    if facts.get("trained_on") != trained_on(selection, parts):
        then = facts.get("samples", 0) + facts.get("samples_outside_training", 0)
        raise UsageError(
            f"The index changed since the run in {run.path} began: {then:,} samples then, "
            f"{len(selection.samples):,} now. Take another --out."
        )


def begun(run: Run) -> bool:
    """Whether the run came as far as to training: its split is fixed from there on."""
    return (run.path / "run.json").is_file()


@contextmanager
def alone(run: Run) -> Iterator[None]:
    """Hold the run's folder, in the first process of a run.

    Raises:
        UsageError: if another run is being trained into it.
    """
    if not is_first_process():
        yield
        return
    busy = f"Another process is training into {run.path}. Wait for it, or take another --out."
    with locked(run.path / ".lock", busy):
        yield


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


def start(
    run: Run, data: Path, selection: Selection, parts: Mapping[str, str], command: str
) -> None:
    """Write run.json as far as it is known before training."""
    recipe = run.recipe
    path = run.path / "run.json"
    remember(run.path, data=data, command=command)
    _write(
        path,
        {
            "finished": False,
            "recipe": recipe.name,
            "plugin": recipe.plugin,
            "command": command_without_paths(command),
            "seed": recipe.seed,
            "steps": recipe.trainer.steps,
            "samples": len(selection),
            "patients": int(selection.patients.max()) + 1,
            "samples_outside_training": len(selection.samples) - len(selection),
            "trained_on": trained_on(selection, parts),
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
