"""Hand-crafted features of windows: right on real recordings whose beats are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import signal as sp
from wfdb import rdann

from medcl_biosignals.aami import CLASS_OF
from medcl_biosignals.baselines import handcrafted, names
from medcl_biosignals.irregularity import FEATURES as RHYTHM
from medcl_biosignals.irregularity import irregularity
from medcl_biosignals.median_beat import median_beat
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
    regular, ectopic = (pulses(windows(sample, r)[0], FS) for r in ("122", "119"))
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
    assert made.shape == (6, len(names(3)))
    assert np.isfinite(made).all()
    assert (pulses(x, 64.0)[0] == 0).all()


def test_scale_and_offset_do_not_matter(sample: Path) -> None:
    x, _ = windows(sample, "101")
    made = pulses(x, FS)
    np.testing.assert_allclose(pulses(5 * x, FS), made, rtol=1e-3, atol=1e-3)


def beats_of(rr: np.ndarray, fs: float, *, r: float = 1.2, t: float = 0.3) -> dict[str, np.ndarray]:
    """A window of Gaussian waves: P 0.1 mV at −0.16 s, R, S −0.4 mV, T at +0.28 s; lead 1: half."""
    at = 0.5 + np.concatenate([[0.0], np.cumsum(rr)])
    time = np.arange(round((at[-1] + 0.7) * fs)) / fs
    waves = ((-0.16, 0.1, 0.02), (0.0, r, 0.012), (0.04, -0.4, 0.012), (0.28, t, 0.04))
    signal = sum(a * np.exp(-0.5 * ((time - b - lag) / w) ** 2) for b in at for lag, a, w in waves)
    peaks = np.full((1, 64), -1)
    peaks[0, : len(at)] = np.round(at * fs)
    between = np.zeros((1, 96))
    between[0, : len(rr)] = rr
    x = np.stack([signal, 0.5 * signal])[None].astype(np.float32)
    return {"x": x, "fs": np.array([fs]), "peaks": peaks, "intervals": between}


@pytest.mark.parametrize("fs", [100.0, 128.0, 250.0, 500.0])
def test_waves_of_the_median_beat_are_measured_at_any_rate(fs: float) -> None:
    made = dict(zip(names(2), handcrafted(beats_of(np.full(9, 0.8), fs))[0], strict=True))
    assert made["r.0"] == pytest.approx(np.sqrt(1.2), abs=0.04)
    assert made["r.1"] == pytest.approx(np.sqrt(0.6), abs=0.04)
    assert made["s.0"] == pytest.approx(-np.sqrt(0.4), abs=0.06)
    assert made["p.0"] == pytest.approx(np.sqrt(0.1), abs=0.03)
    assert made["t.0"] == pytest.approx(np.sqrt(0.3), abs=0.03)
    assert made["pr"] == pytest.approx(0.13, abs=0.04)
    assert 0.04 < made["qrs"] < 0.12
    assert 0.3 < made["qt"] < 0.45
    assert made["alike"] > 0.99
    assert made["rr"] == pytest.approx(np.log(0.8), abs=1e-4)
    assert made["sdnn"] == pytest.approx(0, abs=1e-5)


def test_an_irregular_rhythm_has_more_entropy_than_bigeminy_and_a_regular_one() -> None:
    rng = np.random.default_rng(0)
    rhythms = (
        np.clip(rng.normal(0.7, 0.15, 40), 0.3, 1.5),
        np.tile([0.5, 1.0], 20) + rng.normal(0, 0.005, 40),
        0.8 + 0.01 * np.sin(np.arange(40)),
    )
    made = irregularity(np.stack(rhythms))
    fibrillation, bigeminy, regular = (dict(zip(RHYTHM, row, strict=True)) for row in made)
    for name in ("entropy", "cosen", "differences"):
        assert fibrillation[name] > bigeminy[name] > regular[name]
    assert bigeminy["second"] > 0.9 > -0.9 > bigeminy["memory"]
    assert regular["uneven"] == regular["pnn50"] == 0
    assert made.shape == (3, len(RHYTHM))


def test_too_few_or_impossible_intervals_measure_nothing() -> None:
    rr = np.array([[0.8, 0.9, 0.0, 0.0], [5.0, 0.01, 8.0, 0.0]])
    assert (irregularity(rr) == 0).all()


def test_noise_without_beats_is_all_zero_in_the_median_beat() -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 1000))
    assert (median_beat(x, 100.0, np.full((2, 5), -1)) == 0).all()
