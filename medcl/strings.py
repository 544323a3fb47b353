"""Strings of millions of samples: distinct ones stored once, or formatted from numbers on demand.

Each kind is an immutable ``Sequence[str]`` of length N: index, slice or iterate over it, compare it
with a list, or convert it to a list (``list``, ``tolist``) or an array (``np.asarray``).

- `Packed`: any strings, as UTF-8 bytes one after the other (the layout of an Arrow array).
- `Encoded`: distinct names and a code for each (Arrow's dictionary encoding), as for patients.
- `Formatted`: a pattern filled with a name and integers, as for ids: an item and a first sample.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from medcl.errors import MedclError

_BYTE = "\ufdd0"  # stands in no text; before the two hexadecimal digits of a byte
_CHUNK = 65_536  # strings decoded at a time during iteration
_UTF8 = ("utf-8", "surrogatepass")  # file names may hold bytes that are no text


class Strings(Sequence[str]):
    """The base of all kinds. See the module's docstring."""

    @abstractmethod
    def at(self, positions: NDArray[Any]) -> Strings:
        """The strings at ``positions`` (M,), in that order."""

    @abstractmethod
    def one(self, position: int) -> str:
        """The string at ``position``, which is in 0 … N − 1."""

    @abstractmethod
    def tolist(self) -> list[str]:
        """All of them, in memory."""

    @overload
    def __getitem__(self, where: int) -> str: ...
    @overload
    def __getitem__(self, where: slice) -> Strings: ...
    def __getitem__(self, where: int | slice) -> str | Strings:
        if isinstance(where, slice):
            return self.at(np.arange(len(self))[where])
        position = range(len(self))[where]  # negative ones count from the end; IndexError beyond
        return self.one(position)

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _CHUNK):
            yield from self.at(np.arange(start, min(start + _CHUNK, len(self)))).tolist()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.tolist() or np.empty(0, np.str_), dtype=dtype)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:  # never the strings: they may be keys of patients
        return f"<{type(self).__name__}: {len(self):,} strings>"


@dataclass(frozen=True, eq=False, repr=False)
class Packed(Strings):
    """Any strings: ``text`` holds their UTF-8 bytes, ``ends`` (N,) the end offset of each."""

    text: NDArray[np.uint8]
    ends: NDArray[Any]

    def __len__(self) -> int:
        return len(self.ends)

    def one(self, position: int) -> str:
        """The string at ``position``, which is in 0 … N − 1."""
        start = int(self.ends[position - 1]) if position else 0
        return self.text[start : int(self.ends[position])].tobytes().decode(*_UTF8)

    def tolist(self) -> list[str]:
        """All of them, in memory."""
        text, ends = self.text.tobytes(), self.ends.tolist()
        starts = [0, *ends[:-1]] if ends else []
        return [text[a:b].decode(*_UTF8) for a, b in zip(starts, ends, strict=True)]

    def at(self, positions: NDArray[Any]) -> Packed:
        """The strings at ``positions`` (M,), in that order."""
        indices = np.asarray(positions, np.int64)
        ends = self.ends[indices].astype(np.int64)
        starts = (
            np.where(indices > 0, self.ends[indices - 1].astype(np.int64), 0)
            if len(indices)
            else ends
        )
        sizes = ends - starts
        total = np.cumsum(sizes)
        offset = np.repeat(
            starts - (total - sizes), sizes
        )  # from an offset in the new text to the old
        return Packed(self.text[np.arange(len(offset)) + offset], smallest(total))


@dataclass(frozen=True, eq=False, repr=False)
class Encoded(Strings):
    """Repeated strings: ``names`` are distinct and sorted, ``codes`` (N,) index them.

    A name may have no code: `at` keeps the names of the samples that it drops.
    """

    names: Packed
    codes: NDArray[Any]

    def __len__(self) -> int:
        return len(self.codes)

    def one(self, position: int) -> str:
        """The string at ``position``, which is in 0 … N − 1."""
        return self.names.one(int(self.codes[position]))

    def tolist(self) -> list[str]:
        """All of them, in memory; equal ones are one object."""
        used, codes = np.unique(self.codes, return_inverse=True)
        names = self.names.at(used).tolist()
        return [names[code] for code in codes.tolist()]

    def at(self, positions: NDArray[Any]) -> Encoded:
        """The strings at ``positions`` (M,), in that order."""
        return Encoded(self.names, self.codes[positions])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        used, codes = np.unique(self.codes, return_inverse=True)
        return np.asarray(np.asarray(self.names.at(used))[codes], dtype=dtype)


