"""A recording → filtered, resampled arrays, its beats, and how good each lead is over time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from medcl.errors import MedclError
from medcl_biosignals.annotations import read_annotations
from medcl_biosignals.detect import pulse_peaks, r_peaks
from medcl_biosignals.filters import clean, clean_causally, new_length
from medcl_biosignals.gaps import bridged, lost, runs, stretched
from medcl_biosignals.leads import canonical, choose
from medcl_biosignals.likeness import likeness
from medcl_biosignals.quality import block_parts, worth
from medcl_biosignals.readers.choose import read
from medcl_biosignals.readers.contract import BadSignal, Recording, Settings
from medcl_biosignals.readers.measures import factor, known_unit
from medcl_biosignals.scan import settings_of
from medcl_biosignals.vocabulary import Band, Vocabulary, camera, vocabulary

_PULSES = ("PPG", "pressure")
_HEARTS = ("ECG", *_PULSES)  # kinds to find beats in, the best first


def prepare(
    root: Path,
    files: Sequence[str],
    fields: Mapping[str, object],
    *,
    fs: float = 125.0,
    band: Literal["kind"] | tuple[float, float] | Mapping[str, Band] | None = "kind",
    notch: float | None = None,
    phase: Literal["zero", "causal"] = "zero",
    leads: tuple[str, ...] | None = None,
    channels: int = 2,
    flat: float | None = 3.0,
    clip: float | None = 1.0,
    bridge: float = 0.1,
    dtype: Literal["float32", "float16"] = "float16",
) -> dict[str, np.ndarray]:
    """Decode a recording once, for training.

    Gaps are found first, in every channel by itself, and no filter runs over one.

    Args:
        root: the archive.
        files: the record's files, the one to read first.
        fields: the row of the index; ``reader``, what the archive was indexed with, is used.
        fs: sampling rate of the result in Hz, whatever those of the channels are.
        band: pass-band in Hz of a zero-phase Butterworth filter of order 3 (the upper edge is
            dropped where a channel is too slow to have it); None leaves the signal as it is;
            "kind" takes that of each channel's kind in `channels.yaml`; a mapping gives it by kind.
        notch: frequency of the mains in Hz, taken out with its harmonics. Bands of ECG and PPG end
            below it.
        phase: "zero" filters forwards and backwards; "causal" forwards alone, so that windows are
            those of ``medcl predict --follow``. Nothing is bridged then: that needs the future.
        leads: what each channel of the result holds: alternatives by preference such as
            ``"MLII|II"``, or ``"*"`` for any other. A slot that nothing fits is zero and marked
            absent. None: the first ``channels`` signals as they come.
        channels: channels of the result where ``leads`` is None.
        flat: seconds without any change that make a gap; None: never.
        clip: seconds at the largest or smallest value of a channel that make a gap; None: never.
        bridge: seconds; missing stretches no longer than that are bridged by lines.
        dtype: of the stored signal. float16 keeps 11 bits, as many as most recorders give.

    Returns:
        ``x`` (C, T) in the unit of the kind where the recording's can be converted, else in its
        own, gaps filled with zero; ``present`` (C,) bool; ``kinds`` (C,) bytes; ``scale`` (C,)
        robust standard deviation; ``gaps`` (G, 2) int64 stretches, half open, without signal in
        any channel; ``lost`` (L, 4) int64 those of single channels: channel, first, last, and why
        (`medcl_biosignals.gaps.WHY`); ``beats`` (K,) int64 positions of R peaks or pulses;
        ``aami`` (K,) int8 classes, −1 where detected rather than annotated; ``rhythms`` (R, 2)
        int64, see `medcl_biosignals.annotations`; ``likeness`` (K, 6·C) float32, see
        `medcl_biosignals.likeness`; ``quality`` (C, blocks) float32 in 0–1 and its ``parts``
        (C, blocks, 3), see `medcl_biosignals.quality`; ``fs`` (1,). Positions are in samples at the
        new rate.

    Raises:
        MedclError: if the signal cannot be decoded, or holds no sample.
    """
    given: Any = fields.get("reader") or {}
    settings = settings_of(given).of(files[0].partition("\0")[0])
    known = vocabulary(settings.vocabulary)
    try:
        recording = read(root, files[0], settings)
    except BadSignal as error:
        raise MedclError(f"{files[0]}: {error}") from error
    slots = leads if leads is not None else ("*",) * channels
    bridge = 0.0 if phase == "causal" else bridge
    lines = _lines(recording, slots, known, files[0], flat=flat, clip=clip, bridge=bridge)

    def cleaned(line: _Line) -> np.ndarray:
        passed = known.band(band, line.kind, line.fs)
        if phase == "causal":
            return clean_causally(line.raw, line.fs, fs, passed, notch)
        return clean(bridged(line.raw, line.why), line.why, line.fs, fs, passed, notch)

    x, gone = _stacked(lines, fs, cleaned)
    present = np.array([line is not None for line in lines])
    parts = _parts(lines, x, fs)
    counted = _counted(recording, fields)
    lines = [None if line is None else replace(line, raw=line.raw[:0].copy()) for line in lines]
    del recording  # 90 MB for a day of four channels at 64 Hz, and no longer needed
    annotation = next((root / f for f in files if f.endswith(".atr")), None)
    if annotation is not None:
        positions, classes, rhythms = _annotated(annotation, counted, fs, x.shape[1])
    else:
        positions, classes, rhythms = _detected(lines, x, fs)
    return {
        "x": _narrow(x, dtype),
        "present": present,
        "kinds": np.array(["" if line is None else line.kind for line in lines], dtype="S16"),
        "scale": (np.median(np.abs(x), axis=1) * 1.4826).astype(np.float32),
        "gaps": runs(gone[present].all(axis=0)),
        "lost": _lost(lines, fs),
        "beats": positions,
        "aami": classes,
        "rhythms": rhythms,
        "likeness": likeness(x, positions, fs),
        "quality": worth(parts, x, fs),
        "parts": parts.astype(np.float32),
        "fs": np.array([fs]),
    }


def read_signal(path: Path) -> tuple[np.ndarray, list[str], float]:
    """All channels of a recording whose channels have one rate.

    Returns:
        signals (C, N) float32 in the file's units, NaN where missing; their names; the rate in Hz.

    Raises:
        MedclError: if it cannot be read, or has several rates.
    """
    try:
        recording = read(path.parent, path.name, Settings())
    except BadSignal as error:
        raise MedclError(f"{path.name}: {error}") from error
    rates = {channel.fs for channel in recording.channels}
    if len(rates) > 1:
        raise MedclError(f"{path.name}: its channels have several rates; prepare it.")
    return np.stack(recording.samples), [c.name for c in recording.channels], rates.pop()


@dataclass(frozen=True)
class _Line:
    """A chosen channel: as recorded, in its unit or its kind's, and where it is lost."""

    raw: np.ndarray  # (N,)
    why: np.ndarray  # (N,)
    fs: float
    kind: str


