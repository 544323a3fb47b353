"""MUSK 1 and 2, Elephant, Fox, UCSB breast: heads of bags, ten repeats of 10-fold cross-validation.

    python benchmarks/mil_benchmarks.py ../shared/data/mil --out /tmp/mil --rows ROWS.csv
    python benchmarks/mil_benchmarks.py ../shared/data/mil --out /tmp/mil --rows ROWS.csv \\
        --only musk1 --cells mean --repeats 1
    python benchmarks/mil_benchmarks.py --rows ROWS.csv --table docs/results.md

Recipe ``pathology/musk`` for all of them, with the rate and the weight decay that are published
for a set. ROWS.csv gets a row for each repeat of each cell as it is done, the first repeat of all
cells first; what has a row is not trained again, on any machine. Repeat r has the folds of
``split.seed=r`` and the weights of ``seed=r``. Folds depend on the patients' keys, so the key is
fixed here. Of a cell in `EARLIER` the means of ten repeats alone were kept; it is not run again.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from medcl.archive.index import build
from medcl.finetune.finetune import finetune, opened
from medcl.finetune.result import FinetuneResult
from medcl.io.atomic import write_text
from medcl.plugin import get
from medcl.provenance import commit
from medcl_pathology.benchmarks.mil import HEADS as CELLS
from medcl_pathology.benchmarks.mil import SETTINGS

KEY = "kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk"
SETS = {
    "musk1": "MUSK 1",
    "musk2": "MUSK 2",
    "elephant": "Elephant",
    "fox": "Fox",
    "ucsb_breast_cancer": "UCSB breast",
}
ORDER = ("ucsb_breast_cancer", "musk1", "elephant", "fox", "musk2")
"""Of a repeat: MUSK 2, whose bags hold up to a thousand instances, takes longest."""
PUBLISHED = {
    ("musk1", "abmil"): (0.892, 0.040),
    ("musk1", "gated-abmil"): (0.900, 0.050),
    ("musk2", "abmil"): (0.858, 0.048),
    ("musk2", "gated-abmil"): (0.863, 0.042),
    ("elephant", "abmil"): (0.868, 0.022),
    ("elephant", "gated-abmil"): (0.857, 0.027),
    ("fox", "abmil"): (0.615, 0.043),
    ("fox", "gated-abmil"): (0.603, 0.029),
}
"""Accuracy and its deviation: Ilse 2018 (arXiv 1802.04712), table 1."""
HEADS = ("abmil", "sc-mil", "ins", "clam-sb", "dsmil", "transmil")
"""What is run unless cells are named."""
REPEATS = 10
EARLIER = Path(__file__).parent / "results" / "mil_benchmarks_means.csv"


def main() -> None:
    """Train what is not there yet, or write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, nargs="?", help="a folder of .data and .npz files")
    parser.add_argument("--rows", type=Path, required=True, help="a CSV of what is done")
    parser.add_argument("--out", type=Path, help="a folder for indexes and studies")
    parser.add_argument("--only", nargs="+", default=list(ORDER), help="files, by their stem")
    parser.add_argument("--cells", nargs="+", default=list(HEADS), choices=list(CELLS))
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--table", type=Path, help="write the table between its marks, train none")
    asked = parser.parse_args()
    if asked.table:
        text, lines = asked.table.read_text(encoding="utf-8"), "\n".join(table(rows_of(asked.rows)))
        before, rest = text.split(BEGIN, 1)
        write_text(asked.table, f"{before}{BEGIN}\n\n{lines}\n\n{END}{rest.split(END, 1)[1]}")
        return
    if asked.data is None or asked.out is None:
        parser.error("to train, give the folder of files and --out")
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "key").write_text(KEY)
    os.environ["MEDCL_KEY_FILE"] = str(asked.out / "key")
    rows = rows_of(asked.rows)
    done = {(row["data"], row["cell"], row["repeat"]) for row in rows}
    done |= {
        (row["data"], row["cell"], n)
        for row in pl.read_csv(EARLIER).to_dicts()
        for n in range(row["repeats"])
    }
    order = [
        (n, data, cell) for n in range(asked.repeats) for data in asked.only for cell in asked.cells
    ]
    for repeat, data, cell in order:
        if (data, cell, repeat) in done:
            continue
        file = next(f for s in (".data", ".npz") if (f := asked.data / f"{data}{s}").exists())
        settings = [*SETTINGS.get(data, ()), *CELLS[cell]]
        settings += ["finetune.repeats=1", "finetune.bootstraps=100"]
        settings += [f"seed={repeat}", f"split.seed={repeat}"]
        out = asked.out / "studies" / f"{data}-{cell}-{repeat}"
        source = opened(indexed(file, asked.out), "pathology/musk", settings)
        rows.append(row_of(data, cell, repeat, finetune(source, out)))
        print(rows[-1], flush=True)
        write_text(asked.rows, pl.DataFrame(rows, infer_schema_length=None).write_csv())
        shutil.rmtree(out)


