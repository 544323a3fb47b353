"""Progress: a bar on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from medcl.io import log

EVERY = 30.0  # seconds between two lines
FEW = 3  # items in whose time the start of processes counts too much: nothing is foretold
T = TypeVar("T")


def track(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Pass ``items`` through, with a progress bar if standard error is a terminal.

    Elsewhere a line every `EVERY` seconds says how many are done, and how long the rest may take.
    """
    if not sys.stderr.isatty():
        lines = Lines(label, total)
        for item in items:
            yield item
            lines.one_more()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        yield from bar.track(items, total=total, description=label)


class Lines:
    """A line of progress every `EVERY` seconds, the first after as long."""

    def __init__(self, label: str, total: int | None, done: int = 0) -> None:
        self.label, self.total, self.done, self.before = label, total, done, done
        self.started = self.said = time.monotonic()

    def one_more(self, more: str = "") -> None:
        """Count one, and say so if it is time; ``more`` goes behind it."""
        self.done += 1
        now = time.monotonic()
        if now - self.said < EVERY:
            return
        self.said = now
        rate = (self.done - self.before) / (now - self.started)
        of = "" if self.total is None else f" of {self.total:,} ({self.done / self.total:.0%})"
        rest = ""
        if self.total is not None and self.total > self.done >= self.before + FEW:
            rest = f", about {_time((self.total - self.done) / rate)} left"
        text = f"{self.label}: {self.done:,}{of}, {rate:.3g}/s{rest}{', ' if more else ''}{more}"
        log.say(
            "progress",
            text,
            label=self.label,
            done=self.done,
            total=self.total,
            rate=round(rate, 4),
        )


def _time(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
