"""Sets of one file with official parts (`medcl.archive.array_set`) as benchmarks: all of MedMNIST.

Fitted on the training part, judged on the test part; ``val`` is left out. Own metrics are those of
the authors (Yang 2023): accuracy, beside macro AUROC, which the page has of every set. A row of the
table is an image.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medcl.archive.array_set import BLOCK, PARTS, key, labels, shapes
from medcl.benchmark.contract import AT, FOLD, KEY, PATIENT, Benchmark, Problem
from medcl.errors import MedclError, UsageError
from medcl.metrics.metrics import Kind
from medcl.plugin import Samples


@dataclass(frozen=True)
class ArraySet:
    """What is known of a set.

    Attributes:
        title: as its authors write it.
        classes: in the order of their codes, or the labels of which an image may have several.
        images: of the whole set, all parts.
        kind: of problem; grades are judged as classes, as the authors do.
    """

    title: str
    classes: tuple[str, ...]
    images: int
    kind: Kind = "multiclass"


def benchmark(
    name: str,
    of: ArraySet,
    folder: Path,
    *,
    recipe: str,
    settings: Callable[[tuple[int, ...]], Sequence[str]],
    dataset: Callable[[tuple[int, ...]], Mapping[str, Any]],
    place: Callable[[Samples], NDArray],
    notes: Sequence[str] = (),
) -> Benchmark:
    """The set of that name in a folder, which may hold others.

    Args:
        name: of the file, without size and suffix: ``pathmnist`` is ``pathmnist.npz`` or
            ``pathmnist_64.npz``.
        of: what is known of it.
        folder: the user's.
        recipe, notes: see `Benchmark`.
        settings, dataset: of images of a shape, see `Benchmark`.
        place: samples → number of the image in its block.

    Raises:
        UsageError: if there is no such file, or several, or one that is not as it should be.
    """
    path = _file(name, folder)
    try:
        held = shapes(path)
        label = {part: labels(path, part) for part in PARTS}
    except MedclError as error:
        raise UsageError(f"{path.name}: {error}") from None
    several = of.kind == "multilabel"
    codes = np.concatenate(list(label.values()))
    highest = 1 if several else len(of.classes) - 1
    if codes.ndim != 1 + several or (several and codes.shape[1] != len(of.classes)):
        raise UsageError(f"{path.name} has labels of shape {codes.shape}: it is no {of.title}.")
    if codes.max(initial=0) > highest:
        raise UsageError(f"{path.name} has the label {codes.max()}, above {highest}.")
    count = {part: shape[0] for part, shape in held.items()}
    rows = [(part, n) for part in PARTS for n in range(count[part])]
    columns = dict(zip(of.classes, codes.T, strict=True)) if several else {"class": codes}
    if of.kind == "multiclass":
        columns = {"class": np.array(of.classes)[codes]}
    whole = "" if len(rows) >= 0.99 * of.images else f"a subset of {of.images:,} images, "
    size = held[PARTS[0]][1:]
    return Benchmark(
        name=name,
        about=f"{of.title}, {whole}{'×'.join(str(n) for n in size)}: {count['train']:,} images to "
        f"fit on, {count['test']:,} to judge.",
        citation="Yang 2023, MedMNIST v2, Scientific Data 10:41, doi 10.1038/s41597-022-01721-8",
        licence="that of its source, see medmnist.com (CC BY 4.0 or CC BY-NC 4.0)",
        archive=path.parent,
        files=(path.name,),
        table=pl.DataFrame(
            {
                KEY: [key(path.name, part, n) for part, n in rows],
                AT: [n % BLOCK for _, n in rows],
                PATIENT: [f"{part}/{n}" for part, n in rows],
                FOLD: [PARTS.index(part) + 1 for part, _ in rows],
                **columns,
            }
        ),
        problems=(Problem("class", of.kind, of.classes, tuple(columns), metric="accuracy"),),
        recipe=recipe,
        settings=tuple(settings(size)),
        judged=(3,),
        fitted=(1,),
        dataset=dict(dataset(size)),
        place=place,
        notes=(
            "Whose an image is, is not published: fractions and intervals are of images.",
            "Classifiers weigh classes inversely to their frequency, which costs accuracy where "
            "classes are rare; published figures are of networks trained for accuracy.",
            *notes,
        ),
    )


def _file(name: str, folder: Path) -> Path:
    """The one file of the set.

    Raises:
        UsageError: if there is none, or there are several sizes.
    """
    pattern = re.compile(rf"{re.escape(name)}(_\d+)?\.npz", re.IGNORECASE)
    found = [path for path in sorted(folder.rglob("*.npz")) if pattern.fullmatch(path.name)]
    if not found:
        raise UsageError(f"{folder} holds no {name}.npz: download it from medmnist.com.")
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise UsageError(f"{folder} holds {names}: give a folder with the one that is meant.")
    return found[0]