def rows_of(path: Path) -> list[dict[str, object]]:
    """What is done already."""
    return (
        pl.read_csv(path, schema_overrides={"commit": pl.String}).to_dicts()
        if path.exists()
        else []
    )


def indexed(file: Path, out: Path) -> Path:
    """An index of this one file."""
    archive, index = out / "archives" / file.stem, out / "indexes" / file.stem
    archive.mkdir(parents=True, exist_ok=True)
    if not (archive / file.name).exists():
        shutil.copy(file, archive / file.name)
    if not (index / "index.json").exists():
        build(archive, index, get("pathology"))
    return index


def row_of(data: str, cell: str, repeat: int, result: FinetuneResult) -> dict[str, object]:
    """One repeat: means over its ten folds and their deviation."""
    accuracy, auroc = (result.figures.folds[name] for name in ("accuracy", "auroc"))
    return {
        "data": data,
        "cell": cell,
        "repeat": repeat,
        "accuracy": accuracy.mean,
        "accuracy_sd_folds": accuracy.folds,
        "auroc": auroc.mean,
        "seconds": result.seconds,
        "commit": commit(),
    }


BEGIN, END = "<!-- mil table: begin -->", "<!-- mil table: end -->"


def table(rows: Iterable[dict[str, Any]]) -> list[str]:
    """The lines of the table, of the cells that have a row, and what is not finished."""
    cells = {(r["data"], r["cell"]): r for r in pl.read_csv(EARLIER).to_dicts()}
    for key, mine in pl.DataFrame(rows, infer_schema_length=None).group_by("data", "cell"):
        if len(mine) < cells.get(key, {"repeats": 0})["repeats"]:
            continue
        accuracy, spread, auroc = (
            mine[name].to_numpy() for name in ("accuracy", "accuracy_sd_folds", "auroc")
        )
        between = float(accuracy.std())
        cells[key] = {
            "repeats": len(mine),
            "accuracy": float(accuracy.mean()),
            "accuracy_sd_folds": float(np.sqrt((spread**2).mean() + between**2)),
            "accuracy_sd_repeats": between if len(mine) > 1 else None,
            "auroc": float(auroc.mean()),
        }
    lines = ["| data | head | repeats | accuracy | SD of repeats | AUROC | published accuracy |"]
    lines.append("|---|---|---|---|---|---|---|")
    for data, name in SETS.items():
        for cell in (c for c in CELLS if (data, c) in cells):
            one = cells[data, cell]
            over = one["accuracy_sd_repeats"]
            lines.append(
                f"| {name} | {cell} | {one['repeats']} | {one['accuracy']:.3f} ± "
                f"{one['accuracy_sd_folds']:.3f} | {'–' if over is None else f'{over:.3f}'} | "
                f"{one['auroc']:.3f} | {published(data, cell, one['accuracy'])} |"
            )
    whole = sum(
        cells.get((d, c), {"repeats": 0})["repeats"] >= REPEATS for d in SETS for c in HEADS
    )
    short = [
        f"{name} {cell} ({REPEATS - had})"
        for data, name in SETS.items()
        for cell in HEADS
        if (had := cells.get((data, cell), {"repeats": 0})["repeats"]) < REPEATS
    ]
    return [
        *lines,
        "",
        f"Ten repeats are done of {whole} of {len(SETS) * len(HEADS)} heads and sets."
        + (f" **Not run** (repeats left): {', '.join(short)}." if short else ""),
    ]


def published(data: str, cell: str, accuracy: float) -> str:
    """The published figure, and whether it is reached: its mean less its deviation."""
    if (data, cell) not in PUBLISHED:
        return "–"
    mean, deviation = PUBLISHED[data, cell]
    reached = "reached" if accuracy >= mean - deviation else "not reached"
    return f"{mean:.3f} ± {deviation:.3f}, {reached}"


if __name__ == "__main__":
    main()
