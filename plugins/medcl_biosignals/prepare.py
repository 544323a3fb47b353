"""A recording → filtered, resampled arrays, its beats, and how good each lead is over time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from medcl.errors import MedclError
from medcl_biosignals import spans
from medcl_biosignals.annotated import annotated
from medcl_biosignals.detectors import DETECTORS, Name
from medcl_biosignals.filters import clean, clean_causally, new_length
from medcl_biosignals.gaps import bridged, lost, runs, stretched
from medcl_biosignals.leads import Pick, bound, by_kind, choose
from medcl_biosignals.likeness import likeness
from medcl_biosignals.naming import NUMERIC, Meant, meant
from medcl_biosignals.quality import block_parts, worth
from medcl_biosignals.readers.choose import read
from medcl_biosignals.readers.contract import BadSignal, Recording, Settings
from medcl_biosignals.readers.fill_values import FINDING, without_fill
from medcl_biosignals.readers.measures import dimension, factor, known_unit
from medcl_biosignals.scan import settings_of
from medcl_biosignals.vocabulary import Band, Vocabulary, together, vocabulary

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
    detector: Name = "energy",
    dtype: Literal["float32", "int16", "float16"] = "float32",
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
            ``"MLII|II"``; ``"PPG:*"`` for any of that kind, as is ``"*"`` behind names of one kind
            (``"MLII|II|*"``); ``"*"`` by itself for any of any kind. A slot that nothing fits is
            zero and marked absent. A lead recorded the other way up (``-aVR``) is turned over.
            None: the first ``channels`` signals, ECG, PPG and pressure before others, no numerics.
        channels: channels of the result where ``leads`` is None.
        flat: seconds without any change that make a gap; None: never.
        clip: seconds at the largest or smallest value of a channel that make a gap; None: never.
        bridge: seconds; missing stretches no longer than that are bridged by lines.
        detector: what finds the beats where no file marks them: "energy", medcl's own, of all leads
            of an ECG together (`medcl_biosignals.detect`); "xqrs" of the WFDB package or "neurokit"
            of NeuroKit2, which must be installed, both of the lead with the best quality; "none".
            Pulses are found by "neurokit" or, with the others, by medcl's own.
        dtype: of the stored signal. int16 takes half the space; where its steps would be larger
            than 1/500 of a channel's standard deviation (one spike in a quiet signal), the
            recording is stored as float32. "float16", of earlier recipes, is float32.

    Returns:
        ``x`` (C, T), of which ``x · gain + offset`` is in the unit of the kind where the
        recording's can be converted, else in its own; gaps are zero (of a kind that keeps its
        level: at that). ``gain`` and ``offset`` (C,) float64: the gain is 1 but for int16, and for
        very large or small signals, whose squares would leave float32's range; the offset is 0 but
        for a level that is kept and so large that float32 would lose the signal. ``present`` (C,)
        bool; ``kinds``, ``units`` and ``channels`` (C,) bytes, the last by name where medcl knows
        it; a unit that is not understood is "a.u.";
        ``scale`` (C,) float64 robust standard deviation; ``gaps`` (G, 2) int64 stretches, half
        open, without signal in any channel; ``lost`` (L, 4) int64 those of single channels:
        channel, first, last, and why (`medcl_biosignals.gaps.WHY`); ``beats`` (K,) int64 positions
        of R peaks or pulses; ``aami`` (K,) int8 classes, −1 where detected rather than annotated;
        ``spans`` (S, 3) int64 and ``classes``, see `medcl_biosignals.spans`; ``likeness``
        (K, 6·C) float32, see `medcl_biosignals.likeness`; ``quality`` (C, blocks) float32 in 0–1
        and its ``parts`` (C, blocks, 3), see `medcl_biosignals.quality`; ``fs`` (1,);
        ``clock`` (1,) seconds since midnight at the first sample, where EDF or WFDB says so (no
        date is kept); and, where there are any, ``findings``: slots that nothing fits
        (``lacks:V6``), the kinds that were taken where the recipe leaves it open
        (``took:ECG+PPG``), ``fill-values`` (`medcl_biosignals.readers.fill_values`), and
        annotations that were not understood.
        Positions are in samples at the new rate.

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
    bridge = 0.0 if phase == "causal" else bridge
    name = files[0].partition("\0")[0]
    lines = _lines(recording, leads, channels, known, name, flat=flat, clip=clip, bridge=bridge)
    counted, clock = _counted(recording, fields), recording.clock
    scored = [spans.Span(first, last, spans.STAGE, name) for first, last, name in recording.stages]
    del recording  # 90 MB for a day of four channels at 64 Hz, and no longer needed

    bands = [None if line is None else known.band(band, line.kind, line.fs) for line in lines]
    level, offset = _levels(lines, bands)

    def cleaned(line: _Line) -> np.ndarray:
        passed = known.band(band, line.kind, line.fs)
        if phase == "causal":
            return clean_causally(line.raw, line.fs, fs, passed, notch)
        return clean(bridged(line.raw, line.why), line.why, line.fs, fs, passed, notch)

    x, gone = _stacked(lines, fs, cleaned, level)
    unit = _unit(x)
    present = np.array([line is not None for line in lines])
    parts = _parts(lines, x, fs)
    lines = [None if line is None else replace(line, raw=line.raw[:0].copy()) for line in lines]
    kinds = ["" if line is None else line.kind for line in lines]
    quality = worth(parts, x, fs, kinds)
    told = annotated(root, files, x.shape[1] / fs, counted)
    if told.beats is not None and told.classes is not None:
        positions = np.rint(told.beats * (fs / told.rate)).astype(np.int64)
        inside = (positions >= 0) & (positions < x.shape[1])
        positions, classes = positions[inside], told.classes[inside]
    else:
        positions, classes = _detected(detector, kinds, x, fs, quality)
    scale = np.array([np.median(np.abs(row)) for row in x], dtype=np.float64) * 1.4826
    stored, gain = _stored(x, dtype)
    noticed = np.concatenate([_noticed(lines, leads, known), np.array(told.findings, dtype="U")])
    told_by_it = {} if clock is None else {"clock": np.array([clock])}
    return (
        told_by_it
        | ({"findings": noticed} if len(noticed) else {})
        | {
            "x": stored,
            "gain": gain * unit,
            "offset": offset,
            "present": present,
            "kinds": np.array(kinds, dtype="S16"),
            "units": np.array(["" if line is None else line.unit for line in lines], "S16"),
            "channels": np.array(
                ["" if line is None else line.name.encode("ascii", "replace") for line in lines],
                "S16",
            ),
            "scale": scale * unit,
            "gaps": runs(gone[present].all(axis=0)),
            "lost": _lost(lines, fs),
            "beats": positions,
            "aami": classes,
            **spans.arrays([*told.spans, *scored], fs, x.shape[1]),
            "likeness": likeness(x, positions, fs),
            "quality": quality,
            "parts": parts.astype(np.float32),
            "fs": np.array([fs]),
        }
    )


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
    """A chosen channel: less its level, in its unit or its kind's, and where it is lost."""

    raw: np.ndarray  # (N,) float32
    why: np.ndarray  # (N,)
    fs: float
    kind: str
    unit: str  # of its kind, where its own converts
    level: float
    name: str  # medcl's; empty for one that is not in the vocabulary, which may be anything
    filled: bool  # whether numbers that stand for missing samples were taken out


