"""Liu 2022: rhythms of PPG in segments of ten seconds, told by cardiologists from the ECG beside.

Liu 2022 (JAHA 11:e023555, doi 10.1161/JAHA.121.023555). The training patients are not public, so
those that are there are judged in five folds of patients. Segments of one patient overlap, and each
is scaled by itself. The authors state no licence: measure with it.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from medcl.benchmark.contract import FOLD, KEY, PATIENT, Benchmark, Problem
from medcl.benchmark.folds import FOLDS, folds
from medcl.errors import UsageError
from medcl_biosignals.readers.choose import reader
from medcl_biosignals.readers.contract import BadSignal, Flaw, Settings
from medcl_biosignals.readers.windows import ROWS_ARE_WINDOWS

CLASSES = ("sinus", "PVC", "PAC", "VT", "SVT", "AF")
PUBLIC = 91  # patients
_SUFFIXES = (".npz", ".mat")


def liu2022(folder: Path) -> Benchmark:
    """A folder with a file of arrays for each patient: segments (N, 1000), and a label for each.

    Raises:
        UsageError: if there is none, or a label is none of the six.
    """
    archive = next((p.parent for p in sorted(folder.rglob("*")) if _segments(p)), None)
    if archive is None:
        raise UsageError(
            f"{folder} holds no file of segments of Liu 2022: one for each patient, {_SUFFIXES[0]} "
            f"or {_SUFFIXES[1]}, with the segments in one array and their labels in another."
        )
    rows = []
    for path in sorted(archive.iterdir()):
        for part, label in _segments(path):
            rows.append((f"{path.name}#{part}", path.stem, label))
    if unknown := sorted({label for *_, label in rows} - set(range(len(CLASSES)))):
        raise UsageError(f"{archive} holds labels other than 0 to {len(CLASSES) - 1}: {unknown}.")
    names, patients = [CLASSES[label] for *_, label in rows], [who for _, who, _ in rows]
    count = len(set(patients))
    part_of = "all" if count >= PUBLIC else f"a subset, {count} of {PUBLIC} public patients,"
    return Benchmark(
        name="liu2022",
        about=f"PPG rhythms of Liu 2022, {part_of} {len(rows):,} segments in {FOLDS} folds.",
        citation="Liu 2022, JAHA 11:e023555, doi 10.1161/JAHA.121.023555",
        licence="none stated: measure with it, and ship nothing trained on it",
        archive=archive,
        table=pl.DataFrame(
            {
                KEY: [key for key, *_ in rows],
                PATIENT: patients,
                FOLD: folds(names, patients),
                "rhythm": names,
            }
        ),
        problems=(Problem("rhythm", "multiclass", CLASSES, ("rhythm",), metric="f1"),),
        recipe="biosignals/simclr-ecg",
        settings=(
            "prepare.fs=100",
            "prepare.band=[0.4,8]",
            "prepare.leads=[PPG:*]",
            "dataset.quality=0",
            "encoder.widths=[16,32,64,128]",
            "encoder.blocks=1",
        ),
        dataset={"pad": True, "quality": 0.0},
        notes=("Segments are scaled by themselves: the pulse's height says nothing.",),
    )


def _segments(path: Path) -> list[tuple[str, int]]:
    """The part and label of each segment in a file; none if it is no such file."""
    if path.suffix.lower() not in _SUFFIXES:
        return []
    try:
        found = list(reader(path).headings(path, Settings(fs=100.0)))
    except BadSignal:
        return []
    return [
        (made.part, int(label))
        for made in found
        if not isinstance(made, Flaw) and ROWS_ARE_WINDOWS in made.findings
        for label in made.labels.values()
        if isinstance(label, int | float)
    ]
