"""PTB-XL: ten seconds of twelve leads, by the folds of its authors.

Wagner 2020 (doi 10.1038/s41597-020-0495-6); problems, folds and macro AUROC as Strodthoff 2021 (doi
10.1109/JBHI.2020.3022989): fitted on folds 1–8, fold 9 left for choices, judged on fold 10.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from medcl.benchmark.contract import FOLD, KEY, PATIENT, Benchmark, Problem
from medcl.benchmark.folder import inside
from medcl.benchmark.folds import FOLDS, folds
from medcl.errors import UsageError
from medcl_biosignals.scp import STATEMENTS, statements

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
TABLE = "ptbxl_database.csv"
WHOLE = 21_799  # recordings of version 1.0.3
_TEST, _TRAIN = 10, tuple(range(1, 9))
_RATES = {"records100": "filename_lr", "records500": "filename_hr"}


def ptbxl(folder: Path) -> Benchmark:
    """PTB-XL in a folder with ``ptbxl_database.csv``, ``scp_statements.csv`` and records.

    Without fold 10, as a subset for development has it, the last fold is judged. Of a single fold,
    as the plugin's sample has it, the patients are judged in five.

    Raises:
        UsageError: if one of them is missing.
    """
    table_of = inside(folder, TABLE, "PTB-XL")
    root = table_of.parent
    rate = next((name for name in _RATES if (root / name).is_dir()), None)
    if rate is None:
        raise UsageError(f"{root} holds neither records100 nor records500 of PTB-XL.")
    rows = pl.read_csv(table_of, infer_schema_length=None)
    said = [statements(cell) or frozenset() for cell in rows["scp_codes"]]
    of = _columns(root / STATEMENTS)
    there = [
        (root / f"{name}.hea").is_file() if isinstance(name, str) else False
        for name in rows[_RATES[rate]]
    ]
    columns: dict[str, list[float | None]] = {}
    problems = []
    for problem, groups in of.items():
        kept = {c: codes for c, codes in groups.items() if any(codes & row for row in said)}
        if not kept:
            continue
        asked = frozenset().union(*kept.values())  # recordings without any are left out, as there
        for name, codes in kept.items():
            columns[f"{problem}.{name}"] = [
                float(bool(codes & row)) if asked & row else None for row in said
            ]
        names = tuple(kept)
        problems.append(
            Problem(problem, "multilabel", names, tuple(f"{problem}.{name}" for name in names))
        )
    columns["AFIB"] = [int("AFIB" in row) for row in said]
    problems.append(Problem("AFIB", "binary", ("other", "AFIB"), ("AFIB",)))
    table = pl.DataFrame(
        {
            KEY: [name.split("/", 1)[1] for name in rows[_RATES[rate]]],
            PATIENT: [str(int(p)) for p in rows["patient_id"]],
            FOLD: rows["strat_fold"].cast(pl.Int64),
            **columns,
        }
    ).filter(pl.Series(there))
    official = sorted(set(table[FOLD]))
    judged, fitted, note = _parts(official)
    if not judged:
        patients = table[PATIENT].to_list()
        table = table.with_columns(pl.Series(FOLD, folds([""] * len(table), patients)))
    part = "all" if len(table) >= WHOLE else f"a subset, {len(table):,} of {WHOLE:,} recordings,"
    return Benchmark(
        name="ptbxl",
        about=f"PTB-XL, {part} at {rate.removeprefix('records')} Hz.",
        citation="Wagner 2020, Scientific Data 7:154, doi 10.1038/s41597-020-0495-6",
        licence="CC BY 4.0",
        archive=root / rate,
        table=table,
        problems=tuple(problems),
        recipe="biosignals/simclr-ecg",
        settings=(
            "prepare.fs=100",
            f"prepare.leads=[{','.join(LEADS)}]",
            "dataset.stride=10",
            "dataset.quality=0",
            "encoder.widths=[16,32,64,128]",
            "encoder.blocks=1",
        ),
        judged=judged,
        fitted=fitted,
        dataset={"pad": True, "quality": 0.0},
        notes=note,
    )


def _parts(official: list[int]) -> tuple[tuple[int, ...], tuple[int, ...], tuple[str, ...]]:
    """Folds to judge and to fit on, none for folds of our own, and what is to be said of that."""
    published = (
        "The published 0.93 of superclasses (Strodthoff 2021) is that of 17,000 training "
        "recordings, judged on fold 10."
    )
    if len(official) == 1:
        own = f"All recordings are of fold {official[0]}: judged in {FOLDS} folds of its patients."
        return (), (), (f"{own} {published}",)
    if _TEST in official:
        return (_TEST,), _TRAIN, ()
    last = official[-1]
    return (
        (last,),
        tuple(official[:-1]),
        (f"Fold {_TEST} is not here: fold {last} stands for it. {published}",),
    )


def _columns(path: Path) -> dict[str, dict[str, frozenset[str]]]:
    """Problem → its classes → their statements, by PTB-XL's table of statements.

    Raises:
        UsageError: if it is missing.
    """
    if not path.is_file():
        raise UsageError(f"{path} is missing: PTB-XL says there which statement is of which class.")
    table = pl.read_csv(path, infer_schema_length=None)
    code = table.columns[0]

    def each(column: str) -> dict[str, frozenset[str]]:
        chosen = table.filter(pl.col(column).cast(pl.Float64, strict=False) == 1)[code]
        return {name: frozenset({name}) for name in sorted(chosen)}

    def grouped(column: str) -> dict[str, frozenset[str]]:
        diagnostic = table.filter(pl.col("diagnostic").cast(pl.Float64, strict=False) == 1)
        groups: dict[str, set[str]] = {}
        for name, group in diagnostic.select(code, column).iter_rows():
            if group:
                groups.setdefault(group, set()).add(name)
        return {name: frozenset(groups[name]) for name in sorted(groups)}

    statements_of = ("diagnostic", "form", "rhythm")
    return {
        "superclass": grouped("diagnostic_class"),
        "subclass": grouped("diagnostic_subclass"),
        **{name: each(name) for name in statements_of},
        "all": {name: frozenset({name}) for name in sorted(table[code])},
    }
