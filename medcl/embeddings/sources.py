"""Inputs that determine the features of an index, read without building samples.

Weights, preparation, dataset settings, code and the index tables determine the samples and their
features. Only the items that could not be prepared must be read from the store.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medcl import manifest
from medcl.archive.claim import reader_mark
from medcl.archive.index import Index
from medcl.provenance import commit, versions
from medcl.recipe import Recipe
from medcl.run import Run, prepared

LEFT_OUT = "left_out"
"""In a ``made_of``: a hash of the items that could not be prepared; None if all could."""
_ITEMS = "items.parquet"


def weights(run: Run) -> str:
    """The SHA-256 of a run's encoder, checked first.

    Raises:
        MedclError: if it is damaged.
    """
    path = run.encoder_file()
    manifest.check(path, run.remedy)
    return manifest.of_file(path)


def settings(run: Run, task: str | None) -> str:
    """A hash of the preparation, dataset and encoder settings."""
    recipe = run.recipe
    parts = [recipe.prepare, run.dataset_settings(task), recipe.part("encoder").model_dump()]
    return manifest.digest(*parts)


def sources(run: Run, data: Path, task: str | None, **more: Any) -> dict[str, Any]:
    """A cheap ``made_of``.

    Args:
        run: a finished run.
        data: the index.
        task: whose samples.
        more: further inputs.

    Raises:
        UsageError: if ``data`` is no index.
    """
    if not (data / _ITEMS).is_file():
        Index.open(data)  # says what it is instead
    private = data / "private"
    known = (private / "archive.json").is_file()
    return {
        "encoder": weights(run),
        "settings": settings(run, task),
        "task": task,
        "named files": _named(run, task),
        "index": manifest.of_file(data / _ITEMS),
        "reader": manifest.digest(reader_mark(private)) if known else None,
        "preparation": run.plugin.preparation,
        "code": versions(run.recipe.plugin) | {"commit": commit() or ""},
        **more,
    }


def left_out(recipe: Recipe, data: Path) -> str | None:
    """The items that the store could not prepare, hashed: see `LEFT_OUT`."""
    rejected = sorted(prepared(recipe, data).rejects["id"])
    return manifest.digest(rejected) if rejected else None


def still(
    stored: Mapping[str, Any], current: Mapping[str, Any], where: Sequence[tuple[Recipe, Path]]
) -> bool:
    """True if ``stored`` inputs equal ``current`` ones; builds no samples.

    Always False for code with uncommitted changes, and for settings that name a folder.

    Args:
        stored: a ``made_of`` with `LEFT_OUT`.
        current: one without.
        where: the recipe and index of each of the samples' parts.
    """
    if any(stored.get(name) != value for name, value in manifest.as_json(current).items()):
        return False
    if "-dirty" in str(current) or "folder" in str(current.get("named files")):
        return False
    if LEFT_OUT not in stored:
        return False
    if stored[LEFT_OUT] is None:
        return True
    return stored[LEFT_OUT] == combined([left_out(recipe, data) for recipe, data in where])


def combined(parts: Sequence[str | None]) -> str | None:
    """One hash of several indexes' left-out items."""
    if len(parts) == 1:
        return parts[0]
    return manifest.digest(list(parts)) if any(parts) else None


def _named(run: Run, task: str | None) -> dict[str, str]:
    """Setting that names a file → hash of the file; "folder" if it names a folder."""
    hashes = {}
    sections = {"prepare": run.recipe.prepare, "dataset": run.dataset_settings(task)}
    for name, value in manifest.leaves(sections):
        for entry in value if isinstance(value, list | tuple) else [value]:
            if isinstance(entry, Path) or (isinstance(entry, str) and "/" in entry):
                path = Path(entry)
                if path.is_dir():
                    hashes[name] = "folder"
                elif path.is_file():
                    hashes[name] = manifest.digest(hashes.get(name), manifest.of_file(path))
    return hashes


def earlier_version(run: Run, name: str, task: str | None) -> Path | None:
    """The file of an earlier version in RUN/predict, if it has these weights and settings."""
    from safetensors import SafetensorError, safe_open

    suffix = "" if task is None else f".{task}"
    path = run.path / "predict" / f"{name}{suffix}.safetensors"
    if not path.is_file():
        return None
    recipe = run.recipe
    digest = hashlib.sha256(run.encoder_file().read_bytes())
    sections = {"prepare": recipe.prepare, "encoder": recipe.part("encoder").model_dump()}
    digest.update(json.dumps(sections, sort_keys=True, default=str).encode())
    data_settings = [recipe.dataset, recipe.probe.dataset, task, recipe.seed]
    text = digest.hexdigest() + json.dumps(data_settings, sort_keys=True, default=str)
    try:
        with safe_open(path, framework="numpy") as file:
            made_from = (file.metadata() or {}).get("made_from")
    except (OSError, SafetensorError):
        return None
    if made_from not in (hashlib.sha256(text.encode()).hexdigest(), text):  # in words, earlier
        return None
    manifest.note(path)
    return path
