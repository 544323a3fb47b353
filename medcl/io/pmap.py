"""Map a function over many items in processes; a failing item never affects the others.

A worker may raise, run out of memory, crash in a C library or hang: each costs its own item only.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, TypeVar

from medcl.errors import UsageError
from medcl.io import local_map, ray_map
from medcl.io.failure import Failure, guarded
from medcl.io.progress import track
from medcl.io.room import NoRoomError

Engine = Literal["local", "ray"]
ITEM_SECONDS = 900.0  # a file that takes longer to read hangs its reader
T = TypeVar("T")
R = TypeVar("R")


def item_seconds() -> float:
    """The time that a reader may take for an item: ``$MEDCL_ITEM_SECONDS``, or `ITEM_SECONDS`.

    Raises:
        UsageError: if the variable is not a number above 0.
    """
    text = os.environ.get("MEDCL_ITEM_SECONDS", str(ITEM_SECONDS))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise UsageError(f"$MEDCL_ITEM_SECONDS is '{text}': give a number of seconds above 0.")
    return seconds


def pmap(
    fn: Callable[[T], R],
    items: Iterable[T],
    *,
    workers: int = 1,
    engine: Engine = "local",
    label: str = "Working",
    seconds: float | None = None,
) -> Iterator[tuple[T, R | Failure]]:
    """Yield ``(item, fn(item))`` as each finishes, in no fixed order; a `Failure` if it failed.

    Args:
        fn: a module-level function, or a `functools.partial` of one.
        items: to map over; only a few are in flight at a time, which bounds memory.
        workers: processes; with one, the work runs in this process.
        engine: ``"ray"`` maps on the Ray cluster at ``$RAY_ADDRESS``, or on a Ray of this machine.
        label: of the progress bar.
        seconds: after which an item is given up and its worker ended; None: never. One worker is
            this process, which nothing ends.

    Raises:
        UsageError: if ``engine`` is "ray" and Ray is not installed.
        MedclError: if worker processes cannot start, or cannot load ``fn``.
        NoRoomError: if a disk is full.
    """
    items = list(items)
    if engine == "ray":
        if importlib.util.find_spec("ray") is None:
            raise UsageError("Ray is not installed. Install it: pip install 'medcl[ray]'")
        outcomes = ray_map.run(fn, items, workers, seconds)
    elif workers <= 1 or len(items) <= 1:
        outcomes = ((item, guarded(fn, item)) for item in items)
    else:
        outcomes = local_map.run(fn, items, min(workers, len(items)), seconds)
    return track(map(_with_room, outcomes), label, total=len(items))


def _with_room(outcome: tuple[T, R | Failure]) -> tuple[T, R | Failure]:
    """A full disk is no fault of the item: it ends the work."""
    _, result = outcome
    if isinstance(result, Failure) and result.error == NoRoomError.__name__:
        raise NoRoomError(result.reason)
    return outcome
