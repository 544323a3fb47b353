"""Map a function over many items in processes; a failing item never affects the others.

A worker may raise, run out of memory or crash in a C library: each costs its own item only.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, TypeVar

from medcl.errors import UsageError
from medcl.io import local_map, ray_map
from medcl.io.failure import Failure, guarded
from medcl.io.progress import track

Engine = Literal["local", "ray"]
T = TypeVar("T")
R = TypeVar("R")


def pmap(
    fn: Callable[[T], R],
    items: Iterable[T],
    *,
    workers: int = 1,
    engine: Engine = "local",
    label: str = "Working",
) -> Iterator[tuple[T, R | Failure]]:
    """Yield ``(item, fn(item))`` as each finishes, in no fixed order; a `Failure` if it failed.

    Args:
        fn: a module-level function, or a `functools.partial` of one.
        items: to map over; only a few are in flight at a time, which bounds memory.
        workers: processes; with one, the work runs in this process.
        engine: ``"ray"`` maps on the Ray cluster at ``$RAY_ADDRESS``, or on a Ray of this machine.
        label: of the progress bar.

    Raises:
        UsageError: if ``engine`` is "ray" and Ray is not installed.
        MedclError: if worker processes cannot start, or cannot load ``fn``.
    """
    items = list(items)
    if engine == "ray":
        if importlib.util.find_spec("ray") is None:
            raise UsageError("Ray is not installed. Install it: pip install 'medcl[ray]'")
        outcomes = ray_map.run(fn, items, workers)
    elif workers <= 1 or len(items) <= 1:
        outcomes = ((item, guarded(fn, item)) for item in items)
    else:
        outcomes = local_map.run(fn, items, min(workers, len(items)))
    return track(outcomes, label, total=len(items))
