"""BIOPAC AcqKnowledge ``.acq``, decoded by bioread: each channel at its own rate."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medcl_biosignals.readers.contract import (
    BadSignal,
    Channel,
    Flaw,
    Heading,
    Recording,
    Settings,
    Span,
    bounds,
    kept,
)

if TYPE_CHECKING:
    from bioread.biopac import Datafile

_MOST_PACKED = 1032  # times: what DEFLATE can reach
_LARGEST = 1e30  # AcqKnowledge 3.8 left 1e306 and the like at the end of its own recordings


def headings(path: Path, settings: Settings) -> Iterator[Heading | Flaw]:
    """The recording of a file, by its headers alone."""
    file = _opened(path, "read_headers")
    channels = _channels(file)
    fs = max(channel.fs for channel in channels)
    lengths = [c.point_count / made.fs for c, made in zip(file.channels, channels, strict=True)]
    findings = []
    if max(lengths) - min(lengths) > max(1 / channel.fs for channel in channels):
        findings.append("unequal-lengths")
    if settings.fs is not None and abs(settings.fs / fs - 1) > 0.02:
        findings.append("fs-mismatch")
    yield Heading("", "AcqKnowledge", channels, fs, max(lengths), findings=tuple(findings))


def read(path: Path, part: str, settings: Settings, span: Span | None = None) -> Recording:
    """Its samples in their units; a channel that ends earlier than others is NaN from there."""
    file = _opened(path, "read")
    channels = _channels(file)
    seconds = max(c.point_count / made.fs for c, made in zip(file.channels, channels, strict=True))
    rows = []
    for held, channel in zip(file.channels, channels, strict=True):
        if held.data is None or len(held.data) != held.point_count:
            raise BadSignal("truncated", "the file ends within its samples")
        length = max(round(seconds * channel.fs), held.point_count)
        first, last = bounds(span, channel.fs, length)
        row = np.asarray(held.data[first:last], dtype=np.float64)
        row = np.where(np.abs(row) < _LARGEST, row, np.nan)
        rows.append(kept(np.pad(row, (0, last - first - len(row)), constant_values=np.nan)))
    return Recording(channels, rows)


def _channels(file: Datafile) -> tuple[Channel, ...]:
    return tuple(
        Channel(str(held.name or "").strip(), str(held.units or ""), float(held.samples_per_second))
        for held in file.channels
    )


def _opened(path: Path, how: str) -> Datafile:
    """The file as bioread gives it; what its headers claim is held against its size first."""
    try:
        import bioread
    except ImportError:
        raise BadSignal(
            "needs-a-package", "AcqKnowledge files need bioread: pip install 'medcl[signals]'"
        ) from None
    logging.getLogger("bioread").setLevel(logging.CRITICAL)  # it prints what is raised as well
    try:
        file: Any = bioread.read_headers(path)
        claimed = sum(held.data_length for held in file.channels)
        rates = [float(held.samples_per_second) for held in file.channels]
        counts = [int(held.point_count) for held in file.channels]
    except Exception as error:  # bioread raises many kinds for a damaged file
        raise BadSignal(
            "bad-signal", f"the file is cut off, or no AcqKnowledge file ({type(error).__name__})"
        ) from None
    if not rates or max(counts) < 1:
        raise BadSignal("no-samples", "no channel of the file holds a sample")
    if not all(0 < fs < 1e7 for fs in rates) or min(counts) < 0:
        raise BadSignal("bad-header", "the header's numbers contradict each other")
    size = path.stat().st_size
    if claimed > size * (_MOST_PACKED if file.is_compressed else 1):
        raise BadSignal("truncated", "more samples are claimed than the file can hold")
    if how == "read_headers":
        return file
    try:
        return bioread.read(path)
    except Exception as error:
        raise BadSignal(
            "bad-signal", f"the samples cannot be decoded ({type(error).__name__})"
        ) from None
