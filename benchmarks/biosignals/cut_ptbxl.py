"""Cut the twelve-lead ECGs that ship with the plugin: PTB-XL's fold 8, on which nobody tuned.

    python benchmarks/biosignals/cut_ptbxl.py FOLDER plugins/medcl_biosignals/sample_ptbxl

Recordings of FOLDER with a diagnostic statement, in format 516 (FLAC) at 5 µV a step, the coarsest
that the American Heart Association recommends (Kligfield 2007, doi 10.1016/j.jacc.2007.01.024). Of
the tables, only what a benchmark reads: no age, sex, date or report. Every file is read again and
compared.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import wfdb

FOLD = 8
STEPS = 200.0  # per millivolt
COLUMNS = ("ecg_id", "patient_id", "scp_codes", "strat_fold", "filename_lr")


def cut(source: Path, name: str, out: Path) -> None:
    """Write one recording, and check it against the original."""
    record = wfdb.rdrecord(str(source / name))
    target = out / Path(name).parent
    target.mkdir(parents=True, exist_ok=True)
    wfdb.wrsamp(
        Path(name).name,
        fs=record.fs,
        units=record.units,
        sig_name=record.sig_name,
        p_signal=record.p_signal,
        fmt=["516"] * record.n_sig,
        adc_gain=[STEPS] * record.n_sig,
        baseline=[0] * record.n_sig,
        write_dir=str(target),
    )
    again = wfdb.rdrecord(str(out / name)).p_signal
    assert np.abs(again - record.p_signal).max() <= 0.5 / STEPS + 1e-6, name


def main() -> None:
    """Cut all recordings of the fold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    shutil.copy(given.source / "scp_statements.csv", given.out)
    shutil.copy(given.source / "LICENSE.txt", given.out / "LICENSE")
    table = pl.read_csv(given.source / "ptbxl_database.csv", infer_schema_length=None)
    statements = pl.read_csv(given.source / "scp_statements.csv", infer_schema_length=None)
    diagnostic = statements.filter(statements["diagnostic"].cast(pl.Float64, strict=False) == 1)
    codes = set(diagnostic[statements.columns[0]])
    kept = table.filter(
        pl.Series([any(f"'{c}'" in cell for c in codes) for cell in table["scp_codes"]])
        & (pl.col("strat_fold") == FOLD)
    ).select(COLUMNS)
    kept.write_csv(given.out / "ptbxl_database.csv")
    for name in kept["filename_lr"]:
        cut(given.source, name, given.out)
    size = sum(file.stat().st_size for file in given.out.rglob("*") if file.is_file())
    print(f"{len(kept)} recordings, {kept['patient_id'].n_unique()} patients, {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
