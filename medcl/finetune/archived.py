"""A study straight from an archive: ``medcl finetune FOLDER`` makes the index in the study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from medcl import plugin as plugins
from medcl import recipe as recipes
from medcl.archive.index import Index, Summary, build
from medcl.errors import UsageError
from medcl.recipe import Recipe

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
    index: Path,
    recipe: str | Path | Mapping[str, Any] | Recipe | None,
    settings: Sequence[str] = (),
    *,
    patient_from: str | None = None,
    workers: int = 1,
) -> tuple[Path, Summary]:
    """Index an archive; again, only what changed.

    Args:
        archive: the folder.
        index: the folder of the index.
        recipe: says which plugin reads it.
        settings: of the reader, see `parted`.
        patient_from: see `medcl.archive.assign.load`.
        workers: processes.

    Raises:
        UsageError: without a recipe, if every file was rejected, and as
            `medcl.archive.index.build`.
    """
    if recipe is None:
        raise UsageError("Say how to train on this archive: -r RECIPE. See medcl recipes.")
    reader: dict[str, Any] = recipes.nested(settings).get(READER, {}) if settings else {}
    summary = build(
        archive,
        index,
        plugins.get(recipes.given(recipe).plugin),
        workers=workers,
        patient_from=patient_from,
        reader=reader or None,
    )
    if not summary.items and summary.rejected:
        rejects = Index.open(index).rejects
        code = max(summary.rejects, key=lambda name: summary.rejects[name])
        reason = rejects.filter(pl.col("code") == code)["reason"][0]
        raise UsageError(
            f"Nothing of {archive} can be used: all {summary.rejected:,} files were rejected, most "
            f"({summary.rejects[code]:,}) as {code}: {reason} Each by itself: "
            f"{index / 'rejects.parquet'}."
        )
    return index, summary
