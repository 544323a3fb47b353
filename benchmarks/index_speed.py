"""Files a second: walking, indexing and preparing 10,000 tiny synthetic recordings.

python benchmarks/index_speed.py
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "archive"))

from synthetic_plugin import plugin, recording

from medcl.archive.index import Index, build
from medcl.archive.store import prepare
from medcl.archive.walk import walk

FILES = 10_000


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "archive"
        for n in range(FILES):
            recording(archive, f"s{n % 10}/p{n // 10:04d}/r{n:05d}", f"p{n // 10}", f"s{n % 10}")
        start = time.perf_counter()
        walk(archive)
        print(f"walk: {FILES / (time.perf_counter() - start):,.0f} files/s")
        for workers in (1, 2):
            out = Path(folder) / f"index{workers}"
            for what in ("fresh", "unchanged"):
                seconds = build(archive, out, plugin, workers=workers).seconds
                print(f"index, {workers} worker(s), {what}: {FILES / seconds:,.0f} files/s")
        index = Index.open(Path(folder) / "index1")
        for workers in (1, 2):
            start = time.perf_counter()
            prepare(index, plugin, {"scale": float(workers)}, workers=workers)
            rate = FILES / (time.perf_counter() - start)
            print(f"prepare, {workers} worker(s): {rate:,.0f} items/s")


if __name__ == "__main__":
    main()
