"""What is left of an exception: a sentence that may be shown, and a traceback that may not."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from medcl.errors import MedclError

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Failure:
    """Why an item has no result.

    Attributes:
        reason: one sentence, without the exception's text: that may quote file names or headers.
        detail: the whole traceback, for a private place.
        died: the process ended without a word (crash, or killed for its memory).
        error: the exception, by class name.
    """

    reason: str
    detail: str = ""
    died: bool = False
    error: str = ""

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Describe an exception. A `MedclError` is meant to be read, so its message is kept."""
        detail = "".join(traceback.format_exception(error))
        name = type(error).__name__
        if isinstance(error, MedclError):
            return cls(str(error), detail, error=name)
        known = f": {error.strerror}" if isinstance(error, OSError) and error.strerror else ""
        places = [
            f", {frame.f_globals.get('__name__')} line {line}"
            for frame, line in traceback.walk_tb(error.__traceback__)
        ]
        place = places[-1] if places else ""
        return cls(f"It could not be read ({name}{known}{place}).", detail, error=name)


DIED = Failure(
    "The process reading it died (a crash, or out of memory).",
    detail="No message: the worker process ended.",
    died=True,
)


def guarded(fn: Callable[[T], R], item: T) -> R | Failure:
    """Call ``fn``; an exception (``sys.exit`` too) becomes a `Failure` where it was raised."""
    try:
        return fn(item)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return Failure.of(error)
