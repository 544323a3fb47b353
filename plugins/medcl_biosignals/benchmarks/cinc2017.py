"""PhysioNet/CinC Challenge 2017: rhythms of single-lead recordings by AliveCor's device.

Clifford 2017 (doi 10.22489/CinC.2017.065-469): the mean F1 of normal rhythm, atrial fibrillation
and other rhythms; noisy recordings (~) are a class that counts as false positives alone. The test
set is not public, so the public recordings are judged in five folds. They carry no person's id:
recordings of equal content share a fold.
"""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import polars as pl

from medcl.benchmark.contract import FOLD, KEY, PATIENT, Benchmark, Problem
from medcl.benchmark.folder import inside
from medcl.benchmark.folds import FOLDS, folds
from medcl.errors import UsageError

CLASSES = ("N", "A", "O", "~")
WHOLE = 8528
_TABLES = ("REFERENCE-v3.csv", "REFERENCE.csv")


def cinc2017(folder: Path) -> Benchmark:
    """The challenge's ``training2017`` with ``REFERENCE-v3.csv``, beside it or inside.

    Raises:
        UsageError: if one of them is missing, or a label is none of the four.
    """
    archive = inside(folder, "training2017", "the challenge of 2017")
    places = [base / name for name in _TABLES for base in (archive.parent, folder, archive)]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise UsageError(f"{folder} holds no {_TABLES[0]}: the labels of the challenge.")
    with path.open(encoding="utf-8-sig", newline="") as handle:
        labels = {row[0]: row[1] for row in csv.reader(handle) if len(row) >= 2}
    if unknown := sorted(set(labels.values()) - set(CLASSES)):
        raise UsageError(f"{path.name} holds labels other than {', '.join(CLASSES)}: {unknown}.")
    names = [name for name in sorted(labels) if (archive / f"{name}.mat").is_file()]
    content = [hashlib.sha256((archive / f"{n}.mat").read_bytes()).hexdigest() for n in names]
    table = pl.DataFrame(
        {
            KEY: names,
            PATIENT: content,
            FOLD: folds([labels[name] for name in names], content),
            "rhythm": [labels[name] for name in names],
        }
    )
    part = "all" if len(names) >= WHOLE else f"a subset, {len(names):,} of {WHOLE:,} recordings,"
    repeated = len(names) - len(set(content))
    return Benchmark(
        name="cinc2017",
        about=f"CinC 2017, {part} in {FOLDS} folds.",
        citation="Clifford 2017, Computing in Cardiology 44, doi 10.22489/CinC.2017.065-469",
        licence="ODC-By 1.0",
        archive=archive,
        table=table,
        problems=(
            Problem("rhythm", "multiclass", CLASSES, ("rhythm",), metric="f1", over=CLASSES[:3]),
        ),
        recipe="biosignals/simclr-ecg",
        settings=(
            "prepare.fs=100",
            "prepare.leads=[I|*]",
            "dataset.quality=0",
            "encoder.widths=[16,32,64,128]",
            "encoder.blocks=1",
        ),
        reader={"columns": {"ECG": "I"}},  # between the two hands: lead I
        dataset={"pad": True, "quality": 0.0},
        notes=(
            "No person's id is public: several recordings of one person may lie in both parts, and "
            "intervals are over recordings.",
            f"{repeated} recordings repeat the content of another, and share its fold.",
        ),
    )
