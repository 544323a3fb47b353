"""Hand-crafted features of windows: right on real recordings whose beats are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import signal as sp
from wfdb import rdann

from medcl_biosignals.aami import CLASS_OF
from medcl_biosignals.baselines import handcrafted
from medcl_biosignals.prepare import prepare
from medcl_biosignals.pulses import FEATURES, pulses

FS = 100.0


def feature(made: np.ndarray, name: str, channels: int) -> np.ndarray:
    """(B, C) of one feature."""
    return made.reshape(len(made), len(FEATURES), channels)[:, FEATURES.index(name)]


def windows(sample: Path, record: str, seconds: float = 20.0) -> tuple[np.ndarray, np.ndarray]:
    """Real windows (B, C, T), and the annotated intervals' mean of each."""
    made = prepare(sample, (f"{record}.hea", f"{record}.dat"), {}, fs=FS, dtype="float32")
    size = round(seconds * FS)
    count = made["x"].shape[1] // size
    x = made["x"][:, : count * size].reshape(len(made["x"]), count, size).transpose(1, 0, 2)
    marks = rdann(str(sample / record), "atr")
    position = marks.sample[[symbol in CLASS_OF for symbol in marks.symbol]] / 360
    starts = np.arange(count) * seconds
    inside = [position[(position >= s) & (position < s + seconds)] for s in starts]
    return x.astype(np.float32), np.array([np.diff(p).mean() for p in inside])


@pytest.mark.parametrize("record", ["101", "114", "122"])
def test_the_rate_is_that_of_the_annotations(sample: Path, record: str) -> None:
    x, interval = windows(sample, record)
    rate = np.exp(feature(pulses(x, FS), "rate", 2)[:, 0])
    assert np.median(np.abs(rate * interval - 1)) < 0.02
    assert np.mean(np.abs(rate * interval - 1) < 0.1) > 0.8


def test_ectopic_rhythm_is_more_variable_than_sinus_rhythm(sample: Path) -> None:
    regular, ectopic = (pulses(windows(sample, r)[0], FS) for r in ("122", "106"))
    for name in ("spread", "jitter", "uneven"):
        one, other = (np.median(feature(p, name, 2)[:, 0]) for p in (regular, ectopic))
        assert other > 1.5 * one


def test_the_pulse_rate_of_a_real_ppg_is_that_of_the_ecg(shared_data: Path) -> None:
    frame = pl.read_csv(shared_data / "ppg/bidmc_01_Signals.csv")
    names = {name.strip(): name for name in frame.columns}
    raw = np.stack([frame[names[n]].to_numpy() for n in ("PLETH", "II")])
    x = sp.sosfiltfilt(sp.butter(3, (0.5, 12), "bandpass", fs=125, output="sos"), raw)
    x = x[:, : 30 * 125 * 15].reshape(2, 15, -1).transpose(1, 0, 2).astype(np.float32)
    made = pulses(x, 125.0)
    rate = np.exp(feature(made, "rate", 2))
    assert np.median(np.abs(rate[:, 0] / rate[:, 1] - 1)) < 0.03
    rising = np.median(feature(made, "rising", 2)[:, 0])
    assert rising < 0.5  # a pulse rises faster than it falls


def test_any_window_gives_numbers() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6, 3, 40)).astype(np.float32)
    x[0], x[1, 1] = 0, 7.0
    made = handcrafted({"x": x, "fs": np.full(6, 64.0)})
    assert made.shape == (6, 20 * 3)
    assert np.isfinite(made).all()
    assert (pulses(x, 64.0)[0] == 0).all()


def test_scale_and_offset_do_not_matter(sample: Path) -> None:
    x, _ = windows(sample, "101")
    made = pulses(x, FS)
    np.testing.assert_allclose(pulses(5 * x, FS), made, rtol=1e-3, atol=1e-3)
