"""A study straight from an archive: ``medcl finetune FOLDER`` makes the index in the study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medcl import plugin as plugins
from medcl import recipe as recipes
from medcl.archive.index import Index, Summary, build
from medcl.errors import UsageError

INDEX = "index"
"""The folder of a study that holds its index, where it was made from an archive."""
READER = "reader"


def is_archive(path: Path) -> bool:
    """Whether a folder is neither an index, finished or not, nor a run."""
    known = ("index.json", "recipe.yaml", "private")
    return path.is_dir() and not any((path / name).exists() for name in known)


def parted(settings: Sequence[str]) -> tuple[list[str], list[str]]:
    """Settings of the recipe, and those of the reader (``reader.mpp=0.5``)."""
    reader = [s for s in settings if s.split("=")[0].split(".")[0] == READER]
    return [s for s in settings if s not in reader], reader


def indexed(
    archive: Path,
    out: Path,
    recipe: str | Path | None,
    settings: Sequence[str] = (),
    *,
    patient_from: str | None = None,
    workers: int = 1,
) -> tuple[Path, Summary]:
    """Index an archive into ``out/index``; again, only what changed.

    Args:
        archive: the folder.
        out: the study.
        recipe: says which plugin reads it.
        settings: of the reader, see `parted`.
        patient_from: see `medcl.archive.assign.load`.
        workers: processes.

    Raises:
        UsageError: without a recipe, and as `medcl.archive.index.build`.
    """
    if recipe is None:
        raise UsageError("Say how to train on this archive: -r RECIPE. See medcl recipes.")
    reader: dict[str, Any] = recipes.nested(settings).get(READER, {}) if settings else {}
    summary = build(
        archive,
        out / INDEX,
        plugins.get(recipes.load(recipe).plugin),
        workers=workers,
        patient_from=patient_from,
        reader=reader or None,
    )
    return out / INDEX, summary


def sentence(index: Path, summary: Summary) -> str:
    """What was found, and what was left out with its reasons."""
    what = plugins.get(Index.open(index).plugin_name).item
    text = f"Index {index}: {summary.items:,} {what}s, {summary.ignored:,} other files left out"
    if summary.rejects:
        codes = ", ".join(f"{count:,} {code}" for code, count in summary.rejects.items())
        text += f"; rejected: {codes} (reasons in {index / 'rejects.parquet'})"
    return f"{text}."
