"""Tables of events and of sleep stages beside a recording → spans.

``night_events.csv``, ``night.stages.csv``, BIDS' ``sub-1_task-rest_events.tsv`` beside
``sub-1_task-rest_eeg.edf``: each row has an onset in seconds from the recording's beginning, a
duration or an end, and a class. A table of stages may be one stage a row, an epoch each.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from medcl_biosignals.readers.columns import unit_of_time
from medcl_biosignals.spans import EVENT, OTHER, STAGE, Span, known
from medcl_biosignals.vocabulary import plain

_SIDE = re.compile(
    r"(?P<base>.+?)[._\-](?P<what>events?|annotations?|stages?|hypnogram|hypno|scoring|sleep_?stages?)"
)
_SUFFIXES = (".csv", ".tsv", ".txt")
_BIDS = ("_eeg", "_ecg", "_physio", "_ieeg", "_meg", "_ppg", "_emg", "-PSG")
_ONSETS = ("onset", "start", "begin", "starttime", "onsets", "time", "timestamp", "from", "t")
_ENDS = ("end", "stop", "offset", "endtime", "stoptime", "to")
_LENGTHS = ("duration", "dur", "length", "durations")
_CLASSES = (
    "trialtype", "label", "class", "stage", "sleepstage", "event", "eventtype", "rhythm", "type",
    "annotation", "description", "name", "value", "state", "condition", "hypnogram",
)  # fmt: skip
_EPOCHS = ("epoch", "epochs", "epochnumber")
_EPOCH_SECONDS = (30.0, 20.0)
_UNIT = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9, "min": 60.0, "h": 3600.0}
_LONGEST_NAME = 40
_MOST_BYTES = 64 << 20
_NUMBERED = {0: "W", 1: "N1", 2: "N2", 3: "N3", 5: "R"}
_MISSING = ("", "n/a", "na", "nan", "none", "null")


class NotUnderstood(ValueError):
    """A table beside a recording that gives no classes in time; quotes nothing of it."""


def beside(file: str) -> str | None:
    """The name of the recording that a file is beside, by its own name; None for any other."""
    path = PurePosixPath(file)
    found = _SIDE.fullmatch(path.stem) if path.suffix.lower() in _SUFFIXES else None
    return str(path.with_name(found["base"])) if found else None


def names_of(recording: str) -> tuple[str, ...]:
    """The names under which tables beside a recording may go: its own, and that of BIDS."""
    path = PurePosixPath(recording)
    stem = path.name
    for suffix in reversed(path.suffixes[-2:]):
        if suffix.lower() in (".gz", ".xz", ".bz2") or suffix == path.suffixes[-1]:
            stem = stem.removesuffix(suffix)
    stem = PurePosixPath(stem).stem if path.suffix.lower() in (".gz", ".xz", ".bz2") else stem
    bare = [stem.removesuffix(end) for end in _BIDS if stem.endswith(end)]
    return tuple(str(path.with_name(name)) for name in (stem, path.name, *bare))


def table_spans(path: Path, seconds: float) -> list[Span]:
    """The spans of a table.

    Args:
        path: the table.
        seconds: length of its recording.

    Raises:
        NotUnderstood: if it lacks the columns, or its times are none of this recording.
    """
    header, rows = _rows(path)
    plains = [plain(re.sub(r"\(.*?\)|\[.*?\]", "", name)) for name in header]
    onset, end = _column(header, plains, _ONSETS), _column(header, plains, _ENDS)
    length, epoch = _column(header, plains, _LENGTHS), _column(header, plains, _EPOCHS)
    classes = next((plains.index(name) for name in _CLASSES if name in plains), None)
    if classes is None and len(header) == 1:
        classes = 0
    if classes is None or not rows:
        raise NotUnderstood("no column of classes: call it label, stage or trial_type")
    staged = re.search(r"stage|hypno|scor", path.stem, re.IGNORECASE) is not None
    staged = staged or "stage" in plains[classes] or "hypno" in plains[classes]
    meant = _meanings([row[classes].strip() for row in rows], staged=staged)
    if onset is None:
        found = _by_epoch(rows, meant, epoch, seconds, staged=staged)
    else:
        by = [_UNIT.get(unit_of_time(header[n]) or "s", 1.0) if n is not None else 1.0
              for n in (onset, end, length)]  # fmt: skip
        starts = [_number(row[onset]) * by[0] for row in rows]
        if any(value != value for value in starts):
            raise NotUnderstood("times that are no seconds from the recording's beginning")
        if end is not None:
            ends = [_number(row[end]) * by[1] for row in rows]
        elif length is not None:
            ends = [s + _number(row[length]) * by[2] for s, row in zip(starts, rows, strict=True)]
        else:
            ends = [*starts[1:], seconds]
        found = [
            Span(first, last, *pair)
            for first, last, pair in zip(starts, ends, meant, strict=True)
            if pair is not None and last > first
        ]
        begun = [start for start, pair in zip(starts, meant, strict=True) if pair is not None]
        late = sum(start >= seconds for start in begun)
        if late > 0.05 * len(begun) or min(begun, default=0.0) < -seconds:
            raise NotUnderstood("times beyond the recording's end: are they in seconds?")
    if not found:
        raise NotUnderstood("no class lasts: give a duration or an end in seconds")
    return found


def _rows(path: Path) -> tuple[list[str], list[list[str]]]:
    from medcl_biosignals.readers.contract import BadSignal
    from medcl_biosignals.readers.text import decoded

    if path.stat().st_size > _MOST_BYTES:
        raise NotUnderstood(f"over {_MOST_BYTES >> 20} MB")
    try:
        _, text = decoded(path.read_bytes())
        lines = [line for line in text.splitlines() if line.strip() and line[:1] != "#"]
        delimiter = max("\t;,|", key=lambda mark: lines[0].count(mark) if lines else 0)
        rows = list(csv.reader(lines, delimiter=delimiter))
    except (BadSignal, csv.Error):
        raise NotUnderstood("it is no table") from None
    if not rows:
        raise NotUnderstood("it is empty")
    header, body = rows[0], [row for row in rows[1:] if len(row) == len(rows[0])]
    if len(body) < len(rows) - 1:
        raise NotUnderstood("rows of different lengths")
    first = header[0].strip()
    if len(header) == 1 and (first.isdigit() or known(first, staged=True) is not None):
        return ["stage"], rows  # one stage a line, without a header
    return header, body


def _column(header: Sequence[str], plains: Sequence[str], names: Sequence[str]) -> int | None:
    """The column of one of these names, with a unit behind it or not."""
    for name in names:
        for at, found in enumerate(plains):
            unit = unit_of_time(header[at]) or ""
            if found == name or (unit and found in (f"{name}{unit}", f"{name}{unit}ec")):
                return at
    return None


def _meanings(cells: Sequence[str], *, staged: bool) -> list[tuple[str, str] | None]:
    """(group, class) of each cell: known ones by what they mean, others by their own name."""
    if staged and all(re.fullmatch(r"-?\d+(\.0)?", c) for c in cells if c.lower() not in _MISSING):
        return _numbered([None if c.lower() in _MISSING else int(float(c)) for c in cells])
    found: list[tuple[str, str] | None] = []
    for cell in cells:
        if cell.lower() in _MISSING:
            found.append(None)
            continue
        pair = known(cell, staged=staged)
        if pair is None:
            name = " ".join(cell.split())[:_LONGEST_NAME]
            pair = (STAGE, OTHER) if staged else (EVENT, name)
        found.append(pair)
    return found


def _numbered(levels: Sequence[int | None]) -> list[tuple[str, str] | None]:
    """Stages as numbers: 0 is waking, 5 REM. A 4 is stage 4 beside a 5, and may be REM without."""
    held = {level for level in levels if level is not None}
    table = dict(_NUMBERED)
    if 4 in held:
        if 5 not in held:
            raise NotUnderstood("stages as numbers up to 4: write W, N1, N2, N3, R")
        table[4] = "N3"
    return [None if n is None else (STAGE, table.get(n, OTHER)) for n in levels]


def _by_epoch(
    rows: Sequence[Sequence[str]],
    meant: Sequence[tuple[str, str] | None],
    epoch: int | None,
    seconds: float,
    *,
    staged: bool,
) -> list[Span]:
    """A row an epoch, whose length is that which fills the recording."""
    step = next((s for s in _EPOCH_SECONDS if abs(len(rows) * s - seconds) <= 1.5 * s), None)
    if not staged or step is None:
        raise NotUnderstood("no onsets, and not as many epochs as the recording has")
    numbers = [n if epoch is None else _number(row[epoch]) for n, row in enumerate(rows)]
    zero = min(numbers)
    return [
        Span((n - zero) * step, (n - zero + 1) * step, *pair)
        for n, pair in zip(numbers, meant, strict=True)
        if pair is not None
    ]


def _number(cell: str) -> float:
    text = cell.strip()
    try:
        return float(text.replace(",", ".") if text.count(",") == 1 else text)
    except ValueError:
        return float("nan")
