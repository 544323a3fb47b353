"""Preparing recordings: the samples are wfdb's, positions stay put, gaps stay gaps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import wfdb

from medcl.errors import MedclError
from medcl.plugin import Record, Reject
from medcl_biosignals.detect import r_peaks
from medcl_biosignals.filters import bandpass, resample
from medcl_biosignals.prepare import prepare, read_signal

Copy = Callable[..., Path]
Scan = Callable[[Path], list[Record | Reject]]


def only(rows: list[Record | Reject]) -> Record:
    (row,) = rows
    assert isinstance(row, Record), row
    return row


@pytest.mark.slow
@pytest.mark.shared_data
def test_samples_are_those_of_wfdb(ecg: Path) -> None:
    for header in sorted(ecg.rglob("*.hea")):
        if header.stem == "03700181":  # several rates: see test_wfdb_formats.py
            continue
        ours, names, rate = read_signal(header)
        theirs = wfdb.rdrecord(str(header.with_suffix("")))
        assert names == theirs.sig_name
        assert rate == theirs.fs
        np.testing.assert_allclose(ours.T, theirs.p_signal, rtol=2e-6, atol=2e-6)


@pytest.mark.slow
@pytest.mark.shared_data
def test_every_real_record_can_be_prepared(ecg: Path, scan: Scan) -> None:
    for row in scan(ecg):
        assert isinstance(row, Record)
        arrays = prepare(ecg, row.files, row.fields, fs=100.0)
        assert arrays["x"].shape == (2, round(float(row.fields["seconds"]) * 100))  # type: ignore[arg-type]
        assert np.isfinite(arrays["x"]).all()
        assert arrays["quality"].min() >= 0
        assert arrays["quality"].max() <= 1
        assert (np.diff(arrays["beats"]) > 0).all()


def test_beats_stay_on_their_peaks_at_another_rate(sample: Path) -> None:
    files = ("106.hea", "106.dat", "106.atr")
    arrays = prepare(sample, files, {}, fs=100.0, leads=("MLII",), dtype="float32")
    x, beats = arrays["x"][0], arrays["beats"]
    marks = wfdb.rdann(str(sample / "106"), "atr")
    beat = np.isin(marks.symbol, list("NV"))
    np.testing.assert_allclose(beats / 100, marks.sample[beat] / 360, atol=0.005)
    assert (arrays["aami"] == np.where(np.array(marks.symbol)[beat] == "N", 0, 2)).all()
    around = np.abs(x[np.clip(beats[:, None] + np.arange(-40, 41), 0, len(x) - 1)])
    assert abs(np.median(around.argmax(axis=1) - 40)) <= 2  # within 20 ms of the largest deflection


def test_the_band_is_kept_and_the_rest_is_not() -> None:
    fs, seconds = 360.0, 20
    t = np.arange(int(fs * seconds)) / fs
    waves = np.stack([np.sin(2 * np.pi * f * t) for f in (0.05, 5.0, 20.0, 100.0)]).astype("f4")
    out = resample(bandpass(waves, fs, (0.5, 40.0)), fs, 100.0)
    middle = out[:, 500:1500]
    kept = middle.std(axis=1) * np.sqrt(2)
    assert kept[0] < 0.02  # baseline wander
    assert kept[1] == pytest.approx(1, abs=0.02)
    assert kept[2] == pytest.approx(1, abs=0.05)
    assert kept[3] < 0.02  # would alias to 0 Hz at 100 Hz
    at = np.arange(500, 1500) / 100
    assert np.corrcoef(middle[1], np.sin(2 * np.pi * 5 * at))[0, 1] > 0.999  # zero phase


def with_gap(root: Path, first: int, last: int, channels: slice) -> None:
    """Record 101 with a stretch of the format's code for a missing sample."""
    record = wfdb.rdrecord(str(root / "101"), physical=False)
    digital = record.d_signal.astype(np.int64)
    digital[first:last, channels] = -32768
    wfdb.wrsamp(
        "101",
        fs=360,
        units=record.units,
        sig_name=record.sig_name,
        d_signal=digital,
        fmt=["16", "16"],
        adc_gain=record.adc_gain,
        baseline=record.baseline,
        write_dir=str(root),
    )


def test_a_gap_is_bridged_marked_and_worth_nothing(copy: Copy, scan: Scan) -> None:
    root = copy("101")
    whole = prepare(root, only(scan(root)).files, {}, fs=100.0, dtype="float32")
    with_gap(root, 36_000, 43_200, slice(None))  # seconds 100 to 120
    arrays = prepare(root, only(scan(root)).files, {}, fs=100.0, dtype="float32")
    np.testing.assert_allclose(arrays["gaps"], [[10_000, 12_000]], atol=1)
    assert np.isfinite(arrays["x"]).all()
    assert (arrays["x"][:, 10_000:12_000] == 0).all()
    np.testing.assert_allclose(arrays["x"][:, :9_500], whole["x"][:, :9_500], atol=0.01)
    assert arrays["quality"][:, 50:60].max() == 0
    assert arrays["quality"][:, :50].mean() > 0.5


def test_one_lost_lead_is_no_gap(copy: Copy, scan: Scan) -> None:
    root = copy("101")
    with_gap(root, 36_000, 43_200, slice(1, 2))
    arrays = prepare(root, only(scan(root)).files, {}, fs=100.0)
    assert arrays["gaps"].shape == (0, 2)
    assert (arrays["x"][1, 10_000:12_000] == 0).all()
    assert arrays["quality"][1, 50:60].max() == 0
    assert arrays["quality"][0, 50:60].mean() > 0.5


def test_leads_go_to_their_places(sample: Path) -> None:
    files = ("114.hea", "114.dat", "114.atr")  # this one has V5 first and MLII second
    asis = prepare(sample, files, {}, dtype="float32")
    named = prepare(sample, files, {}, leads=("MLII|II", "V1|V5", "V6"), dtype="float32")
    np.testing.assert_array_equal(named["x"][:2], asis["x"][::-1])
    assert named["present"].tolist() == [True, True, False]
    assert (named["x"][2] == 0).all()
    with pytest.raises(MedclError, match=r"114\.hea.*V6"):
        prepare(sample, files, {}, leads=("V6",))


def test_half_the_space_is_close(sample: Path) -> None:
    files = ("208.hea", "208.dat", "208.atr")
    fine, half = (prepare(sample, files, {}, dtype=d) for d in ("float32", "int16"))
    assert half["x"].dtype == np.int16
    error = np.abs(fine["x"] - half["x"] * half["gain"][:, None]).max(axis=1)
    assert (error < 1e-3 * fine["x"].std(axis=1)).all()


@pytest.mark.parametrize("name", ["101", "106", "115", "208", "230"])
def test_detected_beats_are_the_annotated_ones(sample: Path, name: str) -> None:
    files = tuple(f"{name}{suffix}" for suffix in (".hea", ".dat", ".atr"))
    arrays = prepare(sample, files, {}, fs=125.0, dtype="float32")
    found, truth = r_peaks(arrays["x"], 125.0), arrays["beats"]
    distance = np.abs(found[:, None] - truth[None])
    sensitivity = (distance.min(axis=0) <= 0.15 * 125).mean()
    precision = (distance.min(axis=1) <= 0.15 * 125).mean()
    assert sensitivity > 0.97
    assert precision > 0.95


def test_no_beats_in_a_flat_line() -> None:
    assert len(r_peaks(np.zeros((2, 1000), dtype=np.float32), 100.0)) == 0
    assert len(r_peaks(np.zeros((2, 3), dtype=np.float32), 100.0)) == 0
