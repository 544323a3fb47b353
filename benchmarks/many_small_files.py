"""CPU seconds of index, prepare and predict on 10,000 small synthetic recordings.

python benchmarks/many_small_files.py [csv|wfdb|edf ...] [--files 10000] [--keep FOLDER]

Each file is ten seconds of one ECG lead at 100 Hz. The model is an untrained-but-for-one-step
encoder of the plugin's default size on the bundled sample: the time of a forward pass does not
depend on its weights. What is measured is the CPU time (user and system) of each command with all
its processes, so that other work on the machine does not count.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

FS, SECONDS = 100, 10
LIMIT = 240.0
KINDS = ("csv", "wfdb", "edf")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", default=KINDS)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--keep", type=Path, help="a folder to work in, which stays")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        run = _run(folder)
        for kind in options.kinds:
            archive = folder / f"{kind}{options.files}"
            if not archive.is_dir():
                write(archive, kind, options.files)
            _measure(archive, kind, run, options.files)


def write(archive: Path, kind: str, files: int) -> None:
    """One folder of 100 recordings a person."""
    rng = np.random.default_rng(0)
    t = np.arange(FS * SECONDS) / FS
    for n in range(files):
        folder = archive / f"person{n // 100:04d}"
        folder.mkdir(parents=True, exist_ok=True)
        beats = np.exp(-0.5 * (((t * (0.9 + 0.4 * rng.random())) % 1 - 0.5) / 0.02) ** 2)
        ecg = beats + 0.03 * rng.standard_normal(len(t))
        _WRITERS[kind](folder / f"r{n:05d}", ecg)


def _csv(path: Path, ecg: np.ndarray) -> None:
    lines = [f"{n / FS:.3f},{value:.4f}" for n, value in enumerate(ecg)]
    path.with_suffix(".csv").write_text("time_s,ecg_mV\n" + "\n".join(lines) + "\n")


def _wfdb(path: Path, ecg: np.ndarray) -> None:
    counts = np.round(ecg * 1000).astype("<i2")
    path.with_suffix(".dat").write_bytes(counts.tobytes())
    checksum = int(counts.astype(np.int64).sum() & 0xFFFF)
    checksum -= 0x10000 * (checksum > 0x7FFF)
    path.with_suffix(".hea").write_text(
        f"{path.name} 1 {FS} {len(counts)}\n"
        f"{path.name}.dat 16 1000(0)/mV 16 0 {counts[0]} {checksum} 0 II\n"
    )


def edf(path: Path, ecg: np.ndarray) -> None:
    counts = np.round(ecg * 1000).astype("<i2")
    header = "".join(
        text.ljust(width)
        for text, width in (
            ("0", 8), ("X X X X", 80), ("Startdate X X X X", 80), ("01.01.01", 8),
            ("00.00.00", 8), ("512", 8), ("", 44), (str(len(ecg) // FS), 8), ("1", 8), ("1", 4),
            ("ECG II", 16), ("", 80), ("mV", 8), ("-32.768", 8), ("32.767", 8),
            ("-32768", 8), ("32767", 8), ("", 80), (str(FS), 8), ("", 32),
        )
    )  # fmt: skip
    path.with_suffix(".edf").write_bytes(header.encode("ascii") + counts.tobytes())


_WRITERS = {"csv": _csv, "wfdb": _wfdb, "edf": edf}


def _run(folder: Path) -> Path:
    """A run of one step on the bundled sample."""
    from medcl_biosignals.plugin import plugin

    run, index = folder / "run", folder / "sample"
    if not (run / "encoder.safetensors").is_file():
        _medcl("index", str(plugin.sample), "--plugin", "biosignals", "--out", str(index))
        _medcl("pretrain", "biosignals/simclr-ecg", "--data", str(index), "--out", str(run),
               "-s", "trainer.steps=1", "-s", "trainer.batch_size=16", "-s", "prepare.fs=100",
               )  # fmt: skip
        _medcl("predict", str(run), str(plugin.sample), "--out", str(folder / "warm.parquet"))
    return run


def _measure(archive: Path, kind: str, run: Path, files: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        index = Path(scratch) / "index"
        seconds = {
            "index": _medcl("index", str(archive), "--plugin", "biosignals", "--out", str(index)),
            "prepare": _medcl("prepare", "biosignals/simclr-ecg", "-s", "prepare.fs=100",
                              "--data", str(index)),
            "predict": _medcl("predict", str(run), str(index), "--out", f"{scratch}/p.parquet"),
        }  # fmt: skip
    three = sum(seconds[name] for name in ("index", "prepare", "predict"))
    print(f"{kind}, {files:,} files: {three:.0f} CPU s for index, prepare and predict "
          f"(limit {LIMIT * files / 10_000:.0f})")  # fmt: skip
    for name, value in seconds.items():
        print(f"  {name}: {value:.1f} CPU s", flush=True)


def _medcl(*arguments: str) -> float:
    """CPU seconds of a command and its processes."""
    before = _spent()
    done = subprocess.run(
        [sys.executable, "-m", "medcl_cli.main", *arguments], capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"medcl {' '.join(arguments)}:\n{done.stdout}{done.stderr}")
    return _spent() - before


def _spent() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
