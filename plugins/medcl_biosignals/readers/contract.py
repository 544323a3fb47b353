"""What a reader of one file format gives, and what it can be told.

A reader is a module with two functions:

``headings(path, settings)``
    yields a `Heading` for each recording in the file (or a `Flaw`), as cheaply as that can be.
``read(path, part, settings, span)``
    gives the `Recording` of that part: its samples between ``span`` seconds, or all.

Either raises `BadSignal` for a file that cannot be used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase as fnmatch
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, Protocol

from medcl.plugin import Scalar

if TYPE_CHECKING:
    import numpy as np

Span = tuple[float, float]
"""Seconds from the start of a recording: (from, to)."""


class BadSignal(Exception):
    """What cannot be used: ``code`` to count by, the message to act on. Quotes no file content."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


@dataclass(frozen=True)
class Settings:
    """What files do not say. Defaults: what they do say, or what can be seen in them.

    Attributes:
        fs: sampling rate in Hz.
        columns: a column's name, or its number from 1, → its channel; only these are then read.
        time: name or number of the column of times; "none" if there is none.
        time_unit: of a column of plain numbers.
        units: unit of every channel whose file gives none.
        delimiter: between the columns of a text file.
        decimal: what stands before the decimals.
        subject: column or variable that names the person.
        vocabulary: further names of channels; see `medcl_biosignals.vocabulary`.
        files: pattern on a path, such as ``"watch/*.csv"`` → settings of those files alone.
    """

    fs: float | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    time: str | None = None
    time_unit: Literal["s", "ms", "us", "ns"] | None = None
    units: str | None = None
    delimiter: Literal["comma", "semicolon", "tab", "space", "pipe"] | None = None
    decimal: Literal["point", "comma"] | None = None
    subject: str | None = None
    vocabulary: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def of(self, file: str) -> Settings:
        """The settings for one file; of several patterns that fit, later ones count."""
        own: dict[str, Any] = {}
        for pattern, given in self.files.items():
            if fnmatch(file, pattern) or fnmatch(PurePosixPath(file).name, pattern):
                own |= given
        return replace(self, **own) if own else self

    def channel(self, name: str, number: int) -> str | None:
        """The channel that a column (``number`` from 1) holds; None if it is not to be read."""
        if not self.columns:
            return name
        return self.columns.get(name, self.columns.get(str(number)))


@dataclass(frozen=True)
class Channel:
    """One signal, named and in units as its file has them (units "" where it gives none)."""

    name: str
    units: str
    fs: float


@dataclass(frozen=True)
class Heading:
    """One recording, without its samples.

    Attributes:
        part: which of the recordings in the file; "" where there is one.
        format: as the index shows it.
        channels: its signals.
        fs: the rate in Hz that its samples are counted at: that of its channels, or of its frames.
        seconds: its length.
        subject: the person, raw; None if the file does not say.
        site: the institution, raw.
        findings: problems that were noticed and accepted.
        segments: of which it is put together; 0 where it is whole.
        labels: what it says of the person, see `medcl_biosignals.readers.header_labels`.
    """

    part: str
    format: str
    channels: tuple[Channel, ...]
    fs: float
    seconds: float
    subject: str | None = None
    site: str | None = None
    findings: tuple[str, ...] = ()
    segments: int = 0
    labels: Mapping[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True)
class Flaw:
    """A part of a file that cannot be used, and why."""

    part: str
    code: str
    reason: str


@dataclass(frozen=True)
class Recording:
    """Samples in the file's units: one float32 array a channel, at its own rate; NaN is missing."""

    channels: tuple[Channel, ...]
    samples: list[np.ndarray]


class Reader(Protocol):
    """A module of this package."""

    def headings(self, path: Path, settings: Settings) -> Iterator[Heading | Flaw]: ...

    def read(
        self, path: Path, part: str, settings: Settings, span: Span | None = None
    ) -> Recording: ...


def bounds(span: Span | None, fs: float, length: int) -> tuple[int, int]:
    """A span as sample positions of a channel with ``length`` samples."""
    if span is None:
        return 0, length
    first, last = (min(max(round(second * fs), 0), length) for second in span)
    return first, max(first, last)


PLACEHOLDERS = frozenset(
    ("", "x", "anonymous", "anonymized", "anonymised", "anon", "unknown", "none", "na", "n/a", "0",
     "-", "null", "nan", "patient", "subject", "test")
)  # fmt: skip


def person(text: object) -> str | None:
    """A subject as a file gives it; None for what stands in the place of one."""
    named = " ".join(str(text).split()) if text is not None else ""
    return None if named.strip("-_ ").lower() in PLACEHOLDERS else named
