"""WFDB annotation files: beats in the classes of AAMI EC57, and the rhythms between their marks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medcl_biosignals.aami import CLASS_OF, PACED

if TYPE_CHECKING:
    import numpy as np

RHYTHMS = (
    "N", "AFIB", "AFL", "AB", "B", "T", "SBR", "BII", "IVR", "NOD", "P", "PREX", "SVTA", "VFL",
    "VT", "VF", "ASYS",
)  # fmt: skip
"""As PhysioNet's annotations write them: `(AFIB` is atrial fibrillation from here on."""


@dataclass(frozen=True)
class Annotations:
    """What a file such as ``100.atr`` says.

    Attributes:
        beats: (K,) int64 positions in samples of the signal.
        classes: (K,) int8 indices into `medcl_biosignals.aami.CLASSES`.
        paced: whether any beat is.
        rhythms: (R, 2) int64: where a rhythm begins, and which of `RHYTHMS`; −1 for any other.
    """

    beats: np.ndarray
    classes: np.ndarray
    paced: bool
    rhythms: np.ndarray


def read_annotations(path: Path) -> Annotations:
    """Read a WFDB annotation file. Noise and flutter marks are no beats.

    Positions are given at the signal's rate, also where the file counts at another.
    """
    import numpy as np
    from wfdb import rdann

    marks = rdann(str(path.with_suffix("")), path.suffix[1:])
    classes = np.array([CLASS_OF.get(symbol, -1) for symbol in marks.symbol], dtype=np.int8)
    samples = np.asarray(marks.sample, dtype=np.int64)
    known = classes >= 0
    rhythms = [
        (sample, _rhythm(note))
        for sample, symbol, note in zip(samples, marks.symbol, marks.aux_note, strict=True)
        if symbol == "+" and note.startswith("(")
    ]
    return Annotations(
        samples[known],
        classes[known],
        any(symbol in PACED for symbol in set(marks.symbol)),
        np.array(rhythms, dtype=np.int64).reshape(-1, 2),
    )


def _rhythm(note: str) -> int:
    name = note.strip("\0 ")[1:]
    return RHYTHMS.index(name) if name in RHYTHMS else -1
