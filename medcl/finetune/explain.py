"""Contributions of the instances of test bags, drawn by the plugin.

::

    OUT/explained/<item>/instances.parquet     x, y and a score for each instance
    OUT/explained/<item>/<class>/…             the plugin's drawings, if it has any
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medcl import plugin as plugins
from medcl.archive.index import Index
from medcl.errors import MedclError
from medcl.finetune import fold_training
from medcl.finetune.finetune import Source
from medcl.finetune.fold_training import SCORE
from medcl.finetune.result import FinetuneResult
from medcl.io.atomic import replacing
from medcl.private import read_recipe
from medcl.reading import read_table
from medcl.registry import resolve
from medcl.run import load_samples

FOLDER = "explained"
_REMEDY = "Run the same medcl finetune with --instances into another --out."


def explain(source: Source, out: Path, count: int) -> tuple[list[Path], list[str]]:
    """Draw the first ``count`` test bags of each class, by the first repeat.

    Bags whose instances have no coordinates are written as a table only. A drawing that fails is
    reported and skips its own bag only.

    Args:
        source: of the study.
        out: the study's folder.
        count: bags per class.

    Returns:
        The folders, and one sentence per problem.

    Raises:
        MedclError: if the study has no instances.
    """
    task = read_recipe(out).finetune.task  # the study's, if only the probe has one
    samples = load_samples(source.recipe, source.data, task=task)
    item_of = dict(zip(samples.ids, samples.items, strict=True))
    index = Index.open(source.data)
    draw = plugins.get(source.recipe.plugin).explain
    classes = len(FinetuneResult.load(out).classes)
    folders, problems = [], []
    for bag, frame in chosen(out, count):
        folder = out / FOLDER / bag
        with replacing(folder / fold_training.INSTANCES) as temporary:
            frame.write_parquet(temporary)
        folders.append(folder)
        if draw is None or "x" not in frame.columns:
            continue
        item = item_of[bag]
        files = [index.archive / file for file in index.files(item)]
        facts = samples.facts.get(item, {})
        takes = inspect.signature(resolve(draw)).parameters
        coords = frame.select("x", "y").to_numpy()
        for column in [c for c in frame.columns if c.startswith(SCORE)]:
            name = column.removeprefix(SCORE)
            where = folder / re.sub(r"[^\w-]", "_", name)
            raw = frame[column].to_numpy().astype(np.float64)
            named = name if name != "0" else "all classes" if classes > 1 else ""
            given = {"unit": facts.get("unit"), "raw": raw, "named": named}
            extra = {k: v for k, v in given.items() if k in takes and v is not None}
            try:
                resolve(draw)(files, coords, facts.get("tile"), unit(raw), where, **extra)
            except MedclError as error:
                problems.append(f"{bag} is not drawn: {error}")
                break
    return folders, problems


def chosen(out: Path, count: int) -> list[tuple[str, pl.DataFrame]]:
    """The first test bags of each class in the first repeat, with instances.

    Raises:
        MedclError: if instances were not written.
    """
    tables = sorted((out / fold_training.FOLDER).glob(f"r0f*/{fold_training.INSTANCES}"))
    if not tables:
        raise MedclError(
            f"{out} holds no instances: the study was made without --instances, or its samples are "
            f"not bags. {_REMEDY}"
        )
    predicted = read_table(out / fold_training.PREDICTIONS, _REMEDY).filter(pl.col("repeat") == 0)
    target = [name for name in predicted.columns if name.startswith("truth.")]
    wanted = predicted.group_by(target, maintain_order=True).head(count)["id"].to_list()
    instances = pl.concat([read_table(path, _REMEDY) for path in tables])
    by_bag = instances.filter(pl.col("id").is_in(wanted)).partition_by("id", as_dict=True)
    return [(name, by_bag[name,].sort("instance")) for name in wanted]


def unit(scores: NDArray) -> NDArray[np.float64]:
    """Ranks of scores within the bag, 0 … 1: raw attention over thousands of tiles is tiny."""
    order = np.unique(scores, return_inverse=True)[1].astype(np.float64)
    return order / max(1.0, order.max())
