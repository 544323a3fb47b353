"""Columns of dates, clock times and time stamps → seconds since the first."""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta

import numpy as np
import polars as pl

from medcl_biosignals.readers import ticks, times
from medcl_biosignals.readers.contract import BadSignal

_DAY = 86400.0
_HOUR = 3600.0
# What a text holds of a moment: a date, a time of day with its fraction, AM or PM, a time zone.
_CLOCK = (
    r"(?:^|[\sT_,])(\d{1,3}):(\d{1,2})(?::(\d{1,2}))?(?:[.,:](\d{1,9}))?\s*([AaPp]\.?\s?[Mm]\.?)?"
    r"\s*(Z|z|[A-Z]{3,4}|(?:UTC|GMT)?\s*[+-]\d{1,2}:?\d{2}|(?:UTC|GMT)[+-]\d{1,2})?"
    r"(?:\s*\[?[A-Z][a-z]+/[A-Za-z_/]+\]?)?\s*$"
)
_REWRITTEN = (
    # PhysioNet's programs: [10:00:00.000 31/01/2015]
    (r"^(\d{1,3}:\d{1,2}(?::\d{1,2}(?:[.,]\d+)?)?)\s+(\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4})$", "$2 $1"),
    # C and Java: Wed Jan 20 12:00:00 CET 2021
    (r"^[A-Z][a-z]{2} ([A-Z][a-z]{2}) +(\d{1,2}) (\d\d:\d\d:\d\d\S*)((?: [A-Z]{3,4})?) (\d{4})$",
     "$2 $1 $5 $3$4"),
    # without marks: 20210120T120000.123, 20210120_120000_123, 20210120120000123
    (r"^((?:19|20)\d\d)([01]\d)([0-3]\d)[T_ -]?([012]\d)([0-5]\d)([0-6]\d)[._]?(\d{1,9})(Z?)$",
     "$1-$2-$3 $4:$5:$6.$7$8"),
    (r"^((?:19|20)\d\d)([01]\d)([0-3]\d)[T_ -]?([012]\d)([0-5]\d)([0-6]\d)(Z?)$",
     "$1-$2-$3 $4:$5:$6$7"),
    # by the day of the year: 2026-334T14:58:34, 2026334T145834, 2026:334:14:58:34
    (r"^((?:19|20)\d\d)[-: ]?([0-3]\d\d)[T_ :]([012]\d):?([0-5]\d):?([0-6]\d(?:[.,]\d{1,9})?)"
     r"(\s*\S*)$", "$1-$2 $3:$4:$5$6"),
)  # fmt: skip
"""Moments in other orders → in the usual one."""
_SPANS = r"^(\d+) days?,? \+?"
"""pandas: ``0 days 00:00:01.5``."""
_DATE = r"^\s*(.*?)\s*[T_,]?\s*(?:\d{1,3}:\d{1,2}|$)"
_MONTHS = {
    name: n + 1
    for n, names in enumerate(
        (
            ("jan", "january", "januar", "janvier", "janv", "enero", "ene"),
            ("feb", "february", "februar", "février", "fevrier", "févr", "fevr", "febrero"),
            ("mar", "march", "märz", "maerz", "mrz", "mär", "mars", "marzo"),
            ("apr", "april", "avril", "avr", "abril", "abr"),
            ("may", "mai", "mayo"),
            ("jun", "june", "juni", "juin", "junio"),
            ("jul", "july", "juli", "juillet", "juil", "julio"),
            ("aug", "august", "août", "aout", "agosto", "ago"),
            ("sep", "sept", "september", "septembre", "septiembre"),
            ("oct", "october", "okt", "oktober", "octobre", "octubre"),
            ("nov", "november", "novembre", "noviembre"),
            (
                "dec",
                "december",
                "dez",
                "dezember",
                "décembre",
                "decembre",
                "déc",
                "diciembre",
                "dic",
            ),
        )
    )
    for name in names
}
_WEEKDAYS = re.compile(
    r"\b(mon|tue|tues|wed|thu|thur|thurs|fri|sat|sun|mo|di|mi|do|fr|sa|so)[a-z]*day\b[,.]?|"
    r"\b(mon|tue|wed|thu|fri|sat|sun)\b[,.]?",
    re.IGNORECASE,
)


