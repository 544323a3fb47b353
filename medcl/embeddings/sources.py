"""What features of an index are made of, told without building a single sample.

Weights, preparation, samples' settings, code and the tables of the index decide which samples there
are and what an encoder makes of them. Only which items could not be prepared is told by the store.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medcl import manifest
from medcl.archive.claim import reader_mark
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
    """A hash of what prepares and lays out samples, and of the encoder's own settings."""
    recipe = run.recipe
    parts = [recipe.prepare, run.dataset_settings(task), recipe.part("encoder").model_dump()]
    return manifest.digest(*parts)


def sources(run: Run, data: Path, task: str | None, **more: Any) -> dict[str, Any]:
    """A ``made_of`` that is cheap to tell.

    Args:
        run: a finished run.
        data: the index.
        task: whose samples.
        more: whatever else decides.
    """
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
    """What is told by the store: see `LEFT_OUT`."""
    rejected = sorted(prepared(recipe, data).rejects["id"])
    return manifest.digest(rejected) if rejected else None


def still(
    there: Mapping[str, Any], here: Mapping[str, Any], where: Sequence[tuple[Recipe, Path]]
) -> bool:
    """Whether what was made of ``there`` would be made again of ``here``, without building samples.

    Never of code with changes that are not committed, or of settings that name a folder.

    Args:
        there: a ``made_of`` with `LEFT_OUT`.
        here: one without.
        where: the recipe and index of each of the samples' parts.
    """
    if any(there.get(name) != value for name, value in manifest.as_json(here).items()):
        return False
    if "-dirty" in str(here) or "folder" in str(here.get("named files")):
        return False
    if LEFT_OUT not in there:
        return False
    if there[LEFT_OUT] is None:
        return True
    return there[LEFT_OUT] == combined([left_out(recipe, data) for recipe, data in where])


def combined(parts: Sequence[str | None]) -> str | None:
    """Of several indexes."""
    if len(parts) == 1:
        return parts[0]
    return manifest.digest(list(parts)) if any(parts) else None


def _named(run: Run, task: str | None) -> dict[str, str]:
    """Settings that name a file: what it holds; "folder" if it cannot be told cheaply."""
    found = {}
    both = {"prepare": run.recipe.prepare, "dataset": run.dataset_settings(task)}
    for name, value in manifest.leaves(both):
        for place in value if isinstance(value, list | tuple) else [value]:
            if isinstance(place, Path) or (isinstance(place, str) and "/" in place):
                path = Path(place)
                if path.is_dir():
                    found[name] = "folder"
                elif path.is_file():
                    found[name] = manifest.digest(found.get(name), manifest.of_file(path))
    return found


def kept_before(run: Run, name: str, task: str | None) -> Path | None:
    """What an earlier version left in RUN/predict, if it is of these weights and settings."""
    from safetensors import SafetensorError, safe_open

    suffix = "" if task is None else f".{task}"
    path = run.path / "predict" / f"{name}{suffix}.safetensors"
    if not path.is_file():
        return None
    recipe = run.recipe
    digest = hashlib.sha256(run.encoder_file().read_bytes())
    sections = {"prepare": recipe.prepare, "encoder": recipe.part("encoder").model_dump()}
    digest.update(json.dumps(sections, sort_keys=True, default=str).encode())
    said = [recipe.dataset, recipe.probe.dataset, task, recipe.seed]
    text = digest.hexdigest() + json.dumps(said, sort_keys=True, default=str)
    try:
        with safe_open(path, framework="numpy") as file:
            found = (file.metadata() or {}).get("made_from")
    except (OSError, SafetensorError):
        return None
    if found not in (hashlib.sha256(text.encode()).hexdigest(), text):  # in words, earlier
        return None
    manifest.note(path)
    return path
