"""Pulses found in PPG: on synthetic waves, on a monitor against its ECG, on a camera against a
chest strap; and windows around them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from medcl.archive.index import Index, build
from medcl.archive.store import prepare as prepared
from medcl_biosignals.dataset import dataset
from medcl_biosignals.detect import pulse_peaks, r_peaks
from medcl_biosignals.plugin import plugin
from medcl_biosignals.prepare import prepare

FS = 100.0


def synthetic_pulse(seconds: float, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """A wave with a steep rise and a second, lower hump; and where its peaks are, in samples."""
    t = np.arange(round(seconds * FS)) / FS
    at = np.arange(0.5, seconds - 0.5, 60 / rate)
    wave = np.zeros(len(t))
    for height, late, width in ((1.0, 0.0, 0.09), (0.35, 0.3, 0.1)):
        wave += height * np.exp(-((t[:, None] - at - late) ** 2) / (2 * width**2)).sum(axis=1)
    return wave.astype(np.float32), np.rint(at * FS).astype(int)


@pytest.mark.parametrize("rate", [45.0, 75.0, 150.0])
def test_a_clean_pulse_is_found_beat_for_beat(rate: float) -> None:
    wave, at = synthetic_pulse(40.0, rate)
    found = pulse_peaks(wave[None], FS)
    assert abs(len(found) - len(at)) <= 2  # at the ends, where a filter has little to go by
    inside = found[(found > at[0] - 10) & (found < at[-1] + 10)]
    assert np.abs(inside[:, None] - at).min(axis=1).max() <= 3


def test_upside_down_it_is_the_same() -> None:
    wave, at = synthetic_pulse(40.0, 66.0)
    found = pulse_peaks(-wave[None], FS)
    assert np.abs(found[:, None] - at).min(axis=1).max() <= 3


def test_the_channel_that_repeats_itself_is_taken() -> None:
    wave, _ = synthetic_pulse(40.0, 66.0)
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 3, wave.shape).astype(np.float32)
    flat = np.zeros_like(wave)
    alone = pulse_peaks(wave[None], FS)
    np.testing.assert_array_equal(pulse_peaks(np.stack([noise, wave, flat]), FS), alone)


def test_an_artefact_does_not_hide_the_rest() -> None:
    wave, at = synthetic_pulse(120.0, 70.0)
    wave[1000:1200] += 60 * np.sin(np.arange(200) / 8)
    found = pulse_peaks(wave[None], FS)
    later = at[at > 4500]
    assert np.abs(later[:, None] - found).min(axis=1).max() <= 3


@pytest.mark.parametrize("x", [np.zeros((2, 1000)), np.ones((1, 50)), np.full((1, 1000), 7.0)])
def test_nothing_is_found_where_nothing_is(x: np.ndarray) -> None:
    assert len(pulse_peaks(x.astype(np.float32), FS)) == 0


def rate(at: np.ndarray) -> float:
    intervals = np.diff(at) / FS
    return float(60 / intervals[(intervals > 0.3) & (intervals < 2)].mean())


def test_a_monitor_s_pulses_fit_its_ecg(shared_data: Path) -> None:
    """BIDMC 01: a pulse for every R peak, late by the same time."""
    ppg = shared_data / "ppg"
    x = {
        lead: prepare(ppg, ["bidmc_01_Signals.csv"], {}, fs=FS, leads=(lead,)) for lead in
        ("II", "PLETH")
    }  # fmt: skip
    beats = r_peaks(x["II"]["x"].astype(np.float32), FS)
    np.testing.assert_allclose(x["II"]["beats"], beats, atol=1)  # stored with 11 bits
    pulses = x["PLETH"]["beats"]
    delayed = beats + 70
    near = np.abs(delayed[:, None] - pulses).min(axis=1) <= 15
    assert near.mean() > 0.97
    assert abs(rate(pulses) - rate(beats)) < 1.0


def test_a_camera_s_rate_is_the_chest_strap_s(shared_data: Path) -> None:
    """Welltory: 21 recordings of red, green and blue against RR intervals."""
    errors = []
    for folder in sorted((shared_data / "ppg" / "welltory").glob("subject_*")):
        rr = np.array((folder / "RR.txt").read_text().split(), float)
        made = prepare(folder, ["PPG.csv"], {}, fs=FS, channels=3)
        errors.append(abs(rate(made["beats"]) - 60_000 / rr.mean()))
    assert len(errors) == 21
    assert np.median(errors) < 0.8  # 0.51; by the slope's energy, as R peaks are found, 2.6
    assert np.mean(errors) < 3.5  # 2.90; 10.5
    assert sum(e <= 5 for e in errors) >= 18


def test_windows_by_beat_of_ppg(shared_data: Path, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    shutil.copy(shared_data / "ppg" / "bidmc_01_Signals.csv", archive / "bidmc_01_Signals.csv")
    (tmp_path / "key").write_text("a public recording: hides nothing")
    build(archive, tmp_path / "idx", plugin, key_file=tmp_path / "key")
    made = prepared(Index.open(tmp_path / "idx"), plugin, {"fs": 100.0, "leads": ("PLETH",)})
    samples = dataset(made.items, made.arrays, kind="beat", seconds=0.8)
    assert len(samples) > 700
    assert (np.asarray(samples.labels["aami"]) == -1).all()  # detected: of no class
    batch = samples.read(np.arange(0, len(samples), 7))
    assert batch["x"].shape[1:] == (1, 80)
    assert np.abs(batch["x"][:, 0].mean(axis=0).argmax() - 40) <= 2, "centred on systolic peaks"
    assert np.isfinite(batch["rr"]).all()
    first = pl.Series(samples.ids).str.split(":").list.last().cast(pl.Int64).to_numpy() / FS
    assert np.median(np.diff(first)) == pytest.approx(0.66, abs=0.02)  # 91 a minute
