"""The store beside what it was before: a folder of .npy files an item, at most 256 of them open.

    python benchmarks/store.py [ARCHIVE] [--short 10000] [--repeats 5]

ARCHIVE holds ten-second WFDB records, such as PTB-XL's of 100 Hz; without it, 2,331 invented ones
of the same shape are taken. `Before` is the old way, cut down to reading and writing. Both ways
hold the same arrays and are timed in turns, with the page cache warm: what counts is the ratio.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from medcl.archive.entries import Store
from medcl.archive.stored import StoredArrays

RECORDS, BATCH = 2331, 128
SPEC = {"fs": 100.0, "channels": 12}
META = {"plugin": "biosignals", "spec": SPEC, "fingerprint": "0" * 20, "content": "0" * 64}
Items = dict[str, Mapping[str, np.ndarray]]


class Before:
    """The store of format 1: ``ab/<key>/<array>.npy`` and ``meta.json``, all opened to read one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.opened = lru_cache(maxsize=256)(self.arrays)

    def __call__(self, item_id: str) -> Mapping[str, np.ndarray]:
        return self.opened(item_id)

    def put(self, key: str, arrays: Mapping[str, np.ndarray]) -> None:
        described = {}
        temporary = self.path / key[:2] / f".{key}.tmp"
        temporary.mkdir(parents=True)
        for name, array in arrays.items():
            np.save(temporary / f"{name}.npy", array, allow_pickle=False)
            size = (temporary / f"{name}.npy").stat().st_size
            described[name] = {
                "shape": list(array.shape),
                "dtype": array.dtype.str,
                "bytes": size,
            }
        text = json.dumps({**META, "arrays": described}, indent=1)
        (temporary / "meta.json").write_text(text, encoding="utf-8")
        os.rename(temporary, self._folder(key))

    def has(self, key: str) -> bool:
        folder, meta = self._folder(key), self._meta(key)
        return all(
            (folder / f"{name}.npy").stat().st_size == facts["bytes"]
            for name, facts in meta["arrays"].items()
        )

    def arrays(self, key: str) -> dict[str, np.ndarray]:
        folder = self._folder(key)
        return {name: self._open(folder / f"{name}.npy") for name in self._meta(key)["arrays"]}

    def _open(self, path: Path) -> np.ndarray:
        if path.stat().st_size == 0:
            raise ValueError("empty file")
        array: np.ndarray
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except ValueError:
            array = np.load(path, allow_pickle=False)
        return array

    def _folder(self, key: str) -> Path:
        return self.path / key[:2] / key

    def _meta(self, key: str) -> dict[str, Any]:
        text = (self._folder(key) / "meta.json").read_text(encoding="utf-8")
        meta: dict[str, Any] = json.loads(text)
        return meta


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("archive", type=Path, nargs="?")
    options.add_argument("--short", type=int, default=10_000)
    options.add_argument("--repeats", type=int, default=5)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        items = invented(RECORDS) if chosen.archive is None else prepared(chosen.archive, work)
        print(f"{len(items):,} ten-second ECGs of 12 leads at 100 Hz, in batches of {BATCH}")
        compare(items, work / "records", chosen.repeats)
        some = list(items.values())
        many = {_key(n): some[n % len(some)] for n in range(chosen.short)}
        print(f"\n{len(many):,} short items")
        compare(many, work / "short", chosen.repeats)
        large(work / "large", chosen.repeats)
        pickles(work)


def _key(n: int) -> str:
    return f"{n * 2654435761 % 2**32:08x}{n:032x}"


def prepared(archive: Path, work: Path) -> Items:
    """The archive's records, prepared; by the keys of their entries."""
    from medcl import plugin
    from medcl.archive.index import Index, build
    from medcl.archive.store import prepare

    biosignals = plugin.get("biosignals")
    build(archive, work / "idx", biosignals, workers=2)
    made = prepare(Index.open(work / "idx"), biosignals, SPEC, workers=2)
    return {_key(n): dict(made.arrays(item)) for n, item in enumerate(made.items["id"])}


def invented(count: int) -> Items:
    rng = np.random.default_rng(0)

    def one() -> dict[str, np.ndarray]:
        beats = np.arange(50, 1000, 80)
        return {
            "x": rng.normal(size=(12, 1000)).astype(np.float16),
            "present": np.ones(12, dtype=bool),
            "kinds": np.full(12, b"ECG", dtype="S16"),
            "scale": np.ones(12, dtype=np.float32),
            "gaps": np.zeros((0, 2), dtype=np.int64),
            "lost": np.zeros((0, 4), dtype=np.int64),
            "beats": beats,
            "aami": np.full(len(beats), -1, dtype=np.int8),
            "spans": np.zeros((0, 3), dtype=np.int64),
            "classes": np.zeros(0, dtype="S1"),
            "likeness": rng.normal(size=(len(beats), 72)).astype(np.float32),
            "quality": np.ones((12, 5), dtype=np.float32),
            "parts": np.ones((12, 5, 3), dtype=np.float32),
            "fs": np.array([100.0]),
        }

    return {_key(n): one() for n in range(count)}


