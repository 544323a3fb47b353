"""`medcl predict` on a day of four-channel PPG at 64 Hz, and NeuroKit2 on the same data.

    python benchmarks/biosignals/predict_day.py PPG.csv [--column PLETH --fs 125] [--hours 24]
        [--neurokit /path/to/a/python/with/neurokit2] [--work FOLDER]

The day is SYNTHETIC in its length: real PPG (BIDMC subject 1, eight minutes) repeated, the other
three channels scaled and shifted copies of it. The encoder is that of `wearable-ppg` (3.15 M
parameters, windows of 60 s every 30 s), trained for a step: speed does not depend on its weights.
medcl reads the file, cleans and resamples it, embeds every window, scores it and writes the tables;
NeuroKit2 cleans each channel, finds its peaks and rate, and computes the features of every five
minutes (of the whole day at once, its entropies want a matrix of all pairs of beats: no memory).
Both are separate processes, one after the other. Time is given as wall time and as CPU time of the
process and its children, for on a shared machine the first says little; memory is the largest sum
over the process and its children.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import wfdb
from scipy import signal as sp

from medcl import recipe as recipes
from medcl.archive.index import build
from medcl.engine.pretrain import pretrain
from medcl_biosignals.plugin import plugin

FS, CHANNELS = 64, ("PPG1", "PPG2", "PPG3", "PPG4")

NEUROKIT = """
import sys, time, warnings
warnings.filterwarnings("ignore")
import neurokit2 as nk, wfdb
x = wfdb.rdrecord(sys.argv[1]).p_signal
for channel in x.T:
    signals, info = nk.ppg_process(channel, sampling_rate=64)
    for first in range(0, len(signals), 300 * 64):
        nk.ppg_intervalrelated(signals[first : first + 300 * 64], sampling_rate=64)
print(nk.__version__)
"""


@dataclass(frozen=True)
class Cost:
    """Of a command and its children: seconds, CPU seconds, megabytes."""

    wall: float
    cpu: float
    memory: float
    output: str


def measured(command: list[str], threads: int) -> Cost:
    """Run a command and watch it."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    start, before = time.monotonic(), os.times()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    peak = 0
    while process.poll() is None:
        peak = max(peak, _tree(process.pid))
        time.sleep(0.05)
    after = os.times()
    output = process.stdout.read() if process.stdout else ""
    if process.returncode:
        raise SystemExit(f"{' '.join(command[:6])} … ended with {process.returncode}")
    cpu = after.children_user + after.children_system
    cpu -= before.children_user + before.children_system
    return Cost(time.monotonic() - start, cpu, peak / 1e6, output)


def _tree(root: int) -> int:
    """Resident bytes of a process and all below it; pages that they share count for each."""
    total, page = 0, os.sysconf("SC_PAGE_SIZE")
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        try:
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page
            waiting += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        except OSError:  # it ended meanwhile
            continue
    return total


def written(x: np.ndarray, folder: Path, name: str) -> None:
    """A WFDB record, 16 bits."""
    folder.mkdir(parents=True, exist_ok=True)
    wfdb.wrsamp(
        name,
        fs=FS,
        units=["NU"] * len(x),
        sig_name=list(CHANNELS),
        p_signal=x.T.astype(np.float64),
        fmt=["16"] * len(x),
        write_dir=str(folder),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ppg", type=Path)
    parser.add_argument("--column", default="PLETH")
    parser.add_argument("--fs", type=int, default=125)
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--neurokit", default=None)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path("predict_day"))
    asked = parser.parse_args()

    frame = pl.read_csv(asked.ppg)
    real = frame.rename({name: name.strip() for name in frame.columns})[asked.column].to_numpy()
    real = sp.resample_poly(real, FS, asked.fs)
    samples = round(asked.hours * 3600 * FS)
    one = np.resize(real, samples)
    day = np.stack([one, 0.8 * np.roll(one, 3), 1.2 * np.roll(one, 5), np.roll(one, 1)])
    run = asked.work / "run"
    if not (run / "encoder.safetensors").is_file():
        written(day, asked.work / "day", "day")
        written(day[:, : 1800 * FS], asked.work / "train", "train")
        written(np.resize(real, (4, 300 * FS)), asked.work / "train", "other")
        (asked.work / "key").write_text("a benchmark on public data: hides nothing")
        build(asked.work / "train", asked.work / "index", plugin, key_file=asked.work / "key")
        small = ["trainer={steps: 1, batch_size: 4}", "monitor={every: 9, samples: 16}"]
        small += ["dataset.quality=0", "split.test=0.5"]
        pretrain(recipes.load("wearable-ppg", small), asked.work / "index", run)
    del day, one

    record = str(asked.work / "day" / "day")
    command = [sys.executable, "-m", "medcl_cli.main", "predict", str(run), record]
    command += ["--out", str(asked.work / "preds.parquet"), "--key-file", str(asked.work / "key")]
    if not (run / "predict").is_dir():  # the training samples' part is learnt once and kept
        measured(
            [part.replace(record, str(asked.work / "train")) for part in command], asked.threads
        )
    seconds = asked.hours * 3600
    ours = measured(command, asked.threads)
    windows = len(pl.read_parquet(asked.work / "preds.parquet"))
    print(f"{asked.hours:g} h × {len(CHANNELS)} channels at {FS} Hz, {windows} windows of 60 s")
    print("| | wall | × real time | CPU | × real time | memory |\n|---|---|---|---|---|---|")
    _row("medcl predict", ours, seconds)
    if asked.neurokit:
        theirs = measured([asked.neurokit, "-c", NEUROKIT, record], asked.threads)
        _row(f"NeuroKit2 {theirs.output.split()[-1]}", theirs, seconds)
        print(f"ratio: wall {theirs.wall / ours.wall:.2f}, CPU {theirs.cpu / ours.cpu:.2f}")


def _row(name: str, cost: Cost, seconds: float) -> None:
    times = [f"{t:.1f} s | {seconds / t:,.0f}" for t in (cost.wall, cost.cpu)]
    print(f"| {name} | {' | '.join(times)} | {cost.memory:,.0f} MB |")


if __name__ == "__main__":
    main()
