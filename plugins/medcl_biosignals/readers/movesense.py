"""Movesense's JSON: packets of samples with the sensor's time, wherever they lie in the document.

Its apps and converters nest them differently (``{"data": {"Meas": {"ECG": [...]}}}``, a list of
``{"MeasEcg": …}``, one packet a line); the packets themselves are those of the sensor's API:
``{"Timestamp": ms, "Samples": [...]}`` or ``{"Timestamp": ms, "ArrayAcc": [{"x":, "y":, "z":}]}``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from medcl_biosignals.readers import values
from medcl_biosignals.readers.contract import (
    BadSignal,
    Channel,
    Flaw,
    Heading,
    Recording,
    Settings,
    Span,
    kept,
)
from medcl_biosignals.readers.json_text import loaded, number

_AXES = {
    "ArrayAcc": ("ACC", "m/s2"),
    "ArrayGyro": ("GYR", "deg/s"),
    "ArrayMagn": ("MAG", ""),
}
_RATES = (13, 26, 52, 104, 208, 416, 833, 1666, 125, 128, 200, 250, 256, 500, 512)
"""Hz: of the sensor's API."""
_NEAR = 0.02  # of a rate: the clock of a phone is as far off
_DEEPEST = 32
_MOST_HOLES = 50
"""Samples that are missing for one that is there: beyond that, the times are no times."""
_Packets = dict[str, list[tuple[float, np.ndarray]]]


def is_movesense(head: bytes) -> bool:
    """Whether a JSON file begins with packets of the sensor."""
    return b'"Timestamp"' in head and any(
        f'"{key}"'.encode() in head for key in ("Samples", *_AXES)
    )


def headings(path: Path, settings: Settings) -> Iterator[Heading | Flaw]:
    """The one recording in a file."""
    held, noticed = _held(path)
    yield values.heading(held, "Movesense", noticed)


def read(path: Path, part: str, settings: Settings, span: Span | None = None) -> Recording:
    """Its samples, from the first packet on."""
    return values.part(_held(path)[0], span)


def _held(path: Path) -> tuple[Recording, tuple[str, ...]]:
    packets: defaultdict[str, list[tuple[float, np.ndarray]]] = defaultdict(list)
    _collect(loaded(path), "", packets, 0)
    if not packets:
        raise BadSignal("no-samples", "the file holds no packet with samples and a time")
    streams = {name: sorted(found, key=lambda p: p[0]) for name, found in packets.items()}
    zero = min(found[0][0] for found in streams.values())
    channels: list[Channel] = []
    samples: list[np.ndarray] = []
    noticed: list[str] = []
    for name, found in streams.items():
        fs, sure = _rate(found)
        if not sure:
            noticed.append("irregular-times")
        block, holed = _placed(found, zero, fs)
        if holed:
            noticed.append("gaps")
        for axis, row in enumerate(block):
            kind, unit = _AXES.get(name, (name, "mV" if name == "ECG mV" else ""))
            shown = f"{kind}-{'xyz'[axis]}" if name in _AXES else "ECG"
            channels.append(Channel(shown, unit, fs))
            samples.append(kept(row))
    return Recording(tuple(channels), samples), tuple(dict.fromkeys(noticed))


def _collect(node: Any, above: str, packets: _Packets, depth: int) -> None:
    """Packets by their stream, wherever they are; ``above`` is the nearest name of a resource."""
    if depth > _DEEPEST:
        raise BadSignal("bad-signal", "the JSON is nested too deeply")
    if isinstance(node, list):
        for each in node:
            _collect(each, above, packets, depth + 1)
    elif isinstance(node, Mapping):
        above = f"{above}/{node['Uri']}" if isinstance(node.get("Uri"), str) else above
        packet = _packet(node, above)
        if packet is not None:
            for name, time, block in packet:
                packets[name].append((time, block))
            return
        for key, each in node.items():
            if isinstance(each, list | Mapping):
                _collect(each, f"{above}/{key}", packets, depth + 1)


def _packet(node: Mapping[str, Any], above: str) -> list[tuple[str, float, np.ndarray]] | None:
    """(stream, seconds, (axes, samples)) of each stream of a packet; None for what is none."""
    time = number(node.get("Timestamp")) / 1000
    if not np.isfinite(time):
        return None
    found = []
    for key in _AXES:
        rows = node.get(key)
        if isinstance(rows, list) and rows and all(isinstance(row, Mapping) for row in rows):
            block = np.array([[number(row.get(axis)) for row in rows] for axis in "xyz"])
            found.append((key, time, block))
    counts = node.get("Samples")
    if isinstance(counts, list) and counts and not any(isinstance(c, Mapping) for c in counts):
        name = "ECG mV" if "ecgmv" in above.lower() else "ECG"
        found.append((name, time, np.array([[number(count) for count in counts]])))
    return found or None


def _rate(packets: list[tuple[float, np.ndarray]]) -> tuple[float, bool]:
    """Hz of a stream, and whether it is one that the sensor has.

    Raises:
        BadSignal: if there is but one packet, which has no length.
    """
    steps = np.diff([time for time, _ in packets])
    counts = np.array([block.shape[1] for _, block in packets[:-1]])
    used = steps > 0
    if not used.any():
        raise BadSignal("no-sampling-rate", "a single packet: its samples have no rate")
    fs = float(np.median(counts[used] / steps[used]))
    if used.sum() > 4:  # stamps are whole milliseconds: over many packets they are finer
        usual = np.abs(counts[used] / steps[used] / fs - 1) < 0.2
        fs = float(counts[used][usual].sum() / steps[used][usual].sum())
    if not 0.1 <= fs <= 10_000:
        raise BadSignal("bad-times", "the times of the packets give no rate that a sensor has")
    near = min(_RATES, key=lambda rate: abs(rate / fs - 1))
    return (float(near), True) if abs(near / fs - 1) <= _NEAR else (fs, False)


def _placed(
    packets: list[tuple[float, np.ndarray]], zero: float, fs: float
) -> tuple[np.ndarray, bool]:
    """(axes, samples) of a stream at its rate; NaN where packets are missing."""
    begins: list[int] = []
    end = round((packets[0][0] - zero) * fs)
    holed = False
    before: tuple[float, int] | None = None
    for time, block in packets:
        if before is not None:  # by the step from the last packet: a clock that drifts adds up
            missing = (time - before[0]) * fs - before[1]
            if missing > max(2.0, before[1] / 2):
                holed, end = True, end + round(missing)
        begins.append(end)
        before = time, block.shape[1]
        end += block.shape[1]
    if end > _MOST_HOLES * sum(block.shape[1] for _, block in packets) + 1_000_000:
        raise BadSignal("bad-times", "the times of the packets lie too far apart")
    axes = packets[0][1].shape[0]
    out = np.full((axes, end), np.nan)
    for at, (_, block) in zip(begins, packets, strict=True):
        out[:, at : at + block.shape[1]] = block
    return out, holed
