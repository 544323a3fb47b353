"""HDF5, and MATLAB 7.3: every group with signals in it is a recording.

Links to other files, and data sets that lie in them, are not followed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from medcl_biosignals.persons import person as person_by_folder
from medcl_biosignals.readers import last, windows
from medcl_biosignals.readers.contract import (
    BadSignal,
    Flaw,
    Heading,
    Recording,
    Settings,
    Span,
)
from medcl_biosignals.readers.variables import Variable, Variables

_SMALL = 4096  # elements: what may be names, units or a rate is loaded to see


def headings(path: Path, settings: Settings) -> Iterator[Heading | Flaw]:
    """A heading for each group that holds a signal."""
    groups = _open(path)
    found: list[tuple[str, Heading | BadSignal]] = []
    for group, held in groups.items():
        part = group if len(groups) > 1 else ""
        try:
            each = windows.headings("HDF5", held, settings, path.stem, part)
            found += [(group, heading) for heading in each]
        except BadSignal as error:
            found.append((group, error))
    good = [(group, made) for group, made in found if isinstance(made, Heading)]
    errors = [(group, made) for group, made in found if isinstance(made, BadSignal)]
    if not good:
        raise errors[0][1] if errors else BadSignal("no-signals", "the file holds no data set")
    for group, made in good:
        who = made.subject or person_by_folder(PurePosixPath(group))
        yield replace(made, subject=who)
    for group, flaw in errors:
        if flaw.code != "not-a-signal":
            yield Flaw(group, flaw.code, str(flaw))


def read(path: Path, part: str, settings: Settings, span: Span | None = None) -> Recording:
    """The samples of one group; without ``part``, of the only one that holds arrays."""
    window = ""
    if part.rpartition("/")[2].isdigit():  # a row of a stack, in a group or alone; or a group
        every = last.opened(
            path, settings, lambda: {n: windows.loaded(v) for n, v in _open(path).items()}
        )
        if part not in every:
            part, _, window = part.rpartition("/")
        groups = every
    else:
        groups = _open(path, part)
    if not groups or (part and part not in groups):
        raise BadSignal("changed", "the part that was indexed is no longer in the file")
    held = groups[part] if part else next(iter(groups.values()))
    return windows.read(held, settings, span, window)


def _loaded(path: Path) -> dict[str, Variables]:
    return {group: windows.loaded(held) for group, held in _open(path).items()}


def _open(path: Path, part: str = "") -> dict[str, Variables]:
    """Group (all, or one) → what it holds; what stands in the groups above it holds for it too."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            if part:
                above = [str(parent) for parent in PurePosixPath(part).parents][:-1]
                names = ["", *reversed(above), part]
            else:
                names = ["", *_groups(file)]
            seen = {name: _contents(path, name, file[name] if name else file) for name in names}
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise BadSignal(
            "bad-signal", f"the file is cut off, or no HDF5 file ({type(error).__name__})"
        ) from None
    return {
        name: Variables(
            held.arrays, _inherited(seen, name, "numbers"), _inherited(seen, name, "texts")
        )
        for name, held in sorted(seen.items())
        if held.arrays
    }


def _groups(file: Any) -> list[str]:
    import h5py

    found: list[str] = []
    file.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Group) else None)
    return [name for name in found if isinstance(name, str)]


def _contents(path: Path, place: str, group: Any) -> Variables:
    """What lies in a group itself: no links are followed."""
    import h5py

    arrays: list[Variable] = []
    numbers: dict[str, float] = {}
    texts: dict[str, tuple[str, ...]] = {}

    def note(name: str, value: Any) -> None:
        array = np.asarray(value)
        if array.dtype.kind in "SUO":
            texts[name] = tuple(_text(item) for item in array.ravel())
        elif array.dtype.kind in "biuf" and array.size == 1:
            numbers[name] = float(array.item())

    for name, value in group.attrs.items():
        note(name, value)
    for name in group:
        if not isinstance(name, str):  # h5py gives bytes for what is no UTF-8
            continue
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            continue
        found = group[name]
        if not isinstance(found, h5py.Dataset) or found.external or found.is_virtual:
            continue
        if found.attrs.get("MATLAB_class") == b"char":
            if found.size and found.size <= _SMALL:
                texts[name] = ("".join(map(chr, np.asarray(found).ravel())),)
        elif found.dtype.kind in "SO":
            if h5py.check_string_dtype(found.dtype) is not None and found.size <= _SMALL:
                note(name, found[()])
        elif found.dtype.kind in "biuf" and found.size == 1:
            note(name, found[()])
        elif found.dtype.kind in "biuf" and found.size:
            arrays.append(_variable(path, f"{place}/{name}", found))
    return Variables(arrays, numbers, texts)


def _variable(path: Path, name: str, found: Any) -> Variable:
    said = {key.lower(): value for key, value in found.attrs.items()}
    keys = ("fs", "sampling_rate", "sample_rate", "sfreq", "frequency")
    rates = [np.asarray(said[key]) for key in keys if key in said]
    fs = next((float(rate.item()) for rate in rates if rate.size == 1), None)
    return Variable(
        PurePosixPath(name).name,
        tuple(found.shape),
        lambda: _load(path, name),
        fs,
        _texts(said.get("units", said.get("unit"))),
        _texts(said.get("channels", said.get("names", said.get("leads")))),
    )


def _load(path: Path, name: str) -> np.ndarray:
    import h5py

    with h5py.File(path, "r") as file:
        return np.asarray(file[name])


def _inherited(seen: dict[str, Variables], group: str, what: str) -> dict[str, Any]:
    """What is said of a group: at the root, then by those it lies in, then by itself."""
    above = [str(parent) for parent in reversed(PurePosixPath(group).parents)][1:] if group else []
    found: dict[str, Any] = {}
    for place in ("", *above, group):
        found |= getattr(seen[place], what)
    return found


def _texts(value: Any) -> tuple[str, ...]:
    return () if value is None else tuple(_text(item) for item in np.asarray(value).ravel())


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