def _names(recording: Recording, known: Vocabulary) -> list[str]:
    names = camera([channel.name for channel in recording.channels])
    return [canonical(name, known) for name in names]


def _lines(
    recording: Recording,
    slots: Sequence[str],
    known: Vocabulary,
    name: str,
    *,
    flat: float | None,
    clip: float | None,
    bridge: float,
) -> list[_Line | None]:
    """The channel in each slot, None where nothing fits or nothing of it is valid.

    Raises:
        MedclError: if all are None; ``name`` says of which file.
    """
    picked = choose(_names(recording, known), tuple(slots))
    if all(i is None for i in picked):
        raise MedclError(f"{name}: none of the leads {', '.join(slots)} is in this recording.")
    lines = [
        None if i is None else _line(recording, i, known, flat=flat, clip=clip, bridge=bridge)
        for i in picked
    ]
    lines = [line if line is not None and np.isfinite(line.raw).any() else None for line in lines]
    if all(line is None for line in lines):
        raise MedclError(f"{name}: the recording holds no valid sample.")
    return lines


def _line(
    recording: Recording,
    i: int,
    known: Vocabulary,
    *,
    flat: float | None,
    clip: float | None,
    bridge: float,
) -> _Line:
    channel, raw = recording.channels[i], recording.samples[i]
    unit = known_unit(channel.units)
    kind = known.kind(_names(recording, known)[i], unit)
    by = factor(unit, known.units.get(kind))
    if by is not None and by != 1:
        raw = raw * np.float32(by)
    quiet = flat if kind != "numeric" else None  # a measured value may well stay the same
    limit = clip if kind != "numeric" else None
    why = lost(raw, channel.fs, flat=quiet, clip=limit, bridge=bridge)
    return _Line(raw, why, channel.fs, kind)


