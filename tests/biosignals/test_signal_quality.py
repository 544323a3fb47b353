"""The quality index: real recordings score high, the same recordings damaged score low."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medcl_biosignals.filters import bandpass, resample
from medcl_biosignals.prepare import read_signal
from medcl_biosignals.quality import block_quality, clip_share, flat_share, kurtosis, skewness


@pytest.fixture(scope="module")
def raw() -> np.ndarray:
    root = Path(__file__).parents[2] / "plugins/medcl_biosignals/sample"
    x, _, rate = read_signal(root / "101.hea")
    assert rate == 360
    return x[:1, : 360 * 120]


def quality(raw: np.ndarray) -> np.ndarray:
    clean = resample(bandpass(np.nan_to_num(raw), 360.0, (0.5, 40.0)), 360.0, 100.0)
    return block_quality(raw, 360.0, clean, 100.0)


def test_a_clean_recording_is_good(raw: np.ndarray) -> None:
    assert quality(raw).shape == (1, 60)
    assert np.median(quality(raw)) > 0.9


def damage(raw: np.ndarray, how: str) -> np.ndarray:
    """Seconds 40 to 80, blocks 20 to 40, made bad."""
    bad, here = raw.copy(), slice(360 * 40, 360 * 80)
    random = np.random.default_rng(0)
    part = bad[:, here]
    if how == "flat":
        bad[:, here] = part[:, :1]
    elif how == "missing":
        bad[:, here] = np.nan
    elif how == "clipped":
        top, bottom = np.percentile(part, [70, 30])
        bad[:, here] = np.clip(part, bottom, top)
        bad[:, :] = np.clip(bad, bottom, top)
    elif how == "noise":
        bad[:, here] = part + random.normal(0, 5 * part.std(), part.shape)
    elif how == "hum":
        bad[:, here] = part + 3 * np.sin(2 * np.pi * 20 * np.arange(part.shape[1]) / 360)
    return bad


@pytest.mark.parametrize("how", ["flat", "missing", "clipped", "noise", "hum"])
def test_damage_lowers_it_where_it_is(raw: np.ndarray, how: str) -> None:
    before, after = quality(raw), quality(damage(raw, how))
    assert after[:, 21:39].mean() < 0.8 * before[:, 21:39].mean()
    if how in ("flat", "missing"):
        assert after[:, 21:39].max() == 0
    if how != "clipped":
        np.testing.assert_allclose(after[:, :18], before[:, :18], atol=0.02)


def test_moments_are_those_of_scipy() -> None:
    from scipy import stats

    x = np.random.default_rng(0).gamma(2.0, size=(3, 4, 500))
    np.testing.assert_allclose(kurtosis(x), stats.kurtosis(x, axis=-1, fisher=False))
    np.testing.assert_allclose(skewness(x), stats.skew(x, axis=-1))
    assert kurtosis(np.ones((2, 50))).tolist() == [0, 0]


def test_shares() -> None:
    x = np.random.default_rng(0).normal(size=(1, 1, 200))
    assert flat_share(x).item() == 0
    x[..., 100:] = 1.0
    assert flat_share(x).item() == pytest.approx(0.5, abs=0.05)
    clipped = np.clip(np.sin(np.linspace(0, 40, 1000)), -0.5, 0.5)[None]
    assert clip_share(clipped[:, None], clipped).item() > 0.5
    free = np.sin(np.linspace(0, 40, 1000))[None]
    assert clip_share(free[:, None], free).item() < 0.01
