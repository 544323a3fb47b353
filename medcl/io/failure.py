"""An exception as a public sentence and a private traceback."""

from __future__ import annotations

import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from medcl.errors import MedclError
from medcl.io import room
from medcl.io.stopping import Stopped

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Failure:
    """The reason why an item has no result.

    Attributes:
        reason: one sentence, without the exception's text, which may quote file names or headers.
        detail: the full traceback, for a private file.
        died: the process ended without an exception (crash, or out of memory).
        error: the exception, by class name.
    """

    reason: str
    detail: str = ""
    died: bool = False
    error: str = ""

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Describe an exception. The message of a `MedclError` is public, so it is kept."""
        detail = "".join(traceback.format_exception(error))
        name = type(error).__name__
        if isinstance(error, MedclError):
            return cls(str(error), detail, error=name)
        if room.is_full(error):
            where = Path(getattr(error, "filename", None) or tempfile.gettempdir())
            return cls(room.sentence(where), detail, error=room.NoRoomError.__name__)
        system_error = (
            f": {error.strerror}" if isinstance(error, OSError) and error.strerror else ""
        )
        locations = [
            f", {frame.f_globals.get('__name__')} line {line}"
            for frame, line in traceback.walk_tb(error.__traceback__)
        ]
        location = locations[-1] if locations else ""
        return cls(f"It could not be read ({name}{system_error}{location}).", detail, error=name)


DIED = Failure(
    "The process reading it died (a crash, or out of memory).",
    detail="No message: the worker process ended.",
    died=True,
)


def hung(seconds: float) -> Failure:
    """Of an item that was not done after ``seconds``; the process reading it was ended."""
    return Failure(
        f"It was not read within {seconds:g} s, and the process reading it was ended. "
        "$MEDCL_ITEM_SECONDS sets the limit.",
        detail="No message: the worker process was ended.",
        error="TimeoutError",
    )


def died_within(seconds: float) -> Failure:
    """Of an item whose process died, or was ended after ``seconds``: Ray does not tell which."""
    return replace(DIED, reason=f"{DIED.reason[:-2]}, or not done within {seconds:g} s).")


def guarded(fn: Callable[[T], R], item: T) -> R | Failure:
    """Call ``fn``; an exception (``sys.exit`` too) becomes a `Failure` in the same process."""
    try:
        return fn(item)
    except (KeyboardInterrupt, Stopped):
        raise
    except BaseException as error:
        return Failure.of(error)
