"""Named arrays (NumPy, MATLAB, HDF5) → a recording: which are signals, which say how they lie.

An array with two axes has time along the longer one. The rate stands in a number called ``fs`` or
the like, or follows from an array of times.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from medcl_biosignals.naming import meant
from medcl_biosignals.readers import ticks, times
from medcl_biosignals.readers.columns import NO_SIGNALS, PERSONS, is_time, parted, time_unit
from medcl_biosignals.readers.contract import (
    BadSignal,
    Channel,
    Heading,
    Recording,
    Settings,
    Span,
    bounds,
    kept,
    person,
)
from medcl_biosignals.vocabulary import plain, together, vocabulary

_RATES = frozenset(
    ("fs", "sf", "sr", "srate", "sfreq", "freq", "samplingrate", "samplerate", "samplingfrequency",
     "samplefrequency", "frequency", "hz")
)  # fmt: skip
_NAMES = frozenset(
    ("channels", "channelnames", "names", "signame", "signames", "leads", "leadnames", "labels",
     "columns", "chnames")
)  # fmt: skip
_UNITS = frozenset(("units", "unit"))
_MOST_CHANNELS = 512


@dataclass(frozen=True)
class Variable:
    """A numeric array, not yet loaded. ``fs``, ``units``, ``names``: what it says of itself."""

    name: str
    shape: tuple[int, ...]
    load: Callable[[], np.ndarray]
    fs: float | None = None
    units: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def axes(self) -> tuple[int, ...]:
        """The shape without axes of length one."""
        return tuple(size for size in self.shape if size != 1)


@dataclass(frozen=True)
class Variables:
    """What a file (or a group in it) holds: arrays, single numbers, and texts."""

    arrays: Sequence[Variable]
    numbers: Mapping[str, float] = field(default_factory=dict)
    texts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Line:
    """A channel: an array, and which of its rows or columns (None: it is one signal)."""

    source: Variable
    index: int | None
    channel: str
    units: str


def heading(part: str, form: str, held: Variables, settings: Settings) -> Heading:
    """What the index needs to know. Only an array of times is loaded."""
    lines = _lines(held, settings)
    rates, grid, findings = _rates(held, lines, settings)
    lengths = [grid.length if grid else max(line.source.axes) for line in lines]
    return Heading(
        part,
        form,
        _channels(lines, rates),
        max(rates),
        max(n / fs for n, fs in zip(lengths, rates, strict=True)),
        subject=_subject(held, settings),
        findings=findings,
    )


def read(held: Variables, settings: Settings, span: Span | None) -> Recording:
    """The samples."""
    lines = _lines(held, settings)
    rates, grid, _ = _rates(held, lines, settings)
    loaded: dict[str, np.ndarray] = {}
    samples = []
    for line, fs in zip(lines, rates, strict=True):
        if line.source.name not in loaded:
            loaded[line.source.name] = np.squeeze(load(line.source))
        values = loaded[line.source.name]
        if line.index is not None:
            along = values if values.shape[0] <= values.shape[1] else values.T
            values = along[line.index]
        row = grid.place(values) if grid else kept(np.asarray(values))
        row[~np.isfinite(row)] = np.nan
        first, last = bounds(span, fs, len(row))
        samples.append(row[first:last])
    return Recording(_channels(lines, rates), samples)


def load(variable: Variable) -> np.ndarray:
    """Its values.

    Raises:
        BadSignal: if the file is cut off or damaged there.
    """
    try:
        return variable.load()
    except Exception as error:  # each library raises its own for a damaged file
        raise BadSignal(
            "bad-signal", f"an array is cut off or damaged ({type(error).__name__})"
        ) from error


def _channels(lines: list[_Line], rates: list[float]) -> tuple[Channel, ...]:
    return tuple(Channel(x.channel, x.units, fs) for x, fs in zip(lines, rates, strict=True))


def _lines(held: Variables, settings: Settings) -> list[_Line]:
    """The channels among the arrays.

    Raises:
        BadSignal: if there is none, or one that the user names is not there.
    """
    signals = [array for array in held.arrays if _may_be_signal(array, settings)]
    shapes = sorted({len(array.axes) for array in held.arrays})
    if not signals and shapes and shapes[-1] > 2:
        raise BadSignal(
            "not-a-signal",
            "an array with three axes or more: save one file a recording, with channels and times",
        )
    known = vocabulary(settings.vocabulary)
    named = [s for s in signals if known.find(parted(s.name)[0]) is not None]
    chosen = named if named and not settings.columns else signals
    longest = max((max(array.axes) for array in chosen), default=0)
    lines: list[_Line] = []
    for array in chosen:
        if array.fs is None and max(array.axes) != longest:
            continue  # of another length and no rate of its own: positions of beats, say
        count = min(array.axes) if len(array.axes) == 2 else 1
        names = _described(array.names, held.texts, _NAMES, count)
        units = _described(array.units, held.texts, _UNITS, count)
        bare, bracket = parted(array.name)
        for n in range(count):
            default = bare or "signal"
            name = names[n] if names else default if count == 1 else f"{default} {n + 1}"
            unit = units[n] if units else bracket or settings.units or ""
            lines.append(_Line(array, n if len(array.axes) == 2 else None, name, unit))
    for wanted in settings.columns:
        if wanted not in [line.channel for line in lines] and not (
            wanted.isdigit() and 1 <= int(wanted) <= len(lines)
        ):
            raise BadSignal(
                "no-such-column",
                f"a channel that reader.columns names is not among the {len(lines)} of this file",
            )
    mapped = [
        _Line(line.source, line.index, name, line.units)
        for n, line in enumerate(lines)
        for name in [settings.channel(line.channel, n + 1)]
        if name is not None
    ]
    if not mapped:
        raise BadSignal("not-a-signal", "the file holds no array that could be a signal")
    return mapped


def is_excluded(array: Variable, settings: Settings) -> bool:
    """Whether an array's name says that it is no signal: a label, a person, a rate, times."""
    key = plain(parted(array.name)[0])
    named = key in PERSONS | NO_SIGNALS | _RATES
    return named or array.name == settings.time or is_time(array.name)


