"""Plain numbers of time → seconds: what they count, and counters that begin anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from medcl_biosignals.readers.contract import TICKS, BadSignal

UNITS: Mapping[str, float] = {
    "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9, "min": 60.0,
    "h": 3600.0, "d": 86400.0,
}  # fmt: skip
_COUNTED = ("s", "ms", "us", "ns")
# Numbers of this size count these seconds since 1970, 1601, the year 1 (.NET), 1899 (Excel: days)
# or
# 0 (MATLAB: days); all of them within about 1990 and 2050.
SINCE = (
    (6e17, 2.6e18, 1e-9), (6.3e17, 6.6e17, 1e-7), (1.22e17, 1.42e17, 1e-7), (6e14, 2.6e15, 1e-6),
    (6e11, 2.6e12, 1e-3), (6e8, 2.6e9, 1.0), (3.2e4, 5.5e4, 86400.0), (7.26e5, 7.5e5, 86400.0),
)  # fmt: skip
_DAYS = 86400.0
_WRAPS = tuple(2.0**bits for bits in (8, 16, 24, 31, 32))
_MOST: Mapping[str, float] = {"ECG": 2e4, "EEG": 2e4, "EMG": 5e4, "EOG": 2e4, "numeric": 10.0}
_MOST_ELSE = 2500.0
_LEAST: Mapping[str, float] = {"PPG": 10.0}
"""Rates that a bare number of time is taken for: a PPG of 6.4 Hz is ticks of another length."""
_FASTEST = 1e6
NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}


@dataclass(frozen=True)
class Told:
    """What channels tell of the rate of their times.

    Attributes:
        kinds: of the channels; "other" tells nothing.
        least: kind → the least rate in Hz of such a waveform.
        measured: whether all may as well be measured values, as some of them are.
    """

    kinds: tuple[str, ...] = ()
    least: Mapping[str, float] = field(default_factory=dict)
    measured: bool = False


def seconds(
    values: np.ndarray, unit: str | None, told: Told | None = None, *, size: float = 0.0
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Plain numbers of time → seconds since the first, and what had to be assumed.

    Where no unit is given it follows from the size of the numbers, if they are ticks since a known
    day; else from which rates the channels beside them may have. Where several units are possible,
    or none, they are refused.

    Args:
        values: (N,) numbers, NaN where there is none.
        unit: what they count, if that is known.
        told: what the channels tell that they time.
        size: what was taken off the numbers.

    Raises:
        BadSignal: if it cannot be told what they count.
    """
    known = values[np.isfinite(values)]
    if not len(known):
        raise BadSignal("no-times", "the column of times holds no number")
    told = told or Told()
    if unit is None or unit == TICKS:
        clock = _of_digits(values + size)
        if clock is not None:
            since, findings = unwrapped(clock)
            return since - clock[np.isfinite(clock)][0], findings
    since, findings = unwrapped(np.asarray(values, dtype=np.float64), size)
    span = float(known.min()) + size, float(known.max()) + size
    since = since - known[0]
    if unit is not None and unit != TICKS:
        return since * size_of(unit), findings
    rate = _rate(since[np.isfinite(since)])  # samples a tick
    scales = _since_a_day(*span, rate, told)
    if len(scales) == 1:
        return since * scales[0], findings
    if len(scales) > 1:
        raise _ambiguous("numbers of this size may count from several days in several units")
    if unit == TICKS:
        raise _ambiguous("the ticks of a clock may be of any length")
    if rate is None:
        return since, (*findings, "assumed-seconds")
    found = _counted(since, rate, told)
    return since * UNITS[found], (*findings, f"assumed-{NAMES[found]}")


def size_of(unit: str) -> float:
    """Seconds in a unit of `UNITS`, in several of it ("10 ms"), or in a part of it ("s/128")."""
    if unit in UNITS:
        return UNITS[unit]
    base, _, parts = unit.partition("/")
    if parts:
        return UNITS[base] / float(parts)
    times, _, base = unit.partition(" ")
    return float(times) * UNITS[base]


def _of_digits(values: np.ndarray) -> np.ndarray | None:
    """A time of day whose digits are hours, minutes and seconds (115959.5), in seconds; else None.

    It shows where a minute ends: 115959 is followed by 120000, and no number ends in 60 to 99.
    """
    known = values[np.isfinite(values)]
    for size in (1.0, 1e3, 1e6):
        if not 0 <= known.min() <= known.max() < 240000 * size:
            continue
        minutes, within = np.divmod(values / size, 100)
        hours, minute = np.divmod(minutes, 100)
        if np.nanmax(within) >= 60 or np.nanmax(minute) >= 60:
            continue
        ends = np.flatnonzero(np.diff(minutes[np.isfinite(values)]) > 0)
        if len(ends) and (np.diff(known)[ends] >= 40 * size).all():
            return np.asarray(hours * 3600 + minute * 60 + within)
    return None


