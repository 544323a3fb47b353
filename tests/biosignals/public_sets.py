"""Folders shaped like the public sets, with a few synthetic recordings whose labels can be told."""

from __future__ import annotations

import csv
import struct
from pathlib import Path

import numpy as np
import wfdb

LEADS = ["I", "II", "III", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6"]
STATEMENTS = """,description,diagnostic,form,rhythm,diagnostic_class,diagnostic_subclass
NORM,normal ECG,1.0,,,NORM,NORM
IMI,inferior infarction,1.0,,,MI,IMI
ASMI,anteroseptal infarction,1.0,,,MI,AMI
SR,sinus rhythm,,,1.0,,
AFIB,atrial fibrillation,,,1.0,,
"""


def heart(rng: np.random.Generator, seconds: float, fs: float, *, af: bool, t: float) -> np.ndarray:
    """(N,) mV of beats with a T wave of that size; irregular in fibrillation."""
    rr = rng.uniform(0.4, 1.2, 60) if af else 0.8 + rng.normal(0, 0.01, 60)
    at = 0.3 + np.cumsum(rr)
    time = np.arange(round(seconds * fs)) / fs
    waves = ((0.0, 1.0, 0.012), (0.04, -0.3, 0.012), (0.28, t, 0.04))
    clean = sum(a * np.exp(-0.5 * ((time - b - lag) / w) ** 2) for b in at for lag, a, w in waves)
    return np.asarray(clean + rng.normal(0, 0.02, len(time)))


def ptbxl_shaped(folder: Path, count: int = 36, folds: int = 3) -> Path:
    """``count`` recordings of ``count / 2`` patients; an infarction turns the T wave over."""
    rng = np.random.default_rng(0)
    rows = []
    for n in range(1, count + 1):
        patient = (n + 1) // 2
        infarction, af = patient % 2 == 0, patient % 5 < 2
        place = folder / "records100" / "00000"
        place.mkdir(parents=True, exist_ok=True)
        x = heart(rng, 10, 100, af=af, t=-0.3 if infarction else 0.3)
        leads = np.stack([x * g for g in np.linspace(0.5, 1.5, 12)], axis=1)
        name = f"{n:05d}_lr"
        wfdb.wrsamp(name, 100, ["mV"] * 12, LEADS, leads, fmt=["16"] * 12, write_dir=str(place))
        said = {"IMI" if infarction else "NORM": 100.0, "AFIB" if af else "SR": 0.0}
        rows.append((n, f"{patient}.0", str(said), patient % folds + 1, f"records100/00000/{name}"))
    with (folder / "ptbxl_database.csv").open("w", newline="") as handle:
        write = csv.writer(handle)
        write.writerow(("ecg_id", "patient_id", "scp_codes", "strat_fold", "filename_lr"))
        write.writerows(rows)
    (folder / "scp_statements.csv").write_text(STATEMENTS)
    return folder


def cinc2017_shaped(folder: Path, count: int = 30) -> Path:
    """``count`` recordings of 8 to 14 s; the last repeats the first, sample by sample."""
    rng = np.random.default_rng(1)
    place = folder / "training2017"
    place.mkdir(parents=True)
    labels = []
    for n in range(count):
        kind = "NAO~"[n % 4]
        seconds = 8 + n % 4 * 2
        x = heart(rng, seconds, 300, af=kind == "A", t=-0.3 if kind == "O" else 0.3)
        counts = (rng.normal(0, 1, len(x)) if kind == "~" else x) * 1000
        counts = counts.astype("<i2")
        if n == count - 1:
            kind, counts = "N", np.frombuffer((place / "A00001.mat").read_bytes()[24:], "<i2")
        name = f"A{n + 1:05d}"
        head = struct.pack("<5i", 30, 1, len(counts), 0, 4) + b"val\0"
        (place / f"{name}.mat").write_bytes(head + counts.tobytes())
        (place / f"{name}.hea").write_text(
            f"{name} 1 300 {len(counts)} 05:05:15 1/05/2000 \n"
            f"{name}.mat 16+24 1000/mV 16 0 {counts[0]} 0 0 ECG \n"
        )
        labels.append((name, kind))
    with (folder / "REFERENCE-v3.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows(labels)
    return folder


def ucr_shaped(folder: Path, samples: int = 24) -> Path:
    """A set as those of the UCR archive: two classes of synthetic waves, −1 and 1, in two files."""
    rng = np.random.default_rng(0)
    for part, count in (("TRAIN", 12), ("TEST", 16)):
        lines = []
        for number in range(count):
            label = number % 2 * 2 - 1
            wave = np.sin(np.arange(samples) / 3 * (2 + label)) + rng.normal(0, 0.1, samples)
            lines.append("\t".join([str(label), *(f"{value:.5f}" for value in wave)]))
        (folder / f"Waves_{part}.tsv").write_text("\n".join(lines) + "\n")
    return folder


def mitbih_shaped(folder: Path, records: tuple[str, ...]) -> Path:
    """Records of a minute at 360 Hz, whose beats carry the symbols of all AAMI classes in turn."""
    rng = np.random.default_rng(2)
    folder.mkdir(parents=True, exist_ok=True)
    symbols = "NLRejAaJSVEFQ"
    for name in records:
        at = np.cumsum(rng.integers(200, 400, 52))
        x = np.zeros((60 * 360, 2))
        for beat in at:
            x[beat : beat + 20] += np.hanning(20)[:, None]
        x += rng.normal(0, 0.02, x.shape)
        wfdb.wrsamp(name, 360, ["mV"] * 2, ["MLII", "V1"], x, fmt=["16"] * 2, write_dir=str(folder))
        kinds = [symbols[n % len(symbols)] for n in range(len(at))]
        wfdb.wrann(name, "atr", at, kinds, write_dir=str(folder))
    return folder
