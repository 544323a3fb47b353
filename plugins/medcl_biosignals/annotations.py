"""WFDB annotation files: beats in the classes of AAMI EC57, and the rhythms between their marks.

Read here rather than by `wfdb.rdann`, with which they agree (tested): it takes half as long as all
the filtering of a recording.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from medcl_biosignals.aami import CLASS_OF, PACED
from medcl_biosignals.spans import RHYTHMS

if TYPE_CHECKING:
    import numpy as np

SYMBOLS = {
    1: "N", 2: "L", 3: "R", 4: "a", 5: "V", 6: "F", 7: "J", 8: "A", 9: "S", 10: "E", 11: "j",
    12: "/", 13: "Q", 25: "B", 28: "+", 30: "?", 34: "e", 35: "n", 38: "f", 41: "r",
}  # fmt: skip
"""Code in the file → symbol, of beats and of changes of the rhythm (annot(5) of the manual)."""
ANNOTATORS = (".atr", ".qrsc", ".ecg", ".ari", ".qrs")
"""Suffixes of annotations of beats and rhythms, the most reliable first: the reference, corrected
ones, those of programs."""
SLEEP = (".st", ".apn")
"""Suffixes of PhysioNet's annotations of sleep: a stage and events every 30 s (slpdb), and whether
there is apnea in each minute (apnea-ecg)."""
_NOTE, _SKIP, _AUX = 22, 59, 63
_FIELDS = (60, 61, 62)  # number, subtype and channel of the mark before
_NO_CODES = range(50, 59)  # that the format does not have: another file under this suffix
_RATE = re.compile(r"## time resolution: (\d+(?:\.\d+)?)")


@dataclass(frozen=True)
class Annotations:
    """What a file such as ``100.atr`` says.

    Attributes:
        beats: (K,) int64 positions in samples of the signal, or of ``fs``.
        classes: (K,) int8 indices into `medcl_biosignals.aami.CLASSES`.
        paced: whether any beat is.
        rhythms: (R, 2) int64: where a rhythm begins, and which of `RHYTHMS`; −1 for any other.
        fs: the rate that positions count at, where the file says that it is its own.
    """

    beats: np.ndarray
    classes: np.ndarray
    paced: bool
    rhythms: np.ndarray
    fs: float | None = None


def read_annotations(path: Path) -> Annotations:
    """Read a WFDB annotation file in MIT format. Noise and flutter marks are no beats.

    Raises:
        ValueError: if it is cut off, or is none.
    """
    import numpy as np

    beats: list[int] = []
    symbols: list[str] = []
    rhythms: list[tuple[int, int]] = []
    fs = None
    for sample, code, note in _marks(path.read_bytes()):
        symbol = SYMBOLS.get(code, "")
        if symbol in CLASS_OF:
            beats.append(sample)
            symbols.append(symbol)
        elif symbol == "+" and note.startswith("("):
            rhythms.append((sample, _rhythm(note)))
        elif code == _NOTE and sample == 0 and (rate := _RATE.match(note)):
            fs = float(rate[1])
    return Annotations(
        np.array(beats, dtype=np.int64),
        np.array([CLASS_OF[symbol] for symbol in symbols], dtype=np.int8),
        any(symbol in PACED for symbol in set(symbols)),
        np.array(rhythms, dtype=np.int64).reshape(-1, 2),
        fs,
    )


def sleep_notes(path: Path, fs: float) -> list[tuple[float, str]]:
    """Marks of `SLEEP`: (seconds, what is written: the note, or else the symbol).

    Raises:
        ValueError: if the file is cut off, or is none.
    """
    found, rate = [], fs
    for sample, code, note in _marks(path.read_bytes()):
        said = _RATE.match(note)
        if code == _NOTE and sample == 0 and said:
            rate = float(said[1])
        else:
            found.append((sample / rate, note or SYMBOLS.get(code, "")))
    return found


def combined(
    paths: Sequence[Path], frames: int, fs: float
) -> tuple[Annotations | None, tuple[str, ...]]:
    """What the annotators of a record say together, and what was noticed.

    Beats are those of the first that has any, rhythms likewise: MIT-BIH's atrial fibrillation
    database has rhythms in ``.atr`` and beats in ``.qrs``. Where a program marks all beats alike,
    it says nothing of their class: −1 (`beats-without-class`).

    Args:
        paths: of the annotations, as `ANNOTATORS` orders them.
        frames: length of the record in samples at ``fs``.
        fs: the rate that positions count at where a file says no other.
    """
    import numpy as np

    found: list[tuple[str, Annotations]] = []
    noticed: list[str] = []
    for path in paths:
        try:
            marks = read_annotations(path)
        except (ValueError, OSError):  # the signal is still good
            noticed.append("unreadable-annotations")
            continue
        beyond = int((marks.beats >= frames * (marks.fs or fs) / fs).sum())
        if beyond > 0.9 * len(marks.beats) + 1:  # of another record, or no annotations at all
            noticed.append("unreadable-annotations")
            continue
        found.append((path.suffix, marks))
    if not found:
        return None, tuple(dict.fromkeys(noticed))
    suffix, of_beats = next((pair for pair in found if len(pair[1].beats)), found[0])
    of_rhythms = next((marks for _, marks in found if len(marks.rhythms)), of_beats)
    if suffix != ".atr" and len(of_beats.beats) and len(set(of_beats.classes.tolist())) == 1:
        noticed.append("beats-without-class")
        of_beats = replace(of_beats, classes=np.full_like(of_beats.classes, -1))
    rhythms = of_rhythms.rhythms.copy()
    rhythms[:, 0] = np.rint(rhythms[:, 0] * ((of_beats.fs or fs) / (of_rhythms.fs or fs)))
    return replace(of_beats, rhythms=rhythms), tuple(dict.fromkeys(noticed))


def _marks(data: bytes) -> Iterator[tuple[int, int, str]]:
    """(sample, code, note) of each mark: 6 bits of code and 10 of the time since the one before."""
    import numpy as np

    words = np.frombuffer(data[: len(data) // 2 * 2], dtype="<u2").tolist()
    at = sample = 0
    mark: tuple[int, int] | None = None
    note = ""
    while at < len(words) and words[at]:
        code, step = words[at] >> 10, words[at] & 0x3FF
        at += 1
        if code == _SKIP:  # a longer time: 32 bits, the higher half first
            if at + 2 > len(words):
                break
            jump = words[at] << 16 | words[at + 1]
            sample += jump - (1 << 32) if jump >> 31 else jump
            at += 2
        elif code == _AUX:
            note = data[2 * at : 2 * at + step].decode("latin-1").strip("\0")
            at += (step + 1) // 2
        elif code in _NO_CODES:
            raise ValueError("the file holds no annotations")
        elif code not in _FIELDS:
            if mark is not None:
                yield *mark, note
            sample += step
            mark, note = (sample, code), ""
    if at >= len(words) or len(data) < 2:  # a zero ends the file
        raise ValueError("the annotations are cut off")
    if mark is not None:
        yield *mark, note


def _rhythm(note: str) -> int:
    name = note.strip("\0 ")[1:]
    return RHYTHMS.index(name) if name in RHYTHMS else -1