@dataclass(frozen=True, eq=False, repr=False)
class Formatted(Strings):
    """``pattern.format(name, *numbers)`` of each: ``Formatted("{}:{}", items, (start,))``.

    Attributes:
        pattern: a format string with a field for the name, then one for each column of numbers.
        names: (N,).
        numbers: integers, each (N,) or (N, K); the samples' ``read`` may share them.
    """

    pattern: str
    names: Encoded
    numbers: tuple[NDArray[Any], ...]

    def __len__(self) -> int:
        return len(self.names)

    def one(self, position: int) -> str:
        """The string at ``position``, which is in 0 … N − 1."""
        numbers = [n for array in self.numbers for n in np.atleast_1d(array[position]).tolist()]
        return self.pattern.format(self.names.one(position), *numbers)

    def tolist(self) -> list[str]:
        """All of them, in memory."""
        columns = [
            column.tolist()
            for array in self.numbers
            for column in (array.T if array.ndim > 1 else array[None])
        ]
        rows = zip(self.names.tolist(), *columns, strict=True)
        return [self.pattern.format(*row) for row in rows]

    def at(self, positions: NDArray[Any]) -> Formatted:
        """The strings at ``positions`` (M,), in that order."""
        numbers = tuple(array[positions] for array in self.numbers)
        return Formatted(self.pattern, self.names.at(positions), numbers)


def packed(values: Iterable[str]) -> Packed:
    """Strings → `Packed`.

    Raises:
        MedclError: if one of them is no string.
    """
    if isinstance(values, Packed):
        return values
    data = [_text(value).encode(*_UTF8) for value in values]
    ends = np.cumsum([len(text) for text in data], dtype=np.int64)
    return Packed(np.frombuffer(b"".join(data), np.uint8), smallest(ends))


def strings(values: Iterable[str]) -> Strings:
    """Unchanged if of a kind of this module; else `Packed`."""
    return values if isinstance(values, Strings) else packed(values)


def encoded(values: Iterable[str], where: NDArray[Any] | None = None) -> Encoded:
    """Strings → `Encoded`; with ``where`` (N,), the strings ``values[where]``.

    Raises:
        MedclError: if one of them is no string.
    """
    if isinstance(values, Encoded):
        return values if where is None else values.at(where)
    values = [_text(value) for value in values]
    names = sorted(set(values))
    code = {name: number for number, name in enumerate(names)}
    kind = np.min_scalar_type(max(len(names) - 1, 0))
    codes = np.fromiter((code[value] for value in values), kind, len(values))
    return Encoded(packed(names), codes if where is None else codes[where])


def codes(values: Sequence[str]) -> NDArray[np.int64]:
    """Codes 0 … C−1 (N,) of the C distinct strings, in sorted order; every code is used."""
    encoded_values = encoded(values)
    used = np.zeros(len(encoded_values.names), bool)
    used[encoded_values.codes] = True
    dense: NDArray[np.int64] = (np.cumsum(used) - 1)[encoded_values.codes].astype(np.int64)
    return dense


def distinct(values: Sequence[str]) -> list[str]:
    """The distinct strings, sorted: `codes` index them."""
    encoded_values = encoded(values)
    return encoded_values.names.at(np.unique(encoded_values.codes)).tolist()


def smallest(values: NDArray[Any]) -> NDArray[Any]:
    """Integers (N, ...) in the smallest type that holds all of them."""
    if not values.size:
        return values.astype(np.int8)
    least, most = int(values.min()), int(values.max())
    kind = np.min_scalar_type(most if least >= 0 else min(least, -most - 1))
    return values.astype(kind)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise MedclError(
            f"A plugin's samples name something by a {type(value).__name__}, not by a string: "
            "ids, items, patients and groups are strings (see docs/write-a-plugin.md)."
        )
    return str(value)  # numpy's own strings are kept as plain ones


def storable(path: str) -> str:
    """A file's name as text that Parquet can hold, also where its bytes are no UTF-8.

    Python gives such bytes as lone surrogates (``os.fsdecode``). `original` undoes it exactly.
    """
    if path.isascii():
        return path
    text = "".join(
        f"{_BYTE}{ord(c) & 0xFF:02x}" if "\udc80" <= c <= "\udcff" else c
        for c in path.replace(_BYTE, f"{_BYTE}00")
    )
    return text.encode("utf-8", "backslashreplace").decode()  # of other lone surrogates


def is_text(path: Path) -> bool:
    """Whether a path is UTF-8, as what writes tables needs it."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def original(text: str) -> str:
    r"""The file's name that `storable` made a text of.

    Example:
        >>> original(storable("M\udcfcller.edf")) == "M\udcfcller.edf"
        True
    """
    first, *rest = text.split(_BYTE)
    return first + "".join(_byte(part[:2]) + part[2:] for part in rest)


def _byte(digits: str) -> str:
    return _BYTE if digits == "00" else chr(0xDC00 + int(digits, 16))
