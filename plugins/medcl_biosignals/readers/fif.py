"""Recordings of MNE-Python, ``.fif``; mne reads them, spans of them where they lie."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medcl.plugin import Scalar
from medcl_biosignals.naming import meant
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
    person,
)
from medcl_biosignals.readers.header_labels import age_at, of_person
from medcl_biosignals.vocabulary import Vocabulary, vocabulary

if TYPE_CHECKING:
    from mne.io import BaseRaw

_UNITS = {1: "m", 4: "A", 101: "Hz", 103: "Pa", 105: "W", 107: "V", 109: "Ohm", 110: "S",
          114: "degC", 112: "T", 201: "T/m"}  # fmt: skip
"""Of the FIFF standard, by number."""
_KINDS = {"ecg": "ECG", "eog": "EOG", "emg": "EMG", "resp": "RESP", "gsr": "EDA",
          "temperature": "TEMP"}  # fmt: skip
"""What mne was told that a channel is. Not EEG: that is what it takes for anything else."""
_NO_SIGNALS = frozenset(("stim", "syst", "exci", "ias", "chpi"))
_SKIPPED = "BAD_ACQ_SKIP"
_CONTINUED = re.compile(r"(?P<first>.+?)(?:-\d+|_split-(?P<number>\d+)_\w+)\.fif")
_FIRST_SECONDS, _MOST_VOLTS = 10.0, 0.02


def headings(path: Path, settings: Settings) -> Iterator[Heading | Flaw]:
    """The recording of a file and of those that it goes on in."""
    raw = _opened(path)
    for other in _before(path):
        if path.resolve() in {Path(str(part)).resolve() for part in _opened(other).filenames}:
            reason = "the recording begins in another file, and is read with it"
            yield Flaw("", "part-of-another", reason)
            return
    channels, picked = _channels(raw, vocabulary(settings.vocabulary))
    fs = float(raw.info["sfreq"])
    findings = []
    if any(str(note["description"]) == _SKIPPED for note in raw.annotations):
        findings.append("gaps")
    if settings.fs is not None and abs(settings.fs / fs - 1) > 0.02:
        findings.append("fs-mismatch")
    if _too_large(raw, channels, picked):
        findings.append("implausible-amplitude")
    who, labels = _about(raw.info)
    seconds = int(raw.n_times) / fs
    yield Heading(
        "", "FIF", channels, fs, seconds, subject=who, findings=tuple(findings), labels=labels
    )


def read(path: Path, part: str, settings: Settings, span: Span | None = None) -> Recording:
    """Its samples; NaN where the acquisition was paused."""
    raw = _opened(path)
    channels, picked = _channels(raw, vocabulary(settings.vocabulary))
    fs = float(raw.info["sfreq"])
    first, last = bounds(span, fs, raw.n_times)
    values = _values(raw, picked, first, last)
    for note in raw.annotations:
        if str(note["description"]) == _SKIPPED:
            begin = round(float(note["onset"]) * fs) - int(raw.first_samp) - first
            end = begin + round(float(note["duration"]) * fs)
            values[:, max(begin, 0) : max(end, 0)] = np.nan
    return Recording(channels, [kept(row) for row in values])


def _opened(path: Path) -> BaseRaw:
    try:
        import mne
    except ImportError:
        raise BadSignal(
            "needs-a-package", "FIF files need mne: pip install 'medcl[signals]'"
        ) from None
    try:
        raw: BaseRaw = mne.io.read_raw_fif(
            path, preload=False, allow_maxshield=True, on_split_missing="ignore", verbose="error"
        )
    except Exception as error:  # mne raises many kinds, also for files of averages and epochs
        raise BadSignal(
            "not-a-signal",
            f"the file is cut off, damaged, or no continuous recording ({type(error).__name__})",
        ) from None
    if raw.n_times < 1 or not 0 < float(raw.info["sfreq"]) < 1e7:
        raise BadSignal("no-samples", "the file holds no sample")
    return raw


def _values(raw: BaseRaw, picked: list[int], first: int, last: int) -> np.ndarray:
    try:
        values: np.ndarray = raw.get_data(picks=picked, start=first, stop=last, verbose="error")
    except Exception as error:
        raise BadSignal(
            "bad-signal", f"the samples cannot be decoded ({type(error).__name__})"
        ) from None
    return values


def _channels(raw: BaseRaw, known: Vocabulary) -> tuple[tuple[Channel, ...], list[int]]:
    """The channels that are signals, and their places among all."""
    import mne

    fs = float(raw.info["sfreq"])
    found, picked = [], []
    for n, line in enumerate(raw.info["chs"]):
        kind, name = mne.channel_type(raw.info, n), str(line["ch_name"])
        if kind in _NO_SIGNALS:
            continue
        told = _KINDS.get(kind)
        if told is not None and meant(name, known).kind != meant(told, known).kind:
            name = f"{told} {name}"
        found.append(Channel(name, _UNITS.get(int(line["unit"]), ""), fs))
        picked.append(n)
    if not found:
        raise BadSignal("no-signals", "the file holds triggers only")
    return tuple(found), picked


def _too_large(raw: BaseRaw, channels: tuple[Channel, ...], picked: list[int]) -> bool:
    """Whether a voltage moves as none of a body does: mne counts in V, many give it mV or µV."""
    volts = [n for n, channel in zip(picked, channels, strict=True) if channel.units == "V"]
    if not volts:
        return False
    last = min(round(_FIRST_SECONDS * float(raw.info["sfreq"])), raw.n_times)
    return bool((np.nanstd(_values(raw, volts, 0, last), axis=1) > _MOST_VOLTS).any())


def _before(path: Path) -> Iterator[Path]:
    """The file that this one may be the continuation of, by its name."""
    match = _CONTINUED.fullmatch(path.name)
    if match is None:
        return
    first = f"{match['first']}.fif"
    if match["number"]:
        first = path.name.replace(f"split-{match['number']}", f"split-{1:0{len(match['number'])}}")
    if first != path.name and (path.parent / first).is_file():
        yield path.parent / first


def _about(info: Any) -> tuple[str | None, dict[str, Scalar]]:
    """The person, raw, and labels; of the dates nothing but the age is kept."""
    subject = info.get("subject_info") or {}
    named = " ".join(str(subject.get(name) or "") for name in ("last_name", "first_name"))
    who = person(subject.get("his_id")) or person(named) or person(subject.get("id"))
    sex = {1: "M", 2: "F"}.get(int(subject.get("sex") or 0), "")
    born, recorded = subject.get("birthday"), info.get("meas_date")
    if isinstance(born, tuple):
        born = date(*born)
    age = age_at(born, recorded.date()) if born is not None and recorded is not None else None
    return who, of_person(sex, age)
