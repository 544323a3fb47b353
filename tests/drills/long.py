"""The long form of the drills: many moments of every verb. ``make drills`` prints its table.

``--each N``: so many moments of each drill and verb; ``--verb`` and ``--drill``: these alone;
``--at-once``: so many at once.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import drill
import numpy as np
from drill import Count, Whole

DRILLS = ("kill", "term", "stop", "full disk", "flipped bit", "unmounted")


def drills(of: Whole, name: str, kind: str, each: int, folder: Path) -> Iterator[Count]:
    """So many of one kind, at moments that are spread over the verb."""
    draw = np.random.default_rng(len(name) + 100 * DRILLS.index(kind))
    touches = of.touches[name]
    moments = sorted({int(n) for n in np.linspace(1, max(touches, 1), each + 2)[1:-1]} or {1})
    if kind in ("kill", "term", "stop"):
        if touches:  # a verb that writes nothing cannot be broken off between two writes
            for at in moments:
                yield drill.broken_off(of, name, kind, at, folder)  # type: ignore[arg-type]
    elif kind == "full disk":
        if touches:
            for share in np.linspace(0, 1, each + 2)[1:-1]:
                yield drill.full_disk(of, name, float(share), folder)
    elif kind == "flipped bit":
        if drill.VERBS[name].reads:
            for _ in range(each):
                yield drill.flipped(of, name, draw, folder)
    else:
        yield drill.unmounted(of, name, "empty", folder)
        yield drill.unmounted(of, name, "missing", folder)


def main() -> int:
    """Run them and print the table; 1 if anything is wrong or left."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--each", type=int, default=8)
    asked.add_argument("--verb", choices=list(drill.VERBS), action="append")
    asked.add_argument("--drill", choices=DRILLS, action="append")
    asked.add_argument("--at-once", type=int, default=os.cpu_count())
    given = asked.parse_args()
    pairs = [(v, d) for v in given.verb or drill.VERBS for d in given.drill or DRILLS]
    with (
        tempfile.TemporaryDirectory(prefix="medcl-drills-") as place,
        ThreadPoolExecutor(given.at_once) as pool,
    ):
        of = drill.whole(Path(place))
        print("every verb was run undisturbed", file=sys.stderr, flush=True)
        work = partial(total, of, each=given.each, folder=Path(place))
        counts = dict(zip(pairs, pool.map(work, pairs), strict=True))
    print("n / right / wrong / residue\n")
    print(drill.table(counts))
    return int(any(count.wrong or count.residue for count in counts.values()))


def total(of: Whole, pair: tuple[str, str], *, each: int, folder: Path) -> Count:
    """All of one drill with one verb."""
    count = sum(drills(of, *pair, each, folder), Count())
    print(*pair, f"{count.right} of {count.n} right", file=sys.stderr, flush=True)
    for wrong in count.wrong + count.residue:
        print("   ", wrong, file=sys.stderr, flush=True)
    return count


if __name__ == "__main__":
    multiprocessing.set_forkserver_preload(drill.PRELOAD)
    sys.exit(main())