def compare(items: Items, work: Path, repeats: int) -> None:
    old, new = Before(work / "before"), Store(work / "now")
    keys = sorted(items)

    def write_new() -> None:
        for key, arrays in items.items():
            new.put(key, arrays, META)

    def write_old() -> None:
        for key, arrays in items.items():
            old.put(key, arrays)

    row("writing one", timed(write_old) / len(keys), timed(write_new) / len(keys))
    content = sum(array.nbytes for arrays in items.values() for array in arrays.values())
    print(f"  content {content / 1e6:,.1f} MB; on disk:")
    for name, path in (("before", old.path), ("now", new.path)):
        files, disk = weighed(path)
        print(
            f"    {name:6} {disk / 1e6:8,.1f} MB ({disk / content:.2f} × content), "
            f"{files / len(keys):.1f} files an item"
        )
    some = keys[:: max(1, len(keys) // 400)]
    ways: dict[str, tuple[Callable[[str], object], Callable[[str], object]]] = {
        "opening one, reading x[:, :10]": (
            lambda key: old.arrays(key)["x"][:, :10].sum(),
            lambda key: new.arrays(key)["x"][:, :10].sum(),
        ),
        "is it there, and whole?": (old.has, new.has),
    }
    for what, (before, now) in ways.items():
        seconds = turns(
            lambda way=before: [way(key) for key in some],
            lambda way=now: [way(key) for key in some],
            repeats,
        )
        row(what, *(s / len(some) for s in seconds))
    batches(keys, old, new, repeats)


def batches(keys: list[str], old: Before, new: Store, repeats: int) -> None:
    """Shuffled batches as the plugin reads them for training: what is read again may be open."""
    from medcl_biosignals.dataset import dataset

    frame = pl.DataFrame({"id": keys, "patient": keys})
    arrays = StoredArrays.of(new.path, keys, keys)
    samples = [dataset(frame, a, seconds=10.0, stride=10.0) for a in (old, arrays)]  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    order = [rng.permutation(len(samples[0]))[:BATCH] for _ in range(max(20, len(keys) // BATCH))]
    first, second = (samples[n].read(order[0])["x"] for n in (0, 1))
    np.testing.assert_array_equal(first, second)
    every = turns(
        lambda: [samples[0].read(at) for at in order],
        lambda: [samples[1].read(at) for at in order],
        max(2, repeats // 2),
    )
    row(f"a shuffled batch of {BATCH}, of many in a row", *(s / len(order) for s in every))

    def fresh() -> None:
        for at in order[:4]:
            again = StoredArrays.of(new.path, keys, keys)
            samples[1].read.keywords["arrays"] = again  # type: ignore[attr-defined]
            samples[1].read(at)

    def closed() -> None:
        for at in order[:4]:
            old.opened.cache_clear()
            samples[0].read(at)

    row("the same, with nothing open before", *(s / 4 for s in turns(closed, fresh, repeats)))


def large(work: Path, repeats: int) -> None:
    """Random boxes of 96³ of a volume of 210 MB: what checking by blocks costs."""
    rng = np.random.default_rng(0)
    volume = rng.integers(-1000, 1000, (400, 512, 512), dtype=np.int16)
    old, new, key = Before(work / "before"), Store(work / "now"), _key(1)
    old.put(key, {"hu0": volume})
    new.put(key, {"hu0": volume}, META)
    corners = rng.integers(0, (304, 416, 416), (50, 3)).tolist()

    def crops(array: Any) -> None:
        for z, y, x in corners:
            np.array(array[z : z + 96, y : y + 96, x : x + 96], dtype=np.float32)

    print("\nA volume of 210 MB, 50 random boxes of 96³")
    first = turns(lambda: crops(old.arrays(key)["hu0"]), lambda: crops(new.arrays(key)["hu0"]), 3)
    row("opened anew, each block checked once", *(s / 50 for s in first))
    before, now = old.arrays(key)["hu0"], new.arrays(key)["hu0"]
    row(
        "once they were read",
        *(s / 50 for s in turns(lambda: crops(before), lambda: crops(now), repeats)),
    )


def pickles(work: Path) -> None:
    count = 1_000_000
    ids = [f"i_{n:020x}" for n in range(count)]
    keys = [_key(n) for n in range(count)]
    (work / "many").mkdir()
    arrays = StoredArrays.of(work / "many", ids, keys)
    size = len(pickle.dumps(arrays))
    start = time.perf_counter()
    pickle.loads(pickle.dumps(arrays))
    seconds = time.perf_counter() - start
    before = len(pickle.dumps(dict(zip(ids, keys, strict=True))))
    print(
        f"\n{count:,} items: what a loader is sent, {before / 2**20:.0f} MiB before, {size} bytes "
        f"now ({seconds:.2f} s to open there)"
    )


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def turns(before: Callable[[], object], now: Callable[[], object], repeats: int) -> list[float]:
    """The median of each, in seconds, timed in turns after one warm-up."""
    before(), now()
    pairs = [(timed(before), timed(now)) for _ in range(repeats)]
    return [statistics.median(column) for column in zip(*pairs, strict=True)]


def row(what: str, before: float, now: float) -> None:
    print(
        f"  {what:42} before {before * 1e3:9.3f} ms, now {now * 1e3:8.3f} ms: {before / now:6.1f} ×"
    )


def weighed(folder: Path) -> tuple[int, int]:
    """Files, and the bytes that they and their folders take on the disk."""
    files = disk = 0
    for root, _, names in os.walk(folder):
        disk += os.stat(root).st_blocks * 512
        for name in names:
            files += 1
            disk += os.stat(os.path.join(root, name)).st_blocks * 512
    return files, disk


if __name__ == "__main__":
    main()
