"""Stretches of a recording with a class: rhythms, sleep stages, events of a table.

Whatever wrote them, they are carried as spans; a window has the class that covers most of it
(`covering`). Classes of headers and of EDF+ annotations must be known here: what else stands in
those texts may be anything. The names in a user's own table beside a recording are classes as they
are, and never leave the prepared arrays.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np

RHYTHM, STAGE, EVENT = "rhythm", "stage", "event"
RHYTHMS = (
    "N", "AFIB", "AFL", "AB", "B", "T", "SBR", "BII", "IVR", "NOD", "P", "PREX", "SVTA", "VFL",
    "VT", "VF", "ASYS",
)  # fmt: skip
"""As PhysioNet's annotations write them: `(AFIB` is atrial fibrillation from here on."""
STAGES = ("W", "N1", "N2", "N3", "R")
"""Of sleep (AASM 2007); stages 3 and 4 of Rechtschaffen and Kales are N3."""
LIGHT, ASLEEP = "light", "asleep"
COARSE = (LIGHT, ASLEEP)
"""What watches tell: light sleep is N1 or N2; asleep, any stage but W. None of `STAGES`."""
EVENTS = (
    "apnea", "apnea-obstructive", "apnea-central", "apnea-mixed", "hypopnea", "arousal",
    "desaturation", "leg-movement", "snore", "artefact", "seizure",
)  # fmt: skip
OTHER = "other"
"""A class that ends the one before it, and has no name that is known."""

_STAGE = re.compile(
    r"(?P<said>(?:sleep|stage|nrem|non-?rem|[\s_\-:.])*)(?P<stage>w(?:ake)?|awake|wakefulness|n?[1-4]|"
    r"s[1-4]|r(?:em)?)(?:\s*sleep)?",
    re.IGNORECASE,
)
_SURE = re.compile(r"wake|awake|wakefulness|n[1-3]|rem", re.IGNORECASE)
"""Stages without the word "stage" before them: ``1`` or ``R`` by itself may be a trigger."""
_STAGE_OF = {"1": "N1", "2": "N2", "3": "N3", "4": "N3"}
_NO_STAGE = re.compile(r"(?:sleep\s*)?stage\s*\?|movement time", re.IGNORECASE)
_EVENT_WORDS = (  # in this order: the first whose words are all there
    ("hypopnea", ("hypopn",)),
    ("apnea-obstructive", ("obstructive", "apn")),
    ("apnea-central", ("central", "apn")),
    ("apnea-mixed", ("mixed", "apn")),
    ("apnea", ("apn",)),
    ("arousal", ("arousal",)),
    ("desaturation", ("desat",)),
    ("leg-movement", ("limb", "movement")),
    ("leg-movement", ("leg", "movement")),
    ("leg-movement", ("plm",)),
    ("snore", ("snor",)),
    ("artefact", ("artefact",)),
    ("artefact", ("artifact",)),
    ("seizure", ("seiz",)),
)
_NOT = re.compile(r"\b(?:no|not|without|rule[ds]? out|end|possible|query)\b|\?", re.IGNORECASE)
_LONGEST = 80  # characters of a text that can be a class


class Span(NamedTuple):
    """Seconds from the beginning of the recording, the group of the class, and its name."""

    first: float
    last: float
    group: str
    name: str


def known(text: str, *, staged: bool = False) -> tuple[str, str] | None:
    """(group, name) of a text that says a sleep stage, a rhythm or an event; None for any other.

    Args:
        text: as annotated.
        staged: whether it stands where only stages do, so that ``R`` and ``2`` are some.

    Example:
        >>> [known(text) for text in ("Sleep stage 4", "Obstructive Apnea|x", "Dr Roe came in")]
        [('stage', 'N3'), ('event', 'apnea-obstructive'), None]
        >>> known("2"), known("2", staged=True)
        (None, ('stage', 'N2'))
    """
    plain = " ".join(text.split())
    if not plain or len(plain) > _LONGEST:
        return None
    if _NO_STAGE.fullmatch(plain):
        return STAGE, OTHER
    stage = _STAGE.fullmatch(plain)
    said = stage is not None and any(map(str.isalpha, stage["said"]))
    if stage is not None and (staged or said or _SURE.fullmatch(plain)):
        level = stage["stage"].lower().lstrip("ns")
        return STAGE, _STAGE_OF.get(level, "R" if level.startswith("r") else "W")
    if plain.startswith("(") and plain[1:] in RHYTHMS:
        return RHYTHM, plain[1:]
    if _NOT.search(plain):
        return None
    lower = plain.lower()
    for name, words in _EVENT_WORDS:
        if all(word in lower for word in words):
            return EVENT, name
    return None