def _may_be_signal(array: Variable, settings: Settings) -> bool:
    if is_excluded(array, settings):
        return False
    if len(array.axes) not in (1, 2):
        return False
    return min(array.axes) <= _MOST_CHANNELS if len(array.axes) == 2 else True


def _described(
    own: tuple[str, ...], texts: Mapping[str, tuple[str, ...]], keys: frozenset[str], count: int
) -> tuple[str, ...]:
    """As many texts as there are channels, from the array itself or beside it."""
    beside = [values for name, values in texts.items() if plain(name) in keys]
    for values in (own, *beside):
        if len(values) == count:
            return values
        if len(values) == 1 and keys is _UNITS:
            return values * count
    return ()


def _rates(
    held: Variables, lines: list[_Line], settings: Settings
) -> tuple[list[float], times.Grid | None, tuple[str, ...]]:
    """Each channel's rate; the grid of an array of times, if there is one; what was noticed."""
    said = next((v for name, v in held.numbers.items() if plain(name) in _RATES), None)
    clock = _clock(held, lines, settings)
    if clock is not None:
        unit = settings.time_unit or time_unit(clock.name)
        known = vocabulary(settings.vocabulary)
        kinds = tuple(meant(name, known).kind for name in together([x.channel for x in lines]))
        told = ticks.Told(kinds, known.rates)
        values = np.squeeze(load(clock)).astype(np.float64)
        since, assumed = ticks.seconds(values, unit, told)
        grid = times.grid(since, settings.fs or said)
        return [grid.fs] * len(lines), grid, (*assumed, *grid.findings)
    findings = []
    rates = []
    for line in lines:
        own = line.source.fs or said
        if own is not None and settings.fs is not None and own != settings.fs:
            findings.append("fs-mismatch")
        fs = own if own is not None else settings.fs
        if fs is None:
            raise BadSignal(
                "no-sampling-rate",
                "the file gives no sampling rate: give it in Hz, --set reader.fs=100",
            )
        if not (np.isfinite(fs) and fs > 0):
            raise BadSignal("bad-sampling-rate", f"the file gives a sampling rate of {fs:g} Hz")
        rates.append(float(fs))
    return rates, None, tuple(dict.fromkeys(findings))


def _clock(held: Variables, lines: list[_Line], settings: Settings) -> Variable | None:
    """The array of times: as long as the signals."""
    if settings.time == "none":
        return None
    longest = max(max(line.source.axes) for line in lines)
    for array in held.arrays:
        if (array.name == settings.time or is_time(array.name)) and array.axes == (longest,):
            return array
    if settings.time is not None:
        raise BadSignal("no-such-column", "the array that reader.time names is not in this file")
    return None


def _subject(held: Variables, settings: Settings) -> str | None:
    for name, values in held.texts.items():
        if (name == settings.subject or plain(name) in PERSONS) and len(values) == 1:
            return person(values[0])
    for name, value in held.numbers.items():
        if name == settings.subject or plain(name) in PERSONS:
            return person(f"{value:g}")
    return None
