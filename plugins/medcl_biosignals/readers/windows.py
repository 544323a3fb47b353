"""Data sets as arrays or tables: windows cut out of recordings, one in each row.

``X`` (N, T) or (N, C, T) with ``y`` (N,): each row is a recording of its own, of a length that
somebody chose, and not one of N channels. That is known where another array has a value for each
row; the file alone does not say how the windows followed each other. Rows of a dozen values with a
label each are samples of as many channels, which is said. What may be either, the user says: rows
of a few dozen values with a label each (a second of a wristband, or of an EEG cap), and a table of
many columns without names (``mitbih_train.csv`` of Kaggle, the UCR archive).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import polars as pl

from medcl.plugin import Scalar
from medcl_biosignals.readers import variables
from medcl_biosignals.readers.columns import PERSONS, parted
from medcl_biosignals.readers.contract import (
    BadSignal,
    Heading,
    Recording,
    Settings,
    Span,
    person,
)
from medcl_biosignals.readers.variables import Variable, Variables, is_excluded, load
from medcl_biosignals.vocabulary import plain

ROWS_ARE_WINDOWS = "rows-are-windows"
"""The finding of a recording that is one row of a stack."""
ROWS_ARE_SAMPLES = "rows-are-samples"
"""The finding of a recording whose rows have a label each, but are too short for windows."""

_LABELS = frozenset(
    ("label", "labels", "y", "target", "targets", "class", "classes", "rhythm", "rhythms",
     "activity", "activities", "stage", "stages", "annotation", "annotations", "ylabel", "ytrain",
     "ytest", "yval", "trainy", "testy", "trainlabels", "testlabels")
)  # fmt: skip
_MOST_CHANNELS = 64  # of one array without names; more may be windows
_LEAST_SAMPLES = 256  # of a window, if there are more windows than that
_TOO_SHORT = 12  # samples: no window, but as many leads as an ECG has
_CLASSES = 1000  # more values than that are no classes
_WORDS = 64  # more words than that may be names of people
_NUMBERED = re.compile(r"(?P<prefix>\D*?)[\s_.-]*\d+(\.0)?")


def headings(
    form: str, held: Variables, settings: Settings, name: str, part: str = ""
) -> Iterator[Heading]:
    """The recording, or one for each window.

    Args:
        form: as the index shows it.
        held: what the file, or a group in it, holds.
        settings: what the user says of it.
        name: of the file: its windows are of one person, where nobody is named.
        part: the group.

    Raises:
        BadSignal: if it holds no signal, or rows that may be windows or channels.
    """
    stacks = stacked(held, settings)
    if not stacks:
        made = variables.heading(part, form, held, settings)
        short = settings.rows is None and any(
            _is_by_row(held, array.axes) for array in _tables(held, settings)
        )
        yield replace(made, findings=(*made.findings, ROWS_ARE_SAMPLES)) if short else made
        return
    count = stacks[0].shape[0]
    beside = {v.name: np.ravel(load(v)) for v in held.arrays if v.axes == (count,)}
    labels = {n: v for n, v in beside.items() if plain(n) in _LABELS and _are_classes(v)}
    words = {n: v for n, v in held.texts.items() if len(v) == count and _by_row(n, v)}
    people = next((v for n, v in beside.items() if plain(n) in PERSONS), None)
    named = next((v for n, v in words.items() if plain(n) in PERSONS), ())
    first = variables.heading("", form, _window(held, stacks, 0), settings)
    for n in range(count):
        told: dict[str, Scalar] = {name: _number(values[n]) for name, values in labels.items()}
        told |= {name: v[n] for name, v in words.items() if plain(name) in _LABELS}
        who = first.subject
        if people is not None:
            who = person(f"{people[n]:g}")
        elif named:
            who = person(named[n])
        yield replace(
            first,
            part=f"{part}/{n}" if part else str(n),
            subject=who,
            session=name if who is None else None,
            labels={**first.labels, **told},
            findings=(*first.findings, ROWS_ARE_WINDOWS),
        )


def read(held: Variables, settings: Settings, span: Span | None, part: str = "") -> Recording:
    """The samples of the recording, or of one window.

    Raises:
        BadSignal: if the file has no such window any longer.
    """
    stacks = stacked(held, settings)
    if not stacks:
        return variables.read(held, settings, span)
    if not part.isdigit() or int(part) >= stacks[0].shape[0]:
        raise BadSignal("changed", "the window that was indexed is no longer in the file")
    return variables.read(_window(held, stacks, int(part)), settings, span)


def stacked(held: Variables, settings: Settings) -> list[Variable]:
    """The arrays whose rows are windows; none, if rows are channels.

    Raises:
        BadSignal: if nothing says which they are.
    """
    if settings.rows == "channels":
        return []
    arrays = _tables(held, settings)
    if settings.rows == "windows":
        return [v for v in arrays if v.shape[0] == arrays[0].shape[0]]
    found = []
    for array in arrays:
        count, *others = array.axes
        by_row = _is_by_row(held, array.axes)
        if array.shape[0] != count or (len(others) == 1 and _has_names(array, held)):
            continue
        if len(others) == 2:
            if by_row:
                found.append(array)
        elif by_row and (others[0] >= count or others[0] >= _LEAST_SAMPLES):
            found.append(array)
        elif min(array.axes) > (_TOO_SHORT if by_row else _MOST_CHANNELS):
            raise BadSignal(
                "rows-or-channels",
                f"an array of {count:,} × {others[0]:,}: are its rows channels, or windows one "
                "after the other? Say --set reader.rows=channels, or reader.rows=windows",
            )
    return [v for v in found if v.shape[0] == found[0].shape[0]]


def _tables(held: Variables, settings: Settings) -> list[Variable]:
    """The arrays that may be stacks."""
    return [v for v in held.arrays if len(v.axes) in (2, 3) and not is_excluded(v, settings)]


def _is_by_row(held: Variables, axes: Sequence[int]) -> bool:
    """Whether another array has a label or a person for each row of one with these axes."""
    count = axes[0]
    return any(
        v.axes == (count,) and plain(parted(v.name)[0]) in _LABELS | PERSONS for v in held.arrays
    ) or any(len(v) == count and _by_row(n, v) for n, v in held.texts.items())


def loaded(held: Variables) -> Variables:
    """The same, each array loaded once at most."""
    return replace(held, arrays=[replace(v, load=cache(v.load)) for v in held.arrays])


def wide(
    frame: pl.DataFrame, names: Sequence[str] | None, numbers: Sequence[bool], settings: Settings
) -> Variables | None:
    """The windows in a table, a row each; None if its columns are channels.

    Its first or last column is their label, if it alone holds whole numbers.

    Args:
        frame: the table.
        names: of its columns, None without a header.
        numbers: which columns are numeric.
        settings: what the user says of it.

    Raises:
        BadSignal: for many columns without names, if the user does not say what they are.
    """
    if settings.rows == "channels" or settings.columns:
        return None
    if settings.rows is None:
        width = sum(numbers)
        if not _are_numbered(names) or width <= _TOO_SHORT + 1:
            return None
        if width <= _MOST_CHANNELS and _label(_values(frame, numbers)) is None:
            return None
        raise BadSignal(
            "rows-or-channels",
            f"a table of {frame.height:,} rows and {sum(numbers):,} columns without names: is each "
            "column a channel, or each row a window? Say --set reader.rows=channels, or "
            "reader.rows=windows",
        )
    values = _values(frame, numbers)
    if values.shape[1] < 2 or not len(values):
        raise BadSignal("not-a-signal", "the rows hold no windows: there is one column of numbers")
    arrays = [Variable("signal", values.shape, lambda: values)]
    if (end := _label(values)) is not None:
        x, y = np.delete(values, end, axis=1), values[:, end]
        arrays = [Variable("signal", x.shape, lambda: x), Variable("label", y.shape, lambda: y)]
    return Variables(arrays)


def _values(frame: pl.DataFrame, numbers: Sequence[bool]) -> np.ndarray:
    """The numeric columns (rows, columns)."""
    of = [frame.columns[at] for at, number in enumerate(numbers) if number]
    return frame.select(pl.col(of).cast(pl.Float64)).to_numpy()


def _label(values: np.ndarray) -> int | None:
    """The first or last column, if it alone holds whole numbers, and these are classes."""
    whole = (values == np.round(values)).all(axis=0)
    ends = [at for at in (0, values.shape[1] - 1) if whole[at] and _are_classes(values[:, at])]
    return ends[0] if len(ends) == 1 and whole.sum() == 1 else None


def _are_numbered(names: Sequence[str] | None) -> bool:
    """Whether columns have no names but a number, and perhaps one prefix."""
    if names is None:
        return True
    parts = [_NUMBERED.fullmatch(name.strip()) for name in names]
    prefixes = Counter(part["prefix"] for part in parts if part)
    return bool(prefixes) and max(prefixes.values()) >= len(names) - 2


def _by_row(name: str, texts: Sequence[str]) -> bool:
    """Whether texts are persons or classes of rows; the names of channels do not repeat."""
    if plain(name) in PERSONS:
        return len(texts) > 1
    return plain(name) in _LABELS and len(set(texts)) <= min(len(texts) - 1, _WORDS)


def _has_names(array: Variable, held: Variables) -> bool:
    """Whether its channels are named: then they are channels."""
    named = (texts for name, texts in held.texts.items() if not _by_row(name, texts))
    return bool({len(array.names), *map(len, named)} & set(array.axes))


def _number(value: float) -> Scalar:
    return int(value) if float(value).is_integer() else float(value)


def _window(held: Variables, stacks: Sequence[Variable], n: int) -> Variables:
    """One row of each stack, and what holds for all rows."""
    count = stacks[0].shape[0]

    def row(stack: Variable) -> Variable:
        return replace(stack, shape=stack.shape[1:], load=lambda: np.asarray(load(stack))[n])

    others = [v for v in held.arrays if v.axes != (count,) and v not in stacks]
    texts = {name: v for name, v in held.texts.items() if len(v) != count}
    return replace(held, arrays=[*map(row, stacks), *others], texts=texts)


def _are_classes(values: np.ndarray) -> bool:
    return bool(np.isfinite(values).all()) and len(np.unique(values)) <= _CLASSES
