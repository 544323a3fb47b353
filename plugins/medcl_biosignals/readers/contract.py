"""What a reader of one file format gives, and what it can be told.

A reader is a module with two functions:

``headings(path, settings)``
    yields a `Heading` for each recording in the file (or a `Flaw`), as cheaply as that can be.
``read(path, part, settings, span)``
    gives the `Recording` of that part: its samples between ``span`` seconds, or all.

Either raises `BadSignal` for a file that cannot be used.
"""

from __future__ import annotations

import re
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
        rows: what the rows of an array with two axes are, or the first axis of one with three.
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
    rows: Literal["channels", "windows"] | None = None
    vocabulary: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def of(self, file: str) -> Settings:
        """The settings for one file; of several patterns that fit, later ones count."""
        own: dict[str, Any] = {}
        for pattern, given in self.files.items():
            name = PurePosixPath(file).name  # a pattern may also be a name that looks like one
            if pattern in (file, name) or fnmatch(file, pattern) or fnmatch(name, pattern):
                own |= given
        return replace(self, **own) if own else self

    def channel(self, name: str, number: int) -> str | None:
        """The channel that a column (``number`` from 1) holds; None if it is not to be read."""
        if not self.columns:
            return name
        return self.columns.get(name, self.columns.get(str(number)))


@dataclass(frozen=True)
class Channel:
    """One signal, named and in units as its file has them (units "" where it gives none).

    ``held``: rows over which its values stay the same, where a table repeats them.
    """

    name: str
    units: str
    fs: float
    held: float = 1.0

    @property
    def pace(self) -> float:
        """At which rate its values change, in Hz: that of a heart rate in each row of an ECG is
        1."""
        return self.fs / self.held


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
        session: where one recording is spread over several files of a folder: what those have in
            common, such as its name without that of the sensor. Where nobody is named, they are of
            one person.
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
    session: str | None = None


@dataclass(frozen=True)
class Flaw:
    """A part of a file that cannot be used, and why."""

    part: str
    code: str
    reason: str


@dataclass(frozen=True)
class Recording:
    """Samples in the file's units: one array a channel, at its own rate; NaN is missing.

    They are float32, and float64 where that would lose them: see `kept`. ``clock``: seconds since
    midnight at which the file begins, where it says so; the date is not kept. ``stages``: of sleep,
    where the file itself scores it: (first, last) in seconds from its beginning, and the name as in
    `medcl_biosignals.spans`; of the whole recording alone.
    """

    channels: tuple[Channel, ...]
    samples: list[np.ndarray]
    clock: float | None = None
    stages: tuple[tuple[float, float, str], ...] = ()


class Reader(Protocol):
    """A module of this package."""

    def headings(self, path: Path, settings: Settings) -> Iterator[Heading | Flaw]: ...

    def read(
        self, path: Path, part: str, settings: Settings, span: Span | None = None
    ) -> Recording: ...


TICKS = "ticks"
"""The unit of a clock that does not say what it counts in."""
_LOSS = 1e-4
"""Of a signal's standard deviation: float32 may be as far off, and no further."""


def kept(values: np.ndarray) -> np.ndarray:
    """float64 samples as float32 if that holds them, else as they are.

    A count of 1e9 that moves by one would stand still in float32: its steps are 64 there.
    """
    import numpy as np

    narrow = values.astype(np.float32)
    finite = np.isfinite(values)
    if values.dtype == np.float32 or not finite.any():
        return narrow
    largest = float(np.abs(values[finite]).max())
    if largest * 2.0**-24 <= _LOSS * float(values[finite].std()) and largest < 3e38:
        return narrow
    return narrow if (narrow[finite] == values[finite]).all() else values.astype(np.float64)


def bounds(span: Span | None, fs: float, length: int) -> tuple[int, int]:
    """A span as sample positions of a channel with ``length`` samples."""
    if span is None:
        return 0, length
    first, last = (min(max(round(second * fs), 0), length) for second in span)
    return first, max(first, last)


PLACEHOLDERS = frozenset(
    ("", "x", "xx", "xxx", "xxxx", "anonymous", "anonymized", "anonymised", "anon", "anonym",
     "unknown", "unk", "none", "na", "n/a", "nn", "null", "nil", "nan", "patient", "subject",
     "test",
     "testpatient", "participant", "person", "user", "name", "noname", "no", "id", "pid", "deid",
     "deidentified", "de", "identified", "removed", "redacted", "hidden", "masked", "blank",
     "empty",
     "default", "demo", "dummy", "sample", "example", "not", "given", "specified", "available",
     "provided", "recorded", "known", "undefined", "undisclosed", "unspecified", "missing",
     "unbekannt",
     "inconnu", "desconocido", "anonimo", "anonyme", "sex", "male", "female", "m", "f", "code",
     "of",
     "birthdate", "patientname", "patientid", "subjectname", "last", "first", "lastname",
     "firstname",
     "surname", "forename", "your", "enter", "tbd", "new", "temp", "untitled", "the", "is", "was",
     "hospital", "pat", "any", "nobody", "confidential", "private", "unnamed", "withheld",
     "blinded",
     "pseudonym", "guest", "noid", "to", "be", "edited", "keine", "angabe", "angaben", "nachname",
     "vorname", "nom", "prenom", "apellido", "nombre")
)  # fmt: skip
"""Words that stand in the place of a person; a text made of these alone names nobody."""
_NO_ONE = re.compile(
    r"(?<![^\W_])(?:[nk][/.]\s?a|n\.\s?n|john[\W_]+doe|jane[\W_]+doe|doe[\W_]+(?:john|jane))(?![^\W_])"
)
"""``n/a``, ``k.A.``, ``N.N.``, and the names that hospitals give to those without one."""
_NO_BIRTHS = re.compile(r"0?1[-./](0?1|jan)[-./](1800|1900|1970|1985|2000|0+)", re.IGNORECASE)


def person(text: object) -> str | None:
    """A subject as a file gives it; None for what stands in the place of one.

    ``X X X X``, ``ANON^PATIENT``, ``0000``, ``[removed]`` and ``N/A`` are nobody: if they counted,
    all files of an archive would be of one person.

    Example:
        >>> [person(text) for text in ("X X X X", "0000", "Not^Given", "MCH-0234567 F X Roe", "7")]
        [None, None, None, 'MCH-0234567 F X Roe', '7']
    """
    named = " ".join(str(text).split()) if text is not None else ""
    bare = _NO_BIRTHS.sub(" ", named.replace("\0", " "))
    words = re.findall(r"[^\W_]+", _NO_ONE.sub(" ", bare.lower()))
    return None if all(_nobody(word) for word in words) else named


def _nobody(word: str) -> bool:
    """Whether a word is a placeholder: one that is known, or one character over and over."""
    if word in PLACEHOLDERS:
        return True
    most = 5 if word.isdigit() else 3  # 111 may be the number of a person, 999999 is none
    return word.strip("0x") == "" or (len(word) > most and len(set(word)) == 1)
