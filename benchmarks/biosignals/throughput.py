"""How many times faster than real time recordings are prepared, against the usual way of doing it.

    python benchmarks/biosignals/throughput.py [ARCHIVE]

The usual way reads with `wfdb.rdrecord`, cuts windows, then filters and resamples each. CPU seconds
of one thread are compared, so that other work on the machine does not count.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import torch
import wfdb
from scipy import signal

from medcl.plugin import FileStat, Record
from medcl_biosignals.dataset import dataset
from medcl_biosignals.filters import clean
from medcl_biosignals.gaps import bridged, lost
from medcl_biosignals.plugin import plugin
from medcl_biosignals.prepare import prepare
from medcl_biosignals.readers import wfdb_record as reader
from medcl_biosignals.readers.contract import Settings
from medcl_biosignals.views import views

SECONDS, FS = 10.0, 100.0


def usual(root: Path, record: Record) -> int:
    """Window by window."""
    read = wfdb.rdrecord(str(root / record.key))
    length = round(SECONDS * read.fs)
    b, a = signal.butter(3, (0.5, 40.0), "bandpass", fs=read.fs)
    for start in range(0, read.sig_len - length + 1, length):
        window = read.p_signal[start : start + length].T
        signal.resample_poly(signal.filtfilt(b, a, window), 100, round(read.fs), axis=-1)
    return read.sig_len


def ours(root: Path, record: Record) -> None:
    """As much of our work as the usual way does: read, filter, resample."""
    read = reader.read(root / record.files[0], "", Settings())
    for channel, raw in zip(read.channels, read.samples, strict=True):
        why = lost(raw, channel.fs, flat=3.0, clip=1.0, bridge=0.1)
        clean(bridged(raw, why), why, channel.fs, FS, (0.5, 40.0), None)


def cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else plugin.sample
    assert root is not None
    files = [
        FileStat(path.relative_to(root).as_posix(), path.stat().st_size, 0)
        for path in sorted(root.rglob("*"))
        if path.is_file()
    ]
    torch.set_num_threads(1)
    rows = [row for unit in plugin.units(files) for row in plugin.scan(root, unit)]
    records = [row for row in rows if isinstance(row, Record)]
    scan = cpu_seconds(lambda: [r for unit in plugin.units(files) for r in plugin.scan(root, unit)])
    seconds = sum(float(record.fields["seconds"] or 0) for record in records)

    store: dict[str, dict[str, np.ndarray]] = {}

    def prepared() -> None:
        for record in records:
            store[record.key] = prepare(root, record.files, record.fields, fs=FS)

    rounds = [  # in turns, so that what else the machine does meets all alike
        (
            cpu_seconds(prepared),
            cpu_seconds(lambda: [ours(root, record) for record in records]),
            cpu_seconds(lambda: [usual(root, record) for record in records]),
        )
        for _ in range(3)
    ]
    everything, same, theirs = np.median(rounds, axis=0)
    items = pl.DataFrame({"id": list(store), "patient": [r.patient for r in records]})
    samples = dataset(items, store.__getitem__, kind="beat", seconds=3.0)
    random = np.random.default_rng(0)
    batches = [random.integers(0, len(samples), 256) for _ in range(50)]
    read = cpu_seconds(lambda: [samples.read(which) for which in batches]) / 50
    x = torch.from_numpy(samples.read(batches[0])["x"])
    augment, generator = views(fs=FS), torch.Generator().manual_seed(0)
    view = cpu_seconds(lambda: [augment(x, generator) for _ in range(20)]) / 20

    print(f"{len(records)} recordings, {seconds / 3600:.1f} hours, 2 channels kept")
    print(f"scan                  {scan / len(records) * 1e3:8.1f} ms a recording")
    print(f"usual way: read, filter, resample by window   {seconds / theirs:8,.0f} × real time")
    for what, took in (
        ("ours: gaps, read, filter, resample whole", same),
        ("ours: all of it, with beats and quality", everything),
    ):
        print(f"{what:<45} {seconds / took:8,.0f} × real time, ratio {theirs / took:.2f}")
    print(f"read 256 beats of 3 s {read * 1e3:8.1f} ms")
    print(f"augment them          {view * 1e3:8.1f} ms")


if __name__ == "__main__":
    main()
