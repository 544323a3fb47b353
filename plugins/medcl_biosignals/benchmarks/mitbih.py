"""MIT-BIH Arrhythmia: beats of unseen people into the classes of ANSI/AAMI EC57.

The inter-patient split of de Chazal 2004 (doi 10.1109/TBME.2004.827359): fitted on the 22 records
of DS1, judged on the 22 of DS2; the four paced records are left out, as EC57 asks. With the records
of one part alone these are judged in five folds of people, and the set is named a subset. A row of
the table is a beat.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from medcl.benchmark.contract import AT, FOLD, KEY, PATIENT, Benchmark, Problem
from medcl.benchmark.folder import inside
from medcl.benchmark.folds import FOLDS, folds
from medcl.errors import UsageError
from medcl.plugin import Samples
from medcl_biosignals.aami import CLASSES
from medcl_biosignals.annotations import read_annotations
from medcl_biosignals.readers.contract import BadSignal
from medcl_biosignals.readers.wfdb_header import read_header

DS1 = (
    "101", "106", "108", "109", "112", "114", "115", "116", "118", "119", "122",
    "124", "201", "203", "205", "207", "208", "209", "215", "220", "223", "230",
)  # fmt: skip
DS2 = (
    "100", "103", "105", "111", "113", "117", "121", "123", "200", "202", "210",
    "212", "213", "214", "219", "221", "222", "228", "231", "232", "233", "234",
)  # fmt: skip
_PARTS = {"DS1": DS1, "DS2": DS2}
_REACH = 0.15  # seconds: the tolerance of EC57


def mitbih(folder: Path) -> Benchmark:
    """The folder with the records and their ``.atr``, of DS1 and DS2 or one of them.

    Raises:
        UsageError: if no record of either is there, or one cannot be read.
    """
    headers = sorted(folder.rglob("*.hea"))
    here = {name: _there(headers, records) for name, records in _PARTS.items()}
    if not any(here.values()):
        inside(folder, f"{DS1[0]}.hea", "MIT-BIH (mitdb)")  # says what to unpack
        raise UsageError(f"{folder} holds headers of MIT-BIH, but no annotations (.atr) of them.")
    archive = Path(os.path.commonpath([p.parent for found in here.values() for p in found]))
    rows = [
        (path.relative_to(archive).with_suffix("").as_posix(), path.stem, part, at, name)
        for part, found in enumerate(here.values(), 1)
        for path in found
        for at, name in _beats(path)
    ]
    people, classes = [who for _, who, *_ in rows], [name for *_, name in rows]
    both = all(here.values())
    fold = [part for _, _, part, *_ in rows] if both else folds(classes, people)
    whole = all(len(found) == len(_PARTS[name]) for name, found in here.items())
    count = " and ".join(f"{len(found)} records of {n}" for n, found in here.items() if found)
    judged = "fitted on DS1, judged on DS2" if both else f"in {FOLDS} folds of people"
    return Benchmark(
        name="mitbih",
        about=f"MIT-BIH Arrhythmia, {'' if whole else 'a subset, '}{count}: {len(rows):,} beats, "
        f"{judged}.",
        citation="Moody 2001, IEEE Eng Med Biol Mag 20:45; the split of de Chazal 2004, "
        "doi 10.1109/TBME.2004.827359",
        licence="ODC-By 1.0",
        archive=archive,
        table=pl.DataFrame(
            {
                KEY: [key for key, *_ in rows],
                AT: [at for *_, at, _ in rows],
                PATIENT: people,
                FOLD: fold,
                "nsv": [name if name in CLASSES[:3] else None for name in classes],
                "nsvf": [name if name in CLASSES[:4] else None for name in classes],
            }
        ),
        problems=(
            Problem("nsv", "multiclass", CLASSES[:3], ("nsv",), metric="f1"),
            Problem("nsvf", "multiclass", CLASSES[:4], ("nsvf",), metric="f1"),
        ),
        recipe="biosignals/mitbih",
        judged=(2,) if both else (),
        fitted=(1,) if both else (),
        dataset={"kind": "beat", "seconds": 3.0, "quality": 0.0, "minimum": None, "unusual": 0.0},
        place=_centre,
        reach=_REACH,
        relative=True,
        most=200,
        notes=(
            "Classifiers are fitted on at most 200 beats of each class and person; all beats are "
            "judged. Encoders see 3 s around a beat, and their features are taken relative to the "
            "median of the record, which needs no label.",
            "Records count as people, as in the standard: 201 (DS1) and 202 (DS2) are one man.",
            *(() if both else ("Figures of one part are no figures of DS1 → DS2.",)),
        ),
    )


def _there(headers: Sequence[Path], records: tuple[str, ...]) -> list[Path]:
    """The headers of those records that have their annotations, of the folder with most of them."""
    places: dict[Path, list[Path]] = {}
    for path in headers:
        if path.stem in records and path.with_suffix(".atr").is_file():
            places.setdefault(path.parent, []).append(path)
    return max(places.values(), key=len, default=[])


def _beats(header: Path) -> Iterator[tuple[float, str]]:
    """Seconds from the record's first sample and class of each beat that its annotations name.

    Raises:
        UsageError: if one of the two files cannot be read.
    """
    try:
        head, marks = read_header(header), read_annotations(header.with_suffix(".atr"))
    except (BadSignal, ValueError) as error:
        raise UsageError(f"Record {header.stem} cannot be read: {error}. Copy it again.") from None
    for at, code in zip(marks.beats.tolist(), marks.classes.tolist(), strict=True):
        if head.frames is None or at < head.frames:
            yield at / (marks.fs or head.fs), CLASSES[code]


def _centre(samples: Samples) -> np.ndarray:
    """(N,) seconds of the beat in the middle of each window."""
    assert samples.where is not None
    where = samples.where(np.arange(len(samples)))
    return np.asarray(where["start"] + where["seconds"] / 2)