def moments(
    column: pl.Series, unit: str | None, told: ticks.Told | None = None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """A column of times → seconds since its first, and what had to be assumed.

    Args:
        column: of any type that can hold times.
        unit: of plain numbers; None: to be seen from them.
        told: what the channels beside it tell of their rate.

    Raises:
        BadSignal: if it cannot be read as times.
    """
    if column.dtype.is_temporal():
        return _temporal(column)
    if column.dtype != pl.String:
        written = digits(column)
        if written is not None:
            return texts(written)
        if column.dtype.is_integer():  # ns since 1970 have more digits than a float
            column = column.cast(pl.Int64, strict=False)
            low = column.min()
            whole = (column - low).cast(pl.Float64).fill_null(float("nan")).to_numpy()
            size = float(low) if isinstance(low, int) else 0.0
            return ticks.seconds(whole, unit, told, size=size)
        numbers = column.cast(pl.Float64).fill_null(float("nan")).to_numpy()
        return ticks.seconds(numbers, unit, told)
    return texts(column)


def digits(column: pl.Series) -> pl.Series | None:
    """Numbers that hold a date and a time of day in their digits, 20210120120000.123, as texts."""
    least, most = column.min(), column.max()
    if not isinstance(least, int | float) or not isinstance(most, int | float):
        return None
    for size in (1, 1000):  # of seconds, of milliseconds
        if 19e12 * size <= least <= most < 21e12 * size:
            whole = column.cast(pl.Int64, strict=False).cast(pl.String)
            if column.dtype.is_float() and size == 1:
                part = ((column - column.floor()) * 1e6).round().clip(0, 999_999).cast(pl.Int64)
                whole = whole + "." + part.cast(pl.String).str.zfill(6)
            return whole if is_moment(whole) else None
    return None


def is_moment(column: pl.Series) -> bool:
    """Whether a column's type, or the words in it, say that it holds times."""
    if column.dtype.is_temporal():
        return True
    if column.dtype != pl.String:
        return False
    some = column.drop_nulls().head(100)
    if not len(some):
        return False
    clocked = _tidied(some).str.contains(_CLOCK).sum()
    return bool(clocked > times.LEGIBLE * len(some))


def has_date(column: pl.Series) -> bool:
    """Whether texts of moments hold a date, not a time of day alone."""
    some = _tidied(column.drop_nulls().head(20))
    dates = some.str.extract(_DATE, 1).fill_null("").str.strip_chars(" _,")
    return bool((dates.str.len_chars() > 0).any())


def is_date(column: pl.Series) -> bool:
    """Whether a column of texts holds dates without a time of day."""
    if column.dtype == pl.Date:
        return True
    if column.dtype != pl.String:
        return False
    some = _tidied(column.drop_nulls().head(100)).unique(maintain_order=True).to_list()
    return bool(some) and all(":" not in text and _day_orders(text) for text in some)


def _temporal(column: pl.Series) -> tuple[np.ndarray, tuple[str, ...]]:
    if column.dtype == pl.Duration:
        return _since(column.dt.total_nanoseconds().cast(pl.Float64).to_numpy() * 1e-9), ()
    if column.dtype == pl.Time:
        return _unwrapped(column.cast(pl.Int64).cast(pl.Float64).to_numpy() * 1e-9)
    zoned = isinstance(column.dtype, pl.Datetime) and column.dtype.time_zone is not None
    exact = column.cast(pl.Datetime("ns")).cast(pl.Int64)
    seconds = _since((exact - (exact.min() or 0)).cast(pl.Float64).to_numpy() * 1e-9)
    if zoned:
        return seconds, ()
    hours = column.cast(pl.Datetime("us")).dt.hour().cast(pl.Float64).to_numpy()
    return _clocks_changed(seconds, hours)


def texts(column: pl.Series, days: pl.Series | None = None) -> tuple[np.ndarray, tuple[str, ...]]:
    """Texts of dates and times of day, with or without a zone → seconds since the first.

    Args:
        column: the texts.
        days: another column that gives the date to each time of day.

    Raises:
        BadSignal: if they cannot be read.
    """
    text = _tidied(column)
    clock = [text.str.extract(_CLOCK, group) for group in range(1, 7)]
    hours, minutes, seconds = (part.cast(pl.Float64).to_numpy() for part in clock[:3])
    fraction = ("0." + clock[3].fill_null("0")).cast(pl.Float64).to_numpy()
    half = clock[4].str.slice(0, 1).str.to_lowercase()
    bare = np.isnan(seconds)
    dates = text.str.extract(_DATE, 1).fill_null("").str.strip_chars(" _,")
    if days is not None:
        dates = _tidied(days).fill_null("")
    dated = bool((dates.str.len_chars() > 0).sum() > times.LEGIBLE * len(text))
    if not dated:
        _refuse_parts(text, hours, fraction, bare.mean() > 0.5)
    if bare.mean() > 0.5 and not dated:  # minutes and seconds: 02:13.250
        of_day = hours * 60 + minutes + fraction
    else:
        if half.null_count() < len(half):
            hours = hours % 12 + 12 * (half == "p").fill_null(False).to_numpy()
        of_day = hours * _HOUR + minutes * 60 + np.nan_to_num(seconds) + fraction
    spans = text.str.extract(_SPANS, 1)
    if spans.null_count() < len(spans):
        return _since(of_day + spans.cast(pl.Float64).to_numpy() * _DAY), ()
    legible = np.isfinite(of_day).mean()
    if legible < times.LEGIBLE:
        raise BadSignal(
            "bad-times",
            "the times cannot be read as dates, clock times or numbers: name another column with "
            "--set reader.time=NAME, or none with --set reader.time=none --set reader.fs=RATE",
        )
    if not dated:
        return _unwrapped(of_day)
    day = _days(dates)
    zones = clock[5].str.strip_chars()
    offsets, zoned = _offsets(zones)
    total = _since((day - np.nanmin(day)) * _DAY + of_day - offsets)
    return (total, ()) if zoned else _clocks_changed(total, hours)


def _refuse_parts(text: pl.Series, first: np.ndarray, fraction: np.ndarray, two: bool) -> None:
    """Refuse clocks whose parts may be others.

    Args:
        text: (N,) times of day.
        first: (N,) numbers before the first colon.
        fraction: (N,) parts of a second.
        two: whether two parts are all that they have.

    Raises:
        BadSignal: for 09:58, 09:59, which may be hours and minutes (minutes and seconds begin at
            00:00, pass 23, or have a fraction); and for four parts of which the last stays below
            60, which may be seconds after a day, or frames: 1:14:58:07.
    """
    known = first[np.isfinite(first)]
    if two and len(known) and known[0] > 0 and known.max() < 24 and not fraction.any():
        raise BadSignal(
            "ambiguous-times",
            "times such as 09:58 may be hours and minutes, or minutes and seconds: write them as "
            "09:58:00 or 00:09:58",
        )
    four = text.str.contains(r":\d{1,2}:\d{1,2}:\d{2}\s*$").fill_null(False)
    if four.sum() > 0.5 * len(four) and fraction.max() < 0.6:
        raise BadSignal(
            "ambiguous-times",
            "times of four parts, such as 1:14:58:07, may begin with days or end in frames: write "
            "them as 14:58:07, parts of a second behind a point, or give the rate: "
            "--set reader.time=none --set reader.fs=RATE",
        )


def _tidied(column: pl.Series) -> pl.Series:
    text = column.cast(pl.String).str.strip_chars(" \t'\"")
    inner = text.str.extract(r"^\[(.*)\]$", 1).fill_null(text)
    some = next((cell for cell in inner.head(100) if cell), "")
    for pattern, usual in _REWRITTEN:
        if re.match(pattern, some):
            return inner.str.replace(pattern, usual)
    return inner


def _days(dates: pl.Series) -> np.ndarray:
    """Texts of dates → days since the first year, in the order (day, month) with the least span."""
    counts = dates.value_counts()
    rows: dict[str, int] = dict(zip(*counts.get_columns(), strict=True))
    unique = list(rows)
    read: list[dict[str, int]] = []
    for order in range(3):
        found = {text: day for text in unique for day in [_day(text, order)] if day is not None}
        if sum(rows[text] for text in found) >= times.LEGIBLE * len(dates):
            read.append(found)
    if not read:
        raise BadSignal(
            "bad-times",
            "the dates of the times cannot be read: write them as 2021-01-31, or leave them out: "
            "--set reader.time=none --set reader.fs=RATE",
        )
    best = min(read, key=lambda found: max(found.values()) - min(found.values()))
    table = pl.DataFrame({"text": list(best), "day": list(best.values())})
    joined = pl.DataFrame({"text": dates}).join(table, on="text", how="left", maintain_order="left")
    return joined["day"].cast(pl.Float64).to_numpy()


def _day_orders(text: str) -> bool:
    return any(_day(text, order) is not None for order in range(3))


def _day(text: str, order: int) -> int | None:
    """A date → its number. ``order``: 0 day-month, 1 month-day, 2 year-day-month."""
    bare = _WEEKDAYS.sub(" ", text)
    parts = [p for p in re.split(r"[\s\-/.,_]+|(?<=\d)(?:st|nd|rd|th)\b", bare) if p]
    if len(parts) == 1 and re.fullmatch(r"\d{8}", parts[0]):
        parts = [parts[0][:4], parts[0][4:6], parts[0][6:]]
    if re.fullmatch(r"\d{4}-\d{3}", bare.strip()):
        return _of_year(int(parts[0]), int(parts[1]))
    if len(parts) != 3:
        return None
    month = next((n for n, p in enumerate(parts) if p.lower().rstrip(".") in _MONTHS), None)
    try:
        if month is not None:
            others = [int(p) for n, p in enumerate(parts) if n != month]
            first_is_year = others[0] > 31 or len(parts[0]) == 4
            year, day = others if first_is_year else (others[1], others[0])
            return _number(year, _MONTHS[parts[month].lower().rstrip(".")], day)
        a, b, c = (int(part) for part in parts)
        if len(parts[0]) == 4:
            return _number(a, c, b) if order == 2 else _number(a, b, c)
        return None if order == 2 else _number(c, a, b) if order == 1 else _number(c, b, a)
    except ValueError:
        return None


def _of_year(year: int, day: int) -> int | None:
    """The day of a year, from 1 → its number."""
    first, following = date(year, 1, 1).toordinal(), date(year + 1, 1, 1).toordinal()
    return first + day - 1 if 0 < day <= following - first else None


def _number(year: int, month: int, day: int) -> int:
    return date(year + 2000 if year < 100 else year, month, day).toordinal()


def _offsets(zones: pl.Series) -> tuple[np.ndarray | float, bool]:
    """Seconds east of UTC of each; whether they say anything."""
    if zones.null_count() == len(zones):
        return 0.0, False
    east: dict[str | None, float] = {}
    for zone in zones.unique().to_list():
        match = re.search(r"([+-])(\d{1,2}):?(\d{2})?$", zone or "")
        sign = -1.0 if match and match[1] == "-" else 1.0
        hours, minutes = (int(match[2]), int(match[3] or 0)) if match else (0, 0)
        east[zone] = sign * (hours * _HOUR + minutes * 60)
    named = {zone for zone in east if zone and re.fullmatch(r"[A-Z]{3,4}", zone)} - {"UTC", "GMT"}
    for zone in named:  # CET, CEST: the second is an hour ahead of the first
        summer = (len(zone) > 3 and zone.endswith("ST")) or re.fullmatch(r"[ECMP]DT|BST", zone)
        east[zone] = _HOUR if summer else 0.0
    values = zones.replace_strict(east, return_dtype=pl.Float64)
    return values.fill_null(0.0).to_numpy(), True


def _since(seconds: np.ndarray) -> np.ndarray:
    """Relative to the first that is known; those that are not stay NaN."""
    known = seconds[np.isfinite(seconds)]
    return np.asarray(seconds - (known[0] if len(known) else 0.0), dtype=np.float64)


def _unwrapped(clock: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Times of day that pass midnight (or noon, on a clock of twelve hours) go on rising."""
    known = np.flatnonzero(np.isfinite(clock))
    out = np.array(clock, dtype=np.float64)
    rounds = np.diff(clock[known]) < -_DAY / 2
    out[known] += np.concatenate([[0], np.cumsum(rounds)])[: len(known)] * _DAY
    hours = np.full(len(out), np.nan)
    hours[known] = clock[known] // _HOUR
    return _clocks_changed(_since(out), hours)


def _clocks_changed(since: np.ndarray, hours: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Local times without a zone over a night in which the clocks change: no gap, no repetition.

    Args:
        since: (N,) seconds.
        hours: (N,) of the day at each.

    Only a jump of one hour to within a sample, in the small hours, and once, is taken for that.
    """
    known = np.flatnonzero(np.isfinite(since))
    steps = np.diff(since[known])
    usual = steps[steps > 0]
    if not len(usual):
        return since, ()
    step = float(np.median(usual))
    near = max(1.5 * step, 0.02)
    ahead = np.abs(steps - _HOUR - step) < near
    back = np.abs(steps + _HOUR - step) < near
    at = np.flatnonzero((ahead | back) & (hours[known[:-1]] <= 3))
    if len(at) != 1 or step > 60:
        return since, ()
    out = since.copy()
    out[known[at[0] + 1 :]] += _HOUR if back[at[0]] else -_HOUR
    return out, ("clocks-changed",)


def parse_moment(text: str) -> datetime | None:
    """A single time stamp as a naive moment in UTC; None if it is none."""
    column = pl.Series([text])
    if not is_moment(column):
        return None
    dates = _tidied(column).str.extract(_DATE, 1).fill_null("").str.strip_chars(" _,")[0]
    day = next((d for order in range(3) for d in [_day(dates, order)] if d is not None), None)
    clock = [_tidied(column).str.extract(_CLOCK, group)[0] for group in range(1, 5)]
    if day is None:
        return None
    hour, minute, second = (int(part or 0) for part in clock[:3])
    return datetime.fromordinal(day) + timedelta(
        hours=hour, minutes=minute, seconds=second + float(f"0.{clock[3] or 0}")
    )