_SLPDB = {
    "H": "hypopnea", "HA": "hypopnea", "OA": "apnea-obstructive", "X": "apnea-obstructive",
    "CA": "apnea-central", "CAA": "apnea-central", "L": "leg-movement", "LA": "leg-movement",
    "A": "arousal",
}  # fmt: skip


def of_sleep(notes: Sequence[tuple[float, str]], step: float, *, apnea: bool) -> list[Span]:
    """Spans of PhysioNet's marks of sleep (`annotations.sleep_notes`), each of one step.

    Args:
        notes: ``"2 OA"``: a stage and events; with ``apnea``, ``A`` for a minute with apnea.
        step: seconds that a mark is about.
        apnea: whether they say nothing but that.
    """
    spans = []
    for at, note in notes:
        first, *others = note.split() or [""]
        if apnea:
            spans += [Span(at, at + step, EVENT, "apnea")] if first == "A" else []
            continue
        pair = known(first, staged=True) or (STAGE, OTHER)
        spans.append(Span(at, at + step, *pair))
        names = {_SLPDB[word] for word in others if word in _SLPDB}
        spans += [Span(at, at + step, EVENT, name) for name in sorted(names)]
    return spans


def until_next(marks: Sequence[tuple[float, str]], end: float, group: str) -> list[Span]:
    """Classes that hold from their mark to the next one, the last to the end of the recording."""
    ends = [*(at for at, _ in marks[1:]), end][: len(marks)]
    return [
        Span(at, last, group, name)
        for (at, name), last in zip(marks, ends, strict=True)
        if last > at
    ]


def arrays(spans: Iterable[Span], fs: float, length: int) -> dict[str, np.ndarray]:
    """Spans as prepared arrays: ``spans`` (S, 3) int64 of first, last (half open, in samples at
    ``fs``) and class; ``classes`` (K,) of ``group:name``. What is beyond the signal is cut off."""
    import numpy as np

    found = sorted(spans)
    names = sorted({f"{span.group}:{span.name}" for span in found})
    rows = [
        (
            min(max(round(span.first * fs), 0), length),
            min(max(round(span.last * fs), 0), length),
            names.index(f"{span.group}:{span.name}"),
        )
        for span in found
    ]
    kept = [row for row in rows if row[1] > row[0]]
    return {
        "spans": np.array(kept, dtype=np.int64).reshape(-1, 3),
        "classes": np.array([name.encode() for name in names], dtype="S"),
    }


def covering(
    record: Mapping[str, np.ndarray],
    group: str,
    names: Sequence[str],
    first: np.ndarray,
    length: int,
    cover: float,
) -> np.ndarray:
    """The class of each window (W,) as an index into ``names``; −1 where none covers enough.

    Args:
        record: the prepared arrays, with ``spans`` and ``classes``.
        group: of the classes.
        names: of the classes, in the order of their label.
        first: (W,) where each window begins.
        length: of a window.
        cover: the share of a window of which the spans of one class must be more.
    """
    import numpy as np

    spans = np.asarray(record["spans"])
    held = [name.decode() for name in np.asarray(record["classes"]).tolist()]
    label = np.full(len(first), -1, dtype=np.int64)
    most = np.full(len(first), cover * length)
    for code, full in enumerate(held):
        name = full.removeprefix(f"{group}:")
        if name == full:
            continue
        share = _covered(spans[spans[:, 2] == code], first, length)
        wins = share > most
        label[wins] = names.index(name) if name in names else -1
        most[wins] = share[wins]
    return label


def _covered(spans: np.ndarray, first: np.ndarray, length: int) -> np.ndarray:
    """How many samples of each window (W,) spans (S, 3) of one class cover, each sample once."""
    import numpy as np

    if not len(spans):
        return np.zeros(len(first))
    ordered = spans[np.argsort(spans[:, 0], kind="stable")]
    begins, ends = ordered[:, 0], np.maximum.accumulate(ordered[:, 1])
    begins = np.maximum(begins, np.concatenate([[0], ends[:-1]]))  # what overlaps counts once
    sizes = np.maximum(ends - begins, 0)
    before = np.concatenate([[0], sizes.cumsum()])

    def until(at: np.ndarray) -> np.ndarray:
        """Samples that are covered before each position."""
        n = np.searchsorted(begins, at, side="right")
        last = np.maximum(n - 1, 0)
        over = np.where(n > 0, np.maximum(begins[last] + sizes[last] - at, 0), 0)
        return np.asarray(before[n] - over)

    return np.asarray(until(first + length) - until(first))
