"""PhysioNet/CinC Challenge 2011: ten seconds of twelve leads by phone, fit to be read or not.

Silva 2011 (Computing in Cardiology 38:273–276): the share of recordings of set A that are told
right; those without a majority among their readers are left out. The test set's labels are not
public, so set A is judged in five folds. It carries no person's id.
"""

from __future__ import annotations

import csv
from pathlib import Path

import polars as pl

from medcl.benchmark.contract import FOLD, KEY, PATIENT, Benchmark, Problem
from medcl.benchmark.folds import folds
from medcl.errors import UsageError
from medcl_biosignals.benchmarks.ptbxl import LEADS

CLASSES = ("acceptable", "unacceptable")
WHOLE = 998
_LISTS = "RECORDS-{}"


def cinc2011(folder: Path) -> Benchmark:
    """Set A: the recordings with ``RECORDS-acceptable`` and ``RECORDS-unacceptable``, or a table
    ``labels.csv`` of ``record`` and ``quality``.

    Raises:
        UsageError: if neither is there, or a label is none of the two.
    """
    places = [folder, *sorted(path for path in folder.glob("*") if path.is_dir())]
    label_of = next((found for place in places if (found := _labels(place))), {})
    archive = next((p.parent for p in sorted(folder.rglob("*.hea")) if p.stem in label_of), None)
    if archive is None:
        raise UsageError(
            f"{folder} does not hold set A of the challenge of 2011: recordings, and "
            "RECORDS-acceptable with RECORDS-unacceptable, or labels.csv."
        )
    if unknown := sorted(set(label_of.values()) - set(CLASSES)):
        raise UsageError(f"{folder} holds labels other than {', '.join(CLASSES)}: {unknown}.")
    names = [name for name in sorted(label_of) if (archive / f"{name}.hea").is_file()]
    part = "all" if len(names) >= WHOLE else f"a subset, {len(names):,} of {WHOLE:,} recordings,"
    return Benchmark(
        name="cinc2011",
        about=f"CinC 2011, set A, {part} in five folds.",
        citation="Silva 2011, Computing in Cardiology 38:273-276",
        licence="ODC-By 1.0",
        archive=archive,
        table=pl.DataFrame(
            {
                KEY: names,
                PATIENT: names,
                FOLD: folds([label_of[name] for name in names], names),
                "quality": [label_of[name] for name in names],
            }
        ),
        problems=(Problem("quality", "binary", CLASSES, ("quality",), metric="accuracy"),),
        recipe="biosignals/simclr-ecg",
        settings=(
            "prepare.fs=100",
            "prepare.flat=null",  # leads that fell off are what is asked for
            f"prepare.leads=[{','.join(LEADS)}]",
            "dataset.stride=10",
            "dataset.quality=0",
            "encoder.widths=[16,32,64,128]",
            "encoder.blocks=1",
        ),
        dataset={"pad": True, "quality": 0.0},
        notes=("No person's id is public: intervals are over recordings.",),
    )


def _labels(folder: Path) -> dict[str, str]:
    """Recording → its label, by the lists or the table in a folder; empty without them."""
    lists = {name: folder / _LISTS.format(name) for name in CLASSES}
    if all(path.is_file() for path in lists.values()):
        return {
            record: name
            for name, path in lists.items()
            for record in path.read_text(encoding="utf-8").split()
        }
    path = folder / "labels.csv"
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8-sig", newline="") as handle:
        rows = list(csv.DictReader(handle))
    if not rows or not {"record", "quality"} <= rows[0].keys():
        return {}
    return {row["record"]: row["quality"] for row in rows}
