"""Numbers that stand for missing samples are gaps; a signal's own extremes never are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from edfio import Edf, EdfSignal
from hypothesis import given, settings
from hypothesis import strategies as st

from medcl_biosignals.prepare import prepare
from medcl_biosignals.readers import table
from medcl_biosignals.readers.contract import Heading, Settings
from medcl_biosignals.readers.fill_values import FILL_VALUES, FINDING, without_fill

SECONDS = np.arange(2000) / 100


def pulse(level: float, size: float) -> np.ndarray:
    return level + size * np.sin(2 * np.pi * 1.2 * SECONDS) ** 3


@settings(max_examples=60, deadline=None)
@given(
    value=st.sampled_from(FILL_VALUES),
    level=st.floats(-150_000, 150_000),
    size=st.floats(1e-3, 50_000),
    lost=st.lists(st.integers(0, 1999), min_size=2, max_size=400, unique=True),
    wide=st.booleans(),
)
def test_fill_values_far_from_the_signal_are_missing(
    value: float, level: float, size: float, lost: list[int], wide: bool
) -> None:
    signal = pulse(level, size)
    x = signal.copy()
    x[lost] = value
    x = x.astype(np.float64 if wide else np.float32)
    cleared = without_fill(x)
    alone = abs(value - level) > 3.5 * size + 0.1  # of ± size: its own range away from its end
    beside = abs(value - level) < 2.5 * size
    if alone and (np.float32(size) + np.float32(level) != np.float32(level) or wide):
        assert np.isnan(cleared[lost]).all()
        assert np.isfinite(np.delete(cleared, lost)).all()
    if beside:
        assert cleared is x
    kept = np.isfinite(cleared)
    assert (cleared[kept] == x[kept]).all()


@settings(max_examples=40, deadline=None)
@given(
    limit=st.sampled_from([32767.0, -32768.0, 255.0, 65535.0, 8388607.0]),
    over=st.floats(1.01, 3.0),
)
def test_a_signal_that_is_clipped_there_keeps_its_samples(limit: float, over: float) -> None:
    wave = abs(limit) * over * np.sin(2 * np.pi * 1.2 * SECONDS)
    x = np.rint(np.minimum(wave, limit) if limit > 0 else np.maximum(wave, limit))
    assert without_fill(x) is x


@pytest.mark.parametrize(
    "x",
    [
        [999.0] * 50 + [980.0, 1010.0, 1003.0] * 20,  # a gravity of 999 mg
        [0.0] * 40 + list(np.linspace(150, 300, 80)),  # no power while the rider rests
        [5.0] * 60 + [-9999.0] * 3,  # nothing is known of a channel that stands still
        [-9999.0] * 30,
        [1.0, 2.0, -9999.0, 1.5, 1.2],  # one sample may be anything
        [],
    ],
)
def test_what_may_be_measured_is_left_alone(x: list[float]) -> None:
    values = np.array(x)
    assert without_fill(values) is values


@pytest.mark.parametrize("value", ["-9999", "-9999.0", "999999", "32767", "-32768"])
def test_a_table_says_it_and_has_gaps(tmp_path: Path, value: str) -> None:
    signal = pulse(0.0, 1.0)
    rows = [f"{x:.4f}" for x in signal]
    for at in (*range(500, 700), 1200, 1201):
        rows[at] = value
    path = tmp_path / "a.csv"
    path.write_text(
        "time,ppg\n" + "".join(f"{t:.2f},{x}\n" for t, x in zip(SECONDS, rows, strict=True))
    )
    (heading,) = table.headings(path, Settings())
    assert isinstance(heading, Heading)
    assert FINDING in heading.findings
    (samples,) = table.read(path, "", Settings()).samples
    assert np.isnan(samples[500:700]).all()
    assert np.isfinite(samples[:500]).all()
    prepared = prepare(tmp_path, ["a.csv"], {}, fs=50.0, leads=("PPG:*",))
    assert (prepared["gaps"] == [[250, 350]]).all()
    assert np.abs(prepared["x"]).max() < 3


def test_irregular_times_do_not_smear_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    times = SECONDS + rng.uniform(-0.004, 0.004, len(SECONDS))
    signal = pulse(0.0, 1.0)
    signal[800:1000] = -9999
    path = tmp_path / "camera.csv"
    path.write_text(
        "time,ppg\n" + "".join(f"{t:.4f},{x:.4f}\n" for t, x in zip(times, signal, strict=True))
    )
    (samples,) = table.read(path, "", Settings()).samples
    assert np.nanmin(samples) > -2
    assert np.isnan(samples).sum() >= 190


def test_a_binary_recording_says_it_when_it_is_prepared(tmp_path: Path) -> None:
    signal = np.rint(pulse(1000.0, 500.0))
    signal[900:1100] = -32768
    Edf([EdfSignal(signal, 100, label="PPG", physical_range=(-32768, 32767))]).write(
        tmp_path / "a.edf"
    )
    prepared = prepare(tmp_path, ["a.edf"], {}, fs=50.0, leads=("PPG:*",))
    assert FINDING in prepared["findings"]
    assert (prepared["gaps"] == [[450, 550]]).all()


def test_a_channel_at_its_limit_is_no_gap() -> None:
    """A camera's red channel, saturated by the lamp: 255 nearly always, 254.998 else."""
    x = np.full(2000, 255.0)
    x[::40] = 254.998
    x[::97] = 254.999
    assert without_fill(x) is x
