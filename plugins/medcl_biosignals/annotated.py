"""Everything that is annotated of a recording: its beats with their classes, and spans.

From WFDB annotations, the annotations of EDF+ (its own, or of a hypnogram beside it), and tables
beside the recording.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from medcl_biosignals.annotations import ANNOTATORS, SLEEP, combined, sleep_notes
from medcl_biosignals.readers import edf
from medcl_biosignals.readers.contract import BadSignal
from medcl_biosignals.sidecar import NotUnderstood, beside, table_spans
from medcl_biosignals.spans import (
    OTHER,
    RHYTHM,
    RHYTHMS,
    STAGE,
    Span,
    known,
    of_sleep,
    until_next,
)

if TYPE_CHECKING:
    import numpy as np

_EDF = (".edf", ".bdf", ".rec")
_EPOCH, _MINUTE = 30.0, 60.0  # seconds: of a stage that is said without its duration; of apnea


class Annotated(NamedTuple):
    """What is annotated.

    Attributes:
        beats: (K,) int64 positions of beats, counted at ``rate``; None where nobody marked any.
        classes: (K,) int8 indices into `medcl_biosignals.aami.CLASSES`, −1 where not known.
        rate: in Hz.
        spans: with a class each.
        findings: what was not understood.
    """

    beats: np.ndarray | None
    classes: np.ndarray | None
    rate: float
    spans: list[Span]
    findings: tuple[str, ...]


def annotated(root: Path, files: Sequence[str], seconds: float, counted: float) -> Annotated:
    """Read what is annotated.

    Args:
        root: the archive.
        files: of the record, the signal first.
        seconds: its length.
        counted: the rate in Hz that WFDB's annotations count at, unless they say another.
    """
    signal = files[0].partition("\0")[0]
    marks, noticed = combined(
        [root / file for file in files if file.endswith(ANNOTATORS)],
        round(seconds * counted),
        counted,
    )
    spans: list[Span] = []
    findings = list(noticed)
    beats = classes = None
    fs = counted
    if marks is not None:
        fs = marks.fs or counted
        named = [
            (at / fs, RHYTHMS[code] if code >= 0 else OTHER) for at, code in marks.rhythms.tolist()
        ]
        spans += until_next(named, seconds, RHYTHM)
        if len(marks.beats):
            beats, classes = marks.beats, marks.classes
    for file in files:
        lower = file.lower()
        try:
            if beside(file) is not None:
                spans += table_spans(root / file, seconds)
            elif file.endswith(SLEEP):
                apnea = file.endswith(SLEEP[1])
                spans += of_sleep(
                    sleep_notes(root / file, counted), _MINUTE if apnea else _EPOCH, apnea=apnea
                )
            elif file == signal and "\0" not in files[0] and lower.endswith(_EDF):
                spans += _of_edf(edf.notes(root / file), seconds, findings)
            elif file != signal and lower.endswith(_EDF):
                notes = edf.notes(root / file, since=root / signal)
                spans += _of_edf(notes, seconds, findings)
        except (NotUnderstood, BadSignal, OSError, ValueError):
            findings.append("unreadable-annotations")
    return Annotated(beats, classes, fs, spans, tuple(dict.fromkeys(findings)))


def _of_edf(
    notes: Sequence[tuple[float, float | None, str]], seconds: float, findings: list[str]
) -> list[Span]:
    """The known classes among EDF+'s annotations; of other texts only that there are some."""
    stages = sorted(onset for onset, _, text in notes if (known(text) or ("",))[0] == STAGE)
    spans = []
    for onset, length, text in notes:
        pair = known(text)
        if pair is None:
            findings.append("unknown-annotations")
            continue
        if not length and pair[0] == STAGE:  # up to the next one, an epoch at most
            after = bisect_right(stages, onset)
            following = stages[after] if after < len(stages) else seconds
            length = min(_EPOCH, following - onset)
        if length:
            spans.append(Span(onset, min(onset + length, seconds), *pair))
        else:
            findings.append("unknown-annotations")  # an event without an end
    return spans
