"""Sets shaped as those of the UCR archive: one series in each row, its class in the first column.

Dau 2019 (IEEE/CAA J. Autom. Sinica 6:1293, doi 10.1109/jas.2019.1911747). The parts are the
authors': fitted on ``NAME_TRAIN.tsv``, judged on ``NAME_TEST.tsv``, by accuracy. Series have no
rate and no person: their samples are taken as 10 in a second, so that the shortest last one, and
each series for a person of its own.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from medcl.benchmark.contract import FOLD, KEY, PATIENT, Benchmark, Problem
from medcl.errors import UsageError
from medcl_biosignals.readers.choose import reader
from medcl_biosignals.readers.contract import BadSignal, Flaw, Settings

TRAIN, TEST = "_TRAIN.tsv", "_TEST.tsv"
FS = 10.0
_LABEL = "label"


def ucr(folder: Path) -> Benchmark:
    """One set: a folder with its two files.

    Raises:
        UsageError: if there are none, of several sets, or rows without a class.
    """
    files = sorted(folder.rglob(f"*{TRAIN}"))
    if len(files) != 1:
        names = ", ".join(path.name.removesuffix(TRAIN) for path in files)
        raise UsageError(
            f"{folder} holds {f'several sets ({names})' if names else f'no NAME{TRAIN}'}: give the "
            f"folder of one set, with its {TRAIN[1:]} and {TEST[1:]}."
        )
    (train,) = files
    name = train.name.removesuffix(TRAIN)
    test = train.with_name(f"{name}{TEST}")
    if not test.is_file():
        raise UsageError(f"{test} is missing: the part to judge on.")
    rows, longest = [], 0
    for part, path in enumerate((train, test), 1):
        for number, label, samples in _series(path):
            rows.append((f"{path.name}#{number}", part, label))
            longest = max(longest, samples)
    table = pl.DataFrame(
        {
            KEY: [key for key, *_ in rows],
            PATIENT: [key for key, *_ in rows],
            FOLD: [part for _, part, _ in rows],
            "class": [label for *_, label in rows],
        }
    )
    return Benchmark(
        name="ucr",
        about=f"{name} of the UCR archive: {len(rows):,} series of up to {longest:,} samples.",
        citation="Dau 2019, IEEE/CAA J. Autom. Sinica 6:1293, doi 10.1109/jas.2019.1911747",
        licence="the archive's own: ask its authors",
        archive=train.parent,
        table=table,
        problems=(
            Problem("class", "multiclass", _ordered(table["class"]), ("class",), "accuracy"),
        ),
        recipe="biosignals/simclr-ecg",
        settings=(
            f"prepare.fs={FS:g}",
            "prepare.band=null",
            "prepare.leads=['*']",
            "dataset.quality=0",
            f"dataset.seconds={longest / FS:g}",
            "encoder.widths=[16,32,64,128]",
            "encoder.blocks=1",
        ),
        judged=(2,),
        fitted=(1,),
        reader={"rows": "windows", "fs": FS},
        dataset={"pad": True, "quality": 0.0},
        notes=("Nobody says whose a series is: intervals are over series, not people.",),
    )


def _series(path: Path) -> list[tuple[str, str, int]]:
    """Number, class and samples of each row.

    Raises:
        UsageError: if the file has no such rows.
    """
    asked = Settings(fs=FS, rows="windows")
    try:
        found = [made for made in reader(path).headings(path, asked) if not isinstance(made, Flaw)]
    except BadSignal as error:
        raise UsageError(f"{path.name} is no table of series: {error}.") from error
    if not found or any(_LABEL not in made.labels for made in found):
        raise UsageError(f"{path.name} has no class in the first column of its rows.")
    return [(one.part, str(one.labels[_LABEL]), round(one.seconds * FS)) for one in found]


def _ordered(values: pl.Series) -> tuple[str, ...]:
    """Class names, numbers in their order."""
    return tuple(sorted(set(values), key=lambda v: (0, float(v), "") if _number(v) else (1, 0, v)))


def _number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True