def _stacked(
    lines: list[_Line | None], fs: float, cleaned: Callable[[_Line], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Clean channels (C, T) in their slots, and where they are lost; shorter ones end in a gap."""
    length = max(new_length(len(line.raw), line.fs, fs) for line in lines if line is not None)
    x = np.zeros((len(lines), length), dtype=np.float32)
    gone = np.ones((len(lines), length), dtype=bool)
    for slot, line in enumerate(lines):
        if line is not None:
            row = cleaned(line)
            gone[slot, : len(row)] = stretched(line.why > 0, len(row))
            x[slot, : len(row)] = row
            x[slot, gone[slot]] = 0.0
    return x, gone


def _parts(lines: list[_Line | None], x: np.ndarray, fs: float) -> np.ndarray:
    """What the raw signal says of its quality, (C, blocks, 3); zero for a slot that is empty."""
    made = [
        None if line is None else block_parts(line.raw[None], line.fs, x.shape[1] / fs)[0]
        for line in lines
    ]
    blocks = next(len(part) for part in made if part is not None)
    empty = np.zeros((blocks, 3))
    return np.stack([empty if part is None else part for part in made])


def _annotated(
    path: Path, counted: float, fs: float, length: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions (K,) and classes (K,) of beats and the rhythms (R, 2), as a file marks them.

    Args:
        path: the annotations.
        counted: the rate that they count at, unless they say another.
        fs: the new rate.
        length: of the signal at that rate; what lies beyond is left out.
    """
    marks = read_annotations(path)
    by = fs / (marks.fs or counted)
    positions = np.rint(marks.beats * by).astype(np.int64)
    inside = (positions >= 0) & (positions < length)
    rhythms = marks.rhythms.copy()
    rhythms[:, 0] = np.rint(rhythms[:, 0] * by)
    return positions[inside], marks.classes[inside], rhythms


def _detected(
    lines: list[_Line | None], x: np.ndarray, fs: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions of beats that are found in the signal; their classes (−1), no rhythms."""
    kind, rows = _hearts(lines)
    heart = x if len(rows) == len(x) else x[rows]
    positions = (pulse_peaks if kind in _PULSES else r_peaks)(heart, fs)
    return positions, np.full(len(positions), -1, np.int8), np.zeros((0, 2), np.int64)


def _hearts(lines: list[_Line | None]) -> tuple[str, list[int]]:
    """The kind to find beats in, the best there is, and its slots; else none, and all slots."""
    for kind in _HEARTS:
        slots = [n for n, line in enumerate(lines) if line is not None and line.kind == kind]
        if slots:
            return kind, slots
    return "", [n for n, line in enumerate(lines) if line is not None]


def _counted(recording: Recording, fields: Mapping[str, object]) -> float:
    """The rate that annotations count at: the record's frames."""
    given = fields.get("fs")
    if isinstance(given, float | int):
        return float(given)
    return min(channel.fs for channel in recording.channels)


def _lost(lines: list[_Line | None], fs: float) -> np.ndarray:
    """Channel, first, last, why of every lost stretch, at the new rate."""
    found = []
    for slot, line in enumerate(lines):
        if line is not None and line.why.any():
            scale = fs / line.fs
            for code in np.unique(line.why[line.why > 0]):
                for first, last in runs(line.why == code):
                    found.append((slot, int(first * scale), -int(-last * scale // 1), int(code)))
    return np.array(sorted(found), dtype=np.int64).reshape(-1, 4)


def _narrow(x: np.ndarray, dtype: str) -> np.ndarray:
    """To the stored type; values that float16 cannot hold are clipped, not made infinite."""
    if dtype == "float16":
        limit = float(np.finfo(np.float16).max)
        x = np.clip(x, -limit, limit)
    return x.astype(dtype)
