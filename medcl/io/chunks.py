"""Items of a map, a few sent to a worker at a time; what was with one that failed runs alone."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

from medcl.io.failure import Failure, guarded

T = TypeVar("T")
R = TypeVar("R")


class Chunks(Generic[T]):
    """What is still to do, in chunks whose size follows the time that the last ones took.

    Args:
        items: to do.
        workers: that share them.
        seconds: of work sent at a time: reading a header takes less than sending it alone.
        largest: number of items sent at a time.
    """

    def __init__(
        self, items: Sequence[T], workers: int, *, seconds: float = 0.1, largest: int = 16
    ) -> None:
        self._waiting, self._alone = deque(items), deque[T]()
        self._size, self._workers = 1, workers
        self._seconds, self._largest = seconds, largest

    def __bool__(self) -> bool:
        return bool(self._waiting or self._alone)

    def take(self) -> list[T]:
        """The next chunk."""
        queue, size = (self._waiting, self._size) if self._waiting else (self._alone, 1)
        return [queue.popleft() for _ in range(min(size, len(queue)))]

    def took(self, chunk: Sequence[T], seconds: float) -> None:
        """A chunk was done in this time."""
        most = int(self._seconds * len(chunk) / max(seconds, 1e-6))
        self._size = max(1, min(most, self._largest, len(self._waiting) // (4 * self._workers)))

    def alone(self, items: Iterable[T]) -> None:
        """Run these again, one by one."""
        self._alone += items


def guarded_each(fn: Callable[[T], R], chunk: Sequence[T]) -> tuple[list[R | Failure], float]:
    """In a worker: the results of a chunk, and the seconds that they took."""
    begin = time.perf_counter()
    return [guarded(fn, item) for item in chunk], time.perf_counter() - begin
