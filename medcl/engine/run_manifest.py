"""run.json, and checks that a folder holds the same run."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from medcl import manifest
from medcl import recipe as recipes
from medcl.archive.outcomes import Outcome
from medcl.checkpoints import saved
from medcl.engine.data import Selection
from medcl.errors import UsageError
from medcl.io.atomic import locked
from medcl.private import command_without_paths, read_recipe, remember
from medcl.provenance import commit, versions
from medcl.run import Run


def check_same(run: Run, data: Path | None) -> None:
    """Refuse to resume a different run.

    Args:
        run: its folder may exist already.
        data: the index; None for samples in memory.

    Raises:
        UsageError: if the folder holds a run of another recipe (names the first differing key) or
            other data, or checkpoints without a record of their run.
    """
    path = run.path / "recipe.yaml"
    for file in (path, run.path / "run.json"):
        if not file.is_file() and saved(run.path / "checkpoints"):
            raise UsageError(
                f"{run.path} holds checkpoints and no {file.name}: their run is unknown. "
                f"Restore {file.name}, take another --out, or remove that folder."
            )
    if not path.is_file():
        return
    saved_recipe = read_recipe(run.path)  # with defaults for settings added since
    described = {"about": run.recipe.about, "paper": run.recipe.paper}  # may be put in other words
    saved_recipe = saved_recipe.model_copy(update=described)
    old, new = ({"recipe": yaml.safe_load(recipes.dump(r))} for r in (saved_recipe, run.recipe))
    manifest.refuse_other(run.path, "a run", old, new)
    if not (run.path / "run.json").is_file():
        return
    old_data, new_data = None if run.in_memory else run.data, data.resolve() if data else None
    if old_data != new_data and not _same_index(run, new_data):
        raise UsageError(
            f"{run.path} holds a run on other data: {old_data or 'arrays in memory'}, not "
            f"{new_data or 'arrays in memory'}. Take another --out, or remove that folder."
        )


def _same_index(run: Run, data: Path | None) -> bool:
    """Whether an index elsewhere is the one that a run began with, moved or copied."""
    recorded = getattr(manifest.load(run.path), "made_of", {}).get("index")
    items = None if data is None else data / "items.parquet"
    return bool(recorded and items and items.is_file() and manifest.of_file(items) == recorded)


def trained_on(selection: Selection, parts: Mapping[str, str]) -> str:
    """A hash of everything that decides the batches: sample ids, patients, split and label."""
    samples = selection.samples
    part = [parts.get(patient) for patient in samples.patients]
    ids, patients = list(map(str, samples.ids)), list(map(str, samples.patients))
    return manifest.digest(ids, patients, part, selection.label)


def check_same_samples(run: Run, selection: Selection, parts: Mapping[str, str]) -> None:
    """Refuse to resume on other samples: checkpoints refer to samples by position.

    Raises:
        UsageError: if the run began with other samples or another split.
    """
    if not has_started(run):
        return
    facts, saved_manifest = run.facts, manifest.load(run.path)
    if "trained_on" in facts:  # a run from before manifests existed
        same = facts["trained_on"] == _trained_on_before(selection, parts)
    else:
        if saved_manifest is None or "samples" not in saved_manifest.made_of:
            raise UsageError(
                f"Which samples the run in {run.path} began with is unknown: restore its "
                f"{manifest.FILE} from a copy, or take another --out."
            )
        same = saved_manifest.made_of["samples"] == trained_on(selection, parts)
    if not same:
        before = facts.get("samples", 0) + facts.get("samples_outside_training", 0)
        changed = "The array or data set" if run.in_memory else "The index"
        raise UsageError(
            f"{changed} changed since the run in {run.path} began: {before:,} samples then, "
            f"{len(selection.samples):,} now. Take another --out."
        )


def _trained_on_before(selection: Selection, parts: Mapping[str, str]) -> str:
    """The hash that runs stored in run.json before manifests existed."""
    samples = selection.samples
    part = [parts.get(patient) for patient in samples.patients]
    keys = json.dumps([list(map(str, samples.ids)), list(map(str, samples.patients)), part])
    label = b"" if selection.label is None else np.ascontiguousarray(selection.label).tobytes()
    return hashlib.sha256(keys.encode() + label).hexdigest()


def has_started(run: Run) -> bool:
    """True once training has started; the split is fixed from then on."""
    return (run.path / "run.json").is_file()


@contextmanager
def exclusive(run: Run) -> Iterator[None]:
    """Lock the run's folder, in the first process of a run.

    Raises:
        UsageError: if another process is training into it.
    """
    if not is_first_process():
        yield
        return
    busy = f"Another process is training into {run.path}. Wait for it, or take another --out."
    with locked(run.path / ".lock", busy):
        yield


def finished(run: Run) -> bool:
    """Whether training is complete."""
    complete = (run.path / "encoder.safetensors").is_file() and (run.path / "run.json").is_file()
    return complete and bool(run.facts["finished"])


def start(
    run: Run,
    data: Path | None,
    selection: Selection,
    parts: Mapping[str, str],
    command: str,
    *,
    patients_known: bool = True,
    became: Sequence[Outcome] = (),
) -> None:
    """Write run.json and the manifest before training, without results.

    Args:
        run: its folder must exist.
        data: the index; None for samples in memory.
        selection: the training samples.
        parts: patient → "train" or "test".
        command: the command line.
        patients_known: if not, each sample counts as one patient.
        became: outcomes of the archive's files.
    """
    recipe = run.recipe
    if data is not None:
        remember(run.path, data=data, command=command)
    made_of = {
        "index": None if data is None else manifest.of_file(data / "items.parquet"),
        "samples": trained_on(selection, parts),
        "versions": versions(recipe.plugin),
        "commit": commit(),
    }
    manifest.bind(run.path, "run", made_of)
    manifest.forget(run.path / "metrics.csv")  # it grows during training
    _write(
        run.path / "run.json",
        {
            **({} if data is not None else {"in_memory": True, "patients_known": patients_known}),
            "finished": False,
            "recipe": recipe.name,
            "plugin": recipe.plugin,
            "command": command_without_paths(command),
            "seed": recipe.seed,
            "steps": recipe.trainer.steps,
            "samples": len(selection),
            "patients": int(selection.patients.max()) + 1 if patients_known else None,
            "samples_outside_training": len(selection.samples) - len(selection),
            "outcomes": [outcome.row() for outcome in became],
            "versions": made_of["versions"],
            "commit": made_of["commit"],
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        },
    )


def finish(
    run: Run, device: torch.device, seconds: float, warnings: Sequence[str]
) -> dict[str, Any]:
    """Add the results to run.json and the manifest, and mark the run as finished."""
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
        "warnings": list(warnings),
    }
    manifest.add(run.path / "metrics.csv")
    _write(run.path / "run.json", facts)
    return facts


def device_name(device: torch.device) -> str:
    """The device's name, as context for timings."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {platform.machine()}, {os.cpu_count()} cores"


def is_first_process() -> bool:
    """Whether this is rank 0, by the launcher's variables: the process group does not exist yet."""
    names = ("RANK", "SLURM_PROCID", "LOCAL_RANK")
    return next((int(os.environ[n]) for n in names if n in os.environ), 0) == 0


def _write(path: Path, facts: dict[str, Any]) -> None:
    manifest.write_text(path, json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
