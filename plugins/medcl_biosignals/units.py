"""Which files of an archive belong together, by their names alone."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence, Set
from pathlib import PurePosixPath

from medcl.plugin import FileStat, Unit
from medcl_biosignals.readers.choose import is_read
from medcl_biosignals.sidecar import beside, names_of

HEADER = ".hea"
SIGNALS = (".dat", ".mat", ".xyz")
_NIGHT, _HYPNOGRAM = "-PSG.edf", "-Hypnogram.edf"
_SEGMENT = re.compile(r"(.+)_\d{4}")


def units(files: Sequence[FileStat]) -> Iterator[Unit]:
    """Group the files of WFDB records; other recordings are one file each; the rest is left alone.

    A record is a header and the files named like it (``100.hea``, ``100.dat``, ``100.atr``). A
    header without a signal file of its name may be the master of several segments, or name its
    signals otherwise; it, what its segments could be, and signal files without a header are then
    one unit of their folder, which `scan` sorts out by reading the headers. Where nothing of the
    folder is named like such a header, all its records are in that unit: a signal file may have
    two headers.
    """
    folders: dict[PurePosixPath, dict[str, list[FileStat]]] = defaultdict(lambda: defaultdict(list))
    for file in files:
        path = PurePosixPath(file.path)
        if not path.name.startswith("."):
            folders[path.parent][path.stem].append(file)
    for folder, stems in folders.items():
        yield from _folder(folder, stems)


def _folder(folder: PurePosixPath, stems: dict[str, list[FileStat]]) -> Iterator[Unit]:
    headers = {stem for stem, files in stems.items() if _any(files, (HEADER,))}
    signals = {stem for stem, files in stems.items() if _any(files, SIGNALS)}
    lone = headers - signals
    unclear = (
        {stem for stem in headers | signals if _unclear(stem, headers, lone)} if lone else set()
    )
    if any(not _has_parts(stem, stems.keys() - {stem}) for stem in lone):
        unclear = headers | signals
    if unclear:
        yield _unit(folder, (file for stem in unclear for file in stems[stem]))
    sides = _sides([file for files in stems.values() for file in files], headers)
    taken = {side.path for files in sides.values() for side in files}
    for stem, files in stems.items():
        if stem in unclear:
            continue
        aside = sides.get(stem, [])
        if stem in headers or _any(files, (".dat", ".xyz")):
            yield _unit(folder / stem, [*files, *aside])
        else:
            for file in files:
                if is_read(file.path) and file.path not in taken:
                    yield Unit(file.path, (file, *sides.get(file.path, [])))


def _sides(files: Sequence[FileStat], headers: set[str]) -> dict[str, list[FileStat]]:
    """Tables of events and hypnograms in a folder, by the recording that they lie beside: the name
    of its header, or its path."""
    recordings = {
        name: file for file in files if is_read(file.path) for name in names_of(file.path)
    }
    found: dict[str, list[FileStat]] = defaultdict(list)
    for file in files:
        base = beside(file.path)
        if base is not None and PurePosixPath(base).name in headers:
            found[PurePosixPath(base).name].append(file)
        elif base is not None and base in recordings and recordings[base] is not file:
            found[recordings[base].path].append(file)
        elif file.path.endswith(_HYPNOGRAM):  # SC4001EC-Hypnogram.edf beside SC4001E0-PSG.edf
            night = file.path.removesuffix(_HYPNOGRAM)
            nights = [
                other
                for other in files
                if other.path.endswith(_NIGHT)
                and other.path.removesuffix(_NIGHT)[:-1] == night[:-1]
            ]
            if len(nights) == 1:
                found[nights[0].path].append(file)
    return found


def _unclear(stem: str, headers: set[str], lone: set[str]) -> bool:
    """Whether these files may belong to a header of another name."""
    if stem in lone or stem not in headers:
        return True
    segment = _SEGMENT.fullmatch(stem)
    if segment and f"{segment[1]}_layout" in lone:  # as in MIMIC: 3544749_0001 of p000020-…
        return True
    return any(stem[:end] in lone for end in range(1, len(stem)))


def _has_parts(stem: str, others: Set[str]) -> bool:
    """Whether files are named like the segments or signals of a header."""
    return any(other.startswith(stem) for other in others)


def _unit(key: PurePosixPath, files: Iterable[FileStat]) -> Unit:
    return Unit(key=key.as_posix(), files=tuple(sorted(files, key=lambda file: file.path)))


def _any(files: Iterable[FileStat], suffixes: tuple[str, ...]) -> bool:
    return any(file.path.endswith(suffixes) for file in files)
