"""Memory of a million samples, what a loader process is given, and how long a monitor's pairs take.

    python benchmarks/samples.py                    # this checkout
    python benchmarks/samples.py --old CHECKOUT     # against another one, in the same run
                                                    # (git worktree add CHECKOUT COMMIT)

10,000 items of 1,000 patients with 100 samples each, by the plugins' own ``dataset``: windows and
beats of ECGs, slices of CT series, tiles of slides. Their prepared arrays are made up and take no
memory, so that what is measured are the samples alone. "held" is what is allocated once the samples
are built, "peak" the most while they are; "pickle" is what every spawned loader process is sent.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import polars as pl

ITEMS, EACH, PATIENTS = 10_000, 100, 1_000
KINDS = ("window", "beat", "slice", "tile")
FS, LEADS = 100, 12


class MadeUp:
    """Prepared arrays of any item."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __call__(self, item: str) -> dict[str, np.ndarray]:
        if self.kind == "slice":
            return {"hu0": np.broadcast_to(np.int16(0), (EACH, 64, 64)), "affine0": np.eye(4)}
        if self.kind == "tile":
            coords = np.stack([np.arange(EACH), np.arange(EACH)], 1) * 224
            return {"coords": coords, "grid": np.array([224, 224.0, 224.0, 0.5])}
        beats = np.arange(EACH) * FS + FS
        return {
            "x": np.broadcast_to(np.float32(0), (LEADS, 10 * FS * EACH)),
            "fs": np.array([FS]),
            "beats": beats,
            "aami": np.zeros(EACH, np.int8),
            "likeness": np.broadcast_to(np.float32(0), (EACH, 6 * LEADS)),
            "gaps": np.zeros((0, 2), np.int64),
            "lost": np.zeros((0, 3), np.int64),
            "spans": np.zeros((0, 3), np.int64),
            "classes": np.zeros(0, "S1"),
            "scale": np.ones(LEADS, np.float32),
        }

    def files(self, item: str) -> tuple[Path, ...]:
        return ()


def made(kind: str):
    names = [f"{n * 7919 % ITEMS:016x}" for n in range(ITEMS)]
    patients = [f"{n % PATIENTS:016x}" for n in range(ITEMS)]
    items = pl.DataFrame({"id": names, "patient": patients, "kind": ["slide"] * ITEMS})
    if kind == "slice":
        from medcl_ct.dataset import dataset

        return dataset(items, MadeUp(kind), size=(64, 64))
    if kind == "tile":
        from medcl_pathology.dataset import dataset as tiles

        return tiles(items, MadeUp(kind))
    from medcl_biosignals.dataset import dataset as signals

    return signals(items, MadeUp(kind), kind=kind, seconds=10, stride=10)


def measure(kind: str) -> dict[str, float]:
    """Of one kind, in a process of its own."""
    from medcl.engine import data
    from medcl.engine.data import Batches, loader, select

    made(kind).read(np.arange(1)) if kind != "tile" else None  # what is imported is not counted
    tracemalloc.start()
    samples = made(kind)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    split = {f"{n:016x}": "train" for n in range(PATIENTS)}
    start = time.perf_counter()
    selection = select(samples, split)
    selecting = time.perf_counter() - start
    batches = Batches(selection, batch_size=256, seed=0, pairs=False)
    sent = loader(batches, first=0, total=1, workers=0, pin_memory=False).dataset
    start = time.perf_counter()
    if hasattr(data, "some_pairs"):
        data.some_pairs(selection.patients, 1024, np.random.default_rng(0))
    else:
        data.paired(selection.patients, 0, 0)
    pairing = time.perf_counter() - start
    return {
        "samples": len(samples),
        "held MiB": held / 2**20,
        "peak MiB": peak / 2**20,
        "pickle MiB": len(pickle.dumps(sent)) / 2**20,
        "select s": selecting,
        "pairs s": pairing,
    }


def apart(kind: str, checkout: Path) -> dict[str, float]:
    path = os.pathsep.join(str(checkout / part) for part in (".", "plugins", "cli"))
    command = [sys.executable, __file__, "--measure", kind]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, check=True, stdout=subprocess.PIPE
    )
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--old", type=Path, help="another checkout, to compare with")
    parser.add_argument("--measure", choices=KINDS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.measure)))
        return
    here = Path(__file__).resolve().parent.parent
    sides = {"new": here} | ({"old": given.old.resolve()} if given.old else {})
    for kind in KINDS:
        found = {side: apart(kind, checkout) for side, checkout in sides.items()}
        print(f"{kind}: {found['new']['samples']:,} samples")
        for name in ("held MiB", "peak MiB", "pickle MiB", "select s", "pairs s"):
            values = {side: one[name] for side, one in found.items()}
            text = "  ".join(f"{side} {value:9.3f}" for side, value in values.items())
            ratio = f"  old / new {values['old'] / values['new']:6.1f}" if given.old else ""
            print(f"  {name:10}  {text}{ratio}")


if __name__ == "__main__":
    main()