def _noticed(
    lines: Sequence[_Line | None], leads: Sequence[str] | None, known: Vocabulary
) -> np.ndarray:
    """What a recording lacks of the recipe's leads; the kinds it gave where any would do; and
    whether numbers stood for missing samples."""
    slots = leads if leads is not None else ("*",) * len(lines)
    found = [f"lacks:{slot}" for slot, line in zip(slots, lines, strict=True) if line is None]
    free = [kinds for kinds in bound(slots, known) if not kinds]
    if free:
        kinds = dict.fromkeys(line.kind for line in lines if line is not None)
        found.append(f"took:{'+'.join(kinds)}")
    if any(line is not None and line.filled for line in lines):
        found.append(FINDING)
    return np.array(list(dict.fromkeys(found)), dtype="U")


def _meant(recording: Recording, known: Vocabulary) -> list[Meant]:
    names = together([channel.name for channel in recording.channels])
    return [
        meant(name, known, unit=known_unit(channel.units), fs=channel.pace)
        for name, channel in zip(names, recording.channels, strict=True)
    ]


def _lines(
    recording: Recording,
    leads: Sequence[str] | None,
    channels: int,
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
    found = _meant(recording, known)
    kinds = [channel.kind for channel in found]
    if leads is None:
        picked = by_kind(kinds, channels)
    else:
        picked = choose([channel.name for channel in found], leads, kinds, known)
    if all(pick is None for pick in picked):
        held = ", ".join(dict.fromkeys(kinds))
        if leads is None:
            raise MedclError(
                f"{name}: no channel of this recording is a waveform (kinds: {held}). To have "
                "measured values all the same, name them in prepare.leads."
            )
        raise MedclError(
            f"{name}: none of the leads {', '.join(leads)} is in this recording, whose channels "
            f"are of the kinds {held}."
        )
    lines = [
        None
        if pick is None
        else _line(recording, pick, found, known, flat=flat, clip=clip, bridge=bridge)
        for pick in picked
    ]
    lines = [line if line is not None and np.isfinite(line.raw).any() else None for line in lines]
    if all(line is None for line in lines):
        raise MedclError(f"{name}: the recording holds no valid sample.")
    return lines


def _line(
    recording: Recording,
    pick: Pick,
    found: Sequence[Meant],
    known: Vocabulary,
    *,
    flat: float | None,
    clip: float | None,
    bridge: float,
) -> _Line:
    channel, recorded = recording.channels[pick.channel], recording.samples[pick.channel]
    raw = without_fill(recorded)
    kind = found[pick.channel].kind
    own, wanted = known_unit(channel.units), known.units.get(kind)
    converts = factor(own, wanted)
    unit = wanted if converts else own if dimension(own) else None
    by = (converts or 1.0) * pick.sign
    finite = np.isfinite(raw)
    level = float(np.median(raw[finite][:: max(len(raw) // 100_000, 1)])) if finite.any() else 0.0
    # Less its level, for float32 has 24 bits: of 1e9 ± 1 nothing would be left but the level.
    moved = ((raw - raw.dtype.type(level)) * raw.dtype.type(by)).astype(np.float32)
    quiet = flat if kind != NUMERIC else None  # a measured value may well stay the same
    limit = clip if kind != NUMERIC else None
    why = lost(moved, channel.fs, flat=quiet, clip=limit, bridge=bridge)
    name = known.find(found[pick.channel].name)
    filled = raw is not recorded
    return _Line(moved, why, channel.fs, kind, unit or "a.u.", level * by, name or "", filled)


def _stacked(
    lines: list[_Line | None], fs: float, cleaned: Callable[[_Line], np.ndarray], levels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Clean channels (C, T) in their slots, and where they are lost; shorter ones end in a gap.

    A channel that keeps its level has that in its gaps too, so that it does not jump there.
    """
    length = max(new_length(len(line.raw), line.fs, fs) for line in lines if line is not None)
    x = np.zeros((len(lines), length), dtype=np.float32)
    gone = np.ones((len(lines), length), dtype=bool)
    for slot, line in enumerate(lines):
        if line is not None:
            row = cleaned(line)
            gone[slot, : len(row)] = stretched(line.why > 0, len(row))
            x[slot, : len(row)] = row
            x[slot, gone[slot]] = 0.0
            x[slot] += np.float32(levels[slot])
    return x, gone


def _levels(lines: list[_Line | None], bands: list[Band]) -> tuple[np.ndarray, np.ndarray]:
    """What each channel (C,) has its level added of again: in ``x``, and beside it.

    Nothing, where the band takes the level away; beside it where float32 could not hold both.
    """
    inside, beside = np.zeros(len(lines)), np.zeros(len(lines))
    for slot, (line, band) in enumerate(zip(lines, bands, strict=True)):
        if line is not None and (band is None or band[0] == 0):
            fits = abs(line.level) * 2.0**-24 <= _FINEST / 10 * float(np.nanstd(line.raw))
            (inside if fits else beside)[slot] = line.level
    return inside, beside


def _parts(lines: list[_Line | None], x: np.ndarray, fs: float) -> np.ndarray:
    """What the raw signal says of its quality, (C, blocks, 3); zero for a slot that is empty."""
    made = [
        None if line is None else block_parts(line.raw[None], line.fs, x.shape[1] / fs)[0]
        for line in lines
    ]
    blocks = next(len(part) for part in made if part is not None)
    empty = np.zeros((blocks, 3))
    return np.stack([empty if part is None else part for part in made])


def _detected(
    detector: Name, kinds: Sequence[str], x: np.ndarray, fs: float, quality: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Positions of beats that are found in the signal; their classes (−1)."""
    kind = next((kind for kind in (*_HEARTS, "other") if kind in kinds), None)
    rows = [n for n, other in enumerate(kinds) if other == kind]
    if kind is None:  # nothing here beats: an accelerometer, a temperature
        positions = np.zeros(0, dtype=np.int64)
    else:
        rows.sort(key=lambda row: -float(quality[row].mean()))
        find = DETECTORS[detector]
        heart = x if rows == list(range(len(x))) else x[rows]
        positions = (find.pulses if kind in _PULSES else find.r_peaks)(heart, fs)
    return positions, np.full(len(positions), -1, np.int8)


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


def _unit(x: np.ndarray) -> np.ndarray:
    """Bring channels (C, T) of very large or small numbers near one, in place, by a power of two.

    Returns:
        (C,) what one of them stands for now.
    """
    spread = np.array([row.std(dtype=np.float64) for row in x])  # row by row, to save memory
    far = (spread > 0) & ((spread < 1e-3) | (spread > 1e3))
    unit = np.where(far, 2.0 ** np.round(np.log2(np.where(far, spread, 1.0))), 1.0)
    for row, by in zip(x, unit, strict=True):
        if by != 1:
            row *= np.float32(1 / by)
    return unit


_FULL = 32767
_FINEST = 1e-3  # of a standard deviation: the most that int16 may be off


def _stored(x: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """(C, T) as it is stored, and the gain of each channel: what one of it stands for."""
    peak = np.abs(x).max(axis=1).astype(np.float64)
    ones = np.ones(len(x))
    if dtype != "int16":
        return x, ones
    gain = np.where(peak > 0, peak / _FULL, 1.0)
    spread = np.array([row[row != 0].std() if row.any() else 1.0 for row in x])
    if (gain / 2 > _FINEST * spread).any():
        return x, ones
    return np.rint(x / gain[:, None]).astype(np.int16), gain