def unwrapped(values: np.ndarray, offset: float = 0.0) -> tuple[np.ndarray, tuple[str, ...]]:
    """Counters of 8 to 32 bits that pass their largest number go on rising; so do times of day.

    A jump back is taken for that only if, with what the counter holds added, it is an ordinary
    step.

    Args:
        values: (N,) numbers, NaN where there is none.
        offset: what was taken off them.
    """
    at = np.flatnonzero(np.isfinite(values))
    steps = np.diff(values[at])
    down = np.flatnonzero(steps < 0)
    rises = steps[steps > 0]
    if not len(down) or not len(rises) or len(down) > 0.5 * len(steps):
        return values, ()
    usual = float(np.median(rises))
    for size in (*_WRAPS, _DAYS, _DAYS * 1e3):
        after = steps[down] + size
        if ((after >= 0) & (after <= 20 * usual)).all() and abs(values[at].max() + offset) <= size:
            lifted = np.zeros(len(at))
            lifted[down + 1] = size
            out = values.copy()
            out[at] += np.cumsum(lifted)
            return out, ("counter-began-anew",)
    return values, ()


def _rate(since: np.ndarray) -> float | None:
    """Rows a tick: over the middle of the steps, so that gaps do not count; None without steps."""
    steps = np.abs(np.diff(since))
    if not (steps > 0).any():
        return None
    if (steps == 0).mean() < 0.5:
        rises = steps[steps > 0]
        if (steps == 0).any():
            return float((1 + (steps == 0).sum() / len(rises)) / np.median(rises))
        return float(1 / np.median(rises))
    changes = np.flatnonzero(steps > 0)
    counts = np.diff(changes)
    each = float(np.median(counts)) if len(counts) else float(changes[0] + 1)
    return each / float(np.median(steps[changes]))


def _since_a_day(first: float, last: float, rate: float | None, told: Told) -> list[float]:
    """Seconds a tick, for numbers as large as those that count from a known day until now."""
    scales = list(dict.fromkeys(s for low, high, s in SINCE if low <= first <= last <= high))
    if rate is None:
        return [scale for scale in scales if scale < _DAYS]
    if any(scale == _DAYS for scale in scales):  # 44,216.502 are days, a counter's 44,216 are not
        slowest = 1e3 if set(told.kinds) == {"numeric"} else _MOST["ECG"]  # as seconds: too fast
        return [s for s in scales if s != _DAYS or slowest < rate < _DAYS * _FASTEST]
    if len(scales) > 1:
        scales = [s for s in scales if plausible(rate / s, told)] or scales
    return scales


def _counted(since: np.ndarray, rate: float, told: Told) -> str:
    """The unit of numbers that count from anywhere."""
    step, kinds = 1 / rate, set(told.kinds) - {"other"}
    fits = [unit for unit in _COUNTED if plausible(rate / UNITS[unit], told)]
    if told.measured:
        numerics = Told(("numeric",))
        fits += [u for u in _COUNTED if plausible(rate / UNITS[u], numerics) and u not in fits]
    if abs(step - 1) < 1e-9 and kinds != {"numeric"}:
        raise _ambiguous("the times count 1, 2, 3")
    if step < 1 and (not kinds or "s" in fits or kinds == {"numeric"}):
        return "s"  # of measured values too, which are often repeated: the slowest rate
    if kinds and len(fits) == 1:
        return fits[0]
    if not kinds and step > 1 and np.abs(since - np.rint(since)).max() > 1e-3:
        return "ms"  # nothing that is logged once in several seconds has fractions of a second
    if kinds and not fits:
        raise _ambiguous(
            f"the times go up by {step:.4g}, which in no unit is a rate that such channels have"
        )
    several = fits if kinds else ["s", "ms"]
    may = " or ".join(NAMES[unit] for unit in several)
    raise _ambiguous(f"the times go up by {step:.4g}, which may be {may}")


def plausible(fs: float, told: Told) -> bool:
    """Whether all channels that a kind is known of may have this rate; any at all, if none is."""
    kinds = set(told.kinds) - {"other"}
    waves = kinds - {"numeric"} or kinds  # numerics are often repeated beside waveforms
    if not waves:
        return 1.0 < fs < _MOST["ECG"]
    least = {**told.least, **_LEAST}
    return all(least.get(kind, 0.0) <= fs <= _MOST.get(kind, _MOST_ELSE) for kind in waves)


def _ambiguous(what: str) -> BadSignal:
    return BadSignal(
        "ambiguous-times",
        f"{what}: say of what, with --set reader.time_unit=ms (or s, us, ns); or, if they only "
        "number the samples, --set reader.time=none --set reader.fs=RATE",
    )
