"""Tiles of colorectal tissue, a folder for each class.

``kather2016`` (doi 10.1038/srep27988): 5,000 tiles of 150 pixels, 0.495 µm, eight classes, cut from
ten slides whose numbers the files' names keep: judged in five folds of slides. The paper's ten
folds of tiles have tiles of one slide on both sides, so that its figures are no yardstick.

``kather2018`` (doi 10.1371/journal.pmed.1002730): fitted on the 100,000 tiles of NCT-CRC-HE-100K,
judged on the 7,180 of CRC-VAL-HE-7K, of other patients; 224 pixels, 0.5 µm, nine classes. Whose a
tile is, is not published.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from medcl.benchmark.contract import FOLD, KEY, PATIENT, Benchmark, Problem
from medcl.benchmark.folder import inside
from medcl.benchmark.folds import FOLDS, folds
from medcl.errors import UsageError

CLASSES = ("TUMOR", "STROMA", "COMPLEX", "LYMPHO", "DEBRIS", "MUCOSA", "ADIPOSE", "EMPTY")
CLASSES_2018 = ("ADI", "BACK", "DEB", "LYM", "MUC", "MUS", "NORM", "STR", "TUM")
WHOLE, WHOLE_2018 = 5000, 107_180
_SLIDE = re.compile(r"CRC-Prim-HE-\d+")
_SUFFIXES = (".tif", ".tiff", ".png", ".jpg")
_ENCODER = ("encoder.depth=10", "encoder.base=16")


def kather2016(folder: Path) -> Benchmark:
    """The folder with ``01_TUMOR`` to ``08_EMPTY``.

    Raises:
        UsageError: if one of them is missing, or a tile's name lacks its slide.
    """
    archive = inside(folder, f"01_{CLASSES[0]}", "Kather's texture set of 2016").parent
    tiles = _tiles(archive, [f"{n:02}_{name}" for n, name in enumerate(CLASSES, 1)])
    classes = [name.partition("_")[2] for _, name in tiles]
    slides = [found[0] if (found := _SLIDE.search(key)) else "" for key, _ in tiles]
    if unnamed := slides.count(""):
        raise UsageError(
            f"{unnamed:,} tiles of {archive} lack the slide (CRC-Prim-HE-NN) in their names: tiles "
            "of one slide must not be on both sides. Take the files as they were published."
        )
    part = "all" if len(tiles) >= WHOLE else f"a subset, {len(tiles):,} of {WHOLE:,} tiles,"
    return Benchmark(
        name="kather2016",
        about=f"Colorectal tissue, eight classes, {part} of {len(set(slides))} slides, in {FOLDS} "
        "folds of slides.",
        citation="Kather 2016, Scientific Reports 6:27988, doi 10.1038/srep27988",
        licence="CC BY 4.0",
        archive=archive,
        table=pl.DataFrame(
            {
                KEY: [key for key, _ in tiles],
                PATIENT: slides,
                FOLD: folds(classes, slides),
                "tissue": classes,
            }
        ),
        problems=(Problem("tissue", "multiclass", CLASSES, ("tissue",), metric="accuracy"),),
        recipe="pathology/kather-tiles",
        settings=_ENCODER,
        reader={"mpp": 0.495},
        notes=(
            "The published 0.874 (Kather 2016) is of folds of tiles, which share slides: no "
            "yardstick. Intervals are over slides.",
        ),
    )


def kather2018(folder: Path) -> Benchmark:
    """The folder with ``NCT-CRC-HE-100K`` and ``CRC-VAL-HE-7K``.

    Raises:
        UsageError: if one of them is missing, or lacks a class.
    """
    what = "Kather's sets of 2018, both"
    archive = inside(folder, "CRC-VAL-HE-7K", what).parent
    inside(archive, "NCT-CRC-HE-100K", f"{what} into one folder,")
    tiles = [
        (key, part, name.partition("/")[2])
        for part, place in enumerate(("NCT-CRC-HE-100K", "CRC-VAL-HE-7K"), 1)
        for key, name in _tiles(archive, [f"{place}/{name}" for name in CLASSES_2018])
    ]
    keys, parts = [key for key, *_ in tiles], [part for _, part, _ in tiles]
    whole = "" if len(tiles) >= WHOLE_2018 else f"a subset of {WHOLE_2018:,} tiles, "
    return Benchmark(
        name="kather2018",
        about=f"Colorectal tissue, nine classes, {whole}fitted on {parts.count(1):,}, judged on "
        f"{parts.count(2):,} of other patients.",
        citation="Kather 2019, PLOS Medicine 16:e1002730, doi 10.1371/journal.pmed.1002730",
        licence="CC BY 4.0",
        archive=archive,
        table=pl.DataFrame(
            {KEY: keys, PATIENT: keys, FOLD: parts, "tissue": [name for *_, name in tiles]}
        ),
        problems=(Problem("tissue", "multiclass", CLASSES_2018, ("tissue",), metric="accuracy"),),
        recipe="pathology/kather-tiles",
        settings=("dataset.size=224", "views.size=224", *_ENCODER),
        judged=(2,),
        fitted=(1,),
        reader={"mpp": 0.5},
        notes=("Whose a tile is, is not published: fractions and intervals are of tiles.",),
    )


def _tiles(archive: Path, classes: Sequence[str]) -> list[tuple[str, str]]:
    """Key and folder of each tile in the folders of the classes.

    Raises:
        UsageError: if a class has no tile.
    """
    found = []
    for name in classes:
        here = [p for p in sorted((archive / name).glob("*")) if p.suffix.lower() in _SUFFIXES]
        if not here:
            raise UsageError(f"{archive} holds no tile in {name}: unpack all of the set.")
        found += [(path.relative_to(archive).as_posix(), name) for path in here]
    return found
