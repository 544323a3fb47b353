"""Quality tells a heart's signal from what is none, at any rate, amplitude, polarity and rhythm."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medcl_biosignals.filters import bandpass, resample
from medcl_biosignals.quality import block_quality

BANDS = {"ECG": (0.5, 40.0), "PPG": (0.5, 8.0)}
RATES = st.sampled_from([100, 125, 200, 250, 360, 500])
AMPLITUDES = st.floats(-6, 6).map(lambda exponent: 10.0**exponent)


def quality(raw: np.ndarray, fs: float, kind: str = "ECG", to: float = 125.0) -> np.ndarray:
    """Of one channel (N,), prepared as `medcl_biosignals.prepare` does."""
    x = (raw - np.median(raw)).astype(np.float32)[None]
    clean = resample(bandpass(x, float(fs), BANDS[kind]), float(fs), to)
    return block_quality(x, float(fs), clean, to, kind)[0]


def ecg(seconds: float, fs: float, rate: float, uneven: float = 0.0, seed: int = 0) -> np.ndarray:
    """Waves P to T as bumps; intervals differ by ``uneven`` of their mean, as in fibrillation."""
    random = np.random.default_rng(seed)
    rr = 60 / rate * (1 + uneven * random.uniform(-1, 1, round(seconds * rate / 60) + 3))
    beats = rr.cumsum() - 60 / rate
    t = np.arange(round(seconds * fs)) / fs
    x = 0.01 * random.normal(size=len(t))
    squeeze = min(1.0, 60 / rate)
    for height, late, width in (
        (0.12, -0.18, 0.025), (-0.12, -0.03, 0.01), (1.0, 0.0, 0.011), (-0.2, 0.03, 0.012),
        (0.3, 0.28, 0.05),
    ):  # fmt: skip
        at = beats[:, None] + late * squeeze
        x += height * np.exp(-((t - at) ** 2) / (2 * width**2)).sum(axis=0)
    return x


@settings(max_examples=25, deadline=None)
@given(
    RATES, AMPLITUDES, st.floats(40, 200), st.floats(0, 0.3), st.sampled_from([1, -1]),
    st.integers(0, 99),
)  # fmt: skip
def test_a_clean_ecg_is_good(
    fs: int, amplitude: float, rate: float, uneven: float, sign: int, seed: int
) -> None:
    found = quality(sign * amplitude * ecg(20, fs, rate, uneven, seed), fs)
    assert np.median(found) > 0.8
    assert found.min() > 0.5


@settings(max_examples=25, deadline=None)
@given(
    RATES, AMPLITUDES,
    st.sampled_from(["white", "pink", "16.7", "50", "60", "flat", "steps", "white and 50"]),
    st.integers(0, 99),
)  # fmt: skip
def test_what_is_no_ecg_is_bad(fs: int, amplitude: float, what: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    n = 30 * fs
    t = np.arange(n) / fs
    white = random.normal(size=n)
    if what == "flat":
        x = np.zeros(n)
    elif what == "steps":  # an open electrode: a few steps of the converter
        x = np.round(0.6 * white)
    elif what == "pink":
        f = np.fft.rfftfreq(n)
        x = np.fft.irfft(np.fft.rfft(white) / np.sqrt(np.maximum(f, f[1])), n)
    elif what.startswith("white"):
        x = white + (3 * np.sin(2 * np.pi * 50 * t) if "50" in what else 0)
    else:
        x = np.sin(2 * np.pi * float(what) * t + seed) + 1e-3 * white
    found = quality(amplitude * x, fs)
    assert np.median(found) < 0.1
    assert found.mean() < 0.2


@pytest.mark.parametrize("fs", [25, 64, 100])
def test_a_pulse_is_good_and_noise_is_none(fs: int) -> None:
    random = np.random.default_rng(fs)
    t = np.arange(40 * fs) / fs
    for rate in (45.0, 75.0, 120.0):
        at = np.arange(0, 41, 60 / rate)[:, None]
        x = np.exp(-((t - at) ** 2) / 0.016).sum(axis=0)
        x += 0.4 * np.exp(-((t - at - 0.3) ** 2) / 0.02).sum(axis=0)
        for sign in (1, -1):
            pulse = 1e5 + sign * 300 * x + random.normal(size=len(t))
            assert np.median(quality(pulse, fs, "PPG", float(fs))) > 0.8
    assert quality(random.normal(size=len(t)), fs, "PPG", float(fs)).mean() < 0.2


@pytest.mark.parametrize(("kind", "fs"), [("ECG", 250), ("PPG", 100)])
def test_one_spike_costs_its_window_alone(kind: str, fs: int) -> None:
    x = ecg(60, fs, 70) if kind == "ECG" else np.sin(2 * np.pi * 1.2 * np.arange(60 * fs) / fs) ** 3
    before = quality(x, fs, kind)
    x[round(32.5 * fs)] += 1e4 * x.std()
    after = quality(x, fs, kind)
    assert after[16] < 0.1, "the block of the spike, 32 to 34 s"
    far = np.ones(30, bool)
    far[12:21] = False  # the six seconds around it, and those beside, into which the filter rings
    np.testing.assert_allclose(after[far], before[far], atol=0.05)


def test_too_short_to_compare_has_the_parts_alone() -> None:
    assert quality(ecg(2, 250, 70), 250).min() == pytest.approx(1, abs=0.05)


def test_quality_by_name_still_selects(sample: Path) -> None:
    from medcl_biosignals.indices import INDICES, index
    from medcl_biosignals.prepare import prepare

    made = prepare(sample, ["101.hea", "101.dat"], {}, fs=100.0)
    for name in INDICES:
        assert index(made, name).shape == made["quality"].shape, name
