"""R peaks on MIT-BIH against the annotators' beats, beside XQRS and NeuroKit2 in one run.

    python benchmarks/biosignals/r_peaks.py SHARED/ecg/mitdb_ds1

A detection within 150 ms of an annotated beat is a true one, one to one, over the whole record
(AAMI EC57 lets the first five minutes go; ``--skip 300`` does). Ventricular flutter is left out, as
in EC57 (record 207). Figures are gross: sums over records. Settings of medcl's detector are chosen
for each record on the others (leaving one out), by the fewest errors; the last line says which all
records choose: these are the defaults. XQRS and NeuroKit2 see one lead, as recorded, at 360 Hz.
"""

from __future__ import annotations

import argparse
import itertools
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import wfdb
from numpy.typing import NDArray
from wfdb.processing import xqrs_detect

from medcl_biosignals.detect import r_peaks
from medcl_biosignals.prepare import prepare

FS, NEAR = 125.0, 0.15
BEATS = set("NLRBAaJSVrFejnE/fQ?")
GRID = {"threshold": (0.35, 0.4, 0.45), "power": (1.0, 2.0)}

Counts = NDArray[np.int64]
"""True, missed and false detections."""


def truth(path: Path) -> tuple[NDArray, list[tuple[float, float]]]:
    """Seconds of annotated beats, and stretches of flutter."""
    marks = wfdb.rdann(str(path), "atr")
    seconds = marks.sample / 360.0
    beats = seconds[[symbol in BEATS for symbol in marks.symbol]]
    flutter, begun = [], None
    for at, symbol in zip(seconds, marks.symbol, strict=True):
        if symbol == "[":
            begun = at
        elif symbol == "]" and begun is not None:
            flutter.append((begun, at))
            begun = None
    return beats, flutter if begun is None else [*flutter, (begun, np.inf)]


def counts(
    found: NDArray, beats: NDArray, flutter: list[tuple[float, float]], skip: float
) -> Counts:
    """Of detections (K,) and annotated beats in seconds, each matched once, in order."""
    for first, last in [*flutter, (-1.0, skip)]:
        found = found[(found < first) | (found > last)]
        beats = beats[(beats < first) | (beats > last)]
    true = i = j = 0
    while i < len(found) and j < len(beats):
        apart = found[i] - beats[j]
        if abs(apart) <= NEAR:
            true, i, j = true + 1, i + 1, j + 1
        elif apart < 0:
            i += 1
        else:
            j += 1
    return np.array([true, len(beats) - true, len(found) - true])


def neurokit(x: NDArray) -> NDArray:
    import neurokit2

    clean = neurokit2.ecg_clean(x, sampling_rate=360)
    return np.asarray(neurokit2.ecg_peaks(clean, sampling_rate=360)[1]["ECG_R_Peaks"])


def row(name: str, total: Counts, seconds: float) -> None:
    true, missed, false = total
    print(
        f"| {name} | {true / (true + missed):.4f} | {true / (true + false):.4f} | "
        f"{missed} + {false} | {seconds:.1f} s |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("archive", type=Path)
    parser.add_argument("--skip", type=float, default=0.0, help="seconds left out at the beginning")
    asked = parser.parse_args()
    warnings.filterwarnings("ignore")
    names = sorted(path.stem for path in asked.archive.glob("*.hea"))
    known = [truth(asked.archive / name) for name in names]
    x = []
    for name in names:
        files = [f"{name}.hea", *(p.name for p in asked.archive.glob(f"{name}.d*"))]
        x.append(prepare(asked.archive, files, {}, fs=FS, detector="none")["x"])
    raw = [wfdb.rdrecord(str(asked.archive / name)).p_signal for name in names]

    def counted(find: Callable[[int], NDArray], rate: float) -> tuple[Counts, float]:
        """(records, 3) and the seconds that it took."""
        start = time.process_time()
        found = [find(n) / rate for n in range(len(names))]
        took = time.process_time() - start
        pairs = zip(found, known, strict=True)
        return np.stack([counts(f, *k, asked.skip) for f, k in pairs]), took

    print(f"{len(names)} records, {sum(len(beats) for beats, _ in known)} beats")
    print("| detector | Se | PPV | missed + false | CPU |\n|---|---|---|---|---|")
    settings = [
        dict(zip(GRID, values, strict=True)) for values in itertools.product(*GRID.values())
    ]

    def left_out(leads: slice) -> tuple[Counts, float, NDArray]:
        """Counts (records, 3) with the settings that the other records choose; CPU; all errors."""
        tried = [counted(lambda n, s=s: r_peaks(x[n][leads], FS, **s), FS) for s in settings]
        errors = np.stack([c[:, 1:].sum(axis=1) for c, _ in tried])  # (settings, records)
        chosen = (errors.sum(axis=1, keepdims=True) - errors).argmin(axis=0)
        total = np.stack([tried[s][0][n] for n, s in enumerate(chosen)])
        return total, tried[0][1], errors.sum(axis=1)

    both = left_out(slice(None))
    row("medcl, both leads, settings by leaving one out", both[0].sum(0), both[1])
    for lead in (0, 1):
        alone = left_out(slice(lead, lead + 1))
        row(f"medcl, lead {lead + 1} alone, likewise", alone[0].sum(0), alone[1])
    best = settings[int(both[2].argmin())]
    for name, setting in {"defaults": {}, "leads at equal weight": {**best, "power": 0.0}}.items():
        total, took = counted(lambda n, s=setting: r_peaks(x[n], FS, **s), FS)
        row(f"medcl, both leads, {name}", total.sum(0), took)
    for name, find in {
        "XQRS": lambda signal: xqrs_detect(signal, 360, verbose=False),
        "NeuroKit2": neurokit,
    }.items():
        for lead in (0, 1):
            total, took = counted(lambda n, c=lead, f=find: np.asarray(f(raw[n][:, c])), 360.0)
            row(f"{name}, lead {lead + 1}", total.sum(0), took)
    print(f"all records choose {best}")


if __name__ == "__main__":
    main()
