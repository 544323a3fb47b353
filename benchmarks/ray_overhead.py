"""What Ray costs an item, beside medcl's own pool: items that compute for a fixed CPU time.

    RAY_worker_niceness=0 python benchmarks/ray_overhead.py

Wall clock per item, start-up aside (a first map of a few items starts the workers), two workers,
three times each in turns. Ray gives its workers the lowest priority unless it is told otherwise.
"""

from __future__ import annotations

import time
from functools import partial

from medcl.io.pmap import Engine, pmap

WORKERS, TIMES = 2, 3
ITEMS = {0.001: 8000, 0.005: 2000, 0.02: 500}


def busy(seconds: float, item: int) -> int:
    """Compute for so much CPU time."""
    begin = time.process_time()
    while time.process_time() - begin < seconds:
        item += 1
    return item


def per_item(engine: Engine, seconds: float, count: int) -> float:
    """Milliseconds by the clock."""
    work = partial(busy, seconds)
    for _ in pmap(work, range(4 * WORKERS), engine=engine, workers=WORKERS):
        pass
    begin = time.perf_counter()
    for _ in pmap(work, range(count), engine=engine, workers=WORKERS):
        pass
    return 1000 * (time.perf_counter() - begin) / count


def main() -> None:
    print("| an item takes | own pool | Ray | overhead |\n|---|---|---|---|")
    for seconds, count in ITEMS.items():
        pairs = [
            (per_item("local", seconds, count), per_item("ray", seconds, count))
            for _ in range(TIMES)
        ]
        own, ray = zip(*pairs, strict=True)
        over = [100 * (r / o - 1) for o, r in pairs]
        print(
            f"| {1000 * seconds:.0f} ms | {min(own):.2f}–{max(own):.2f} ms "
            f"| {min(ray):.2f}–{max(ray):.2f} ms | {min(over):.0f} to {max(over):.0f} % |"
        )


if __name__ == "__main__":
    main()
