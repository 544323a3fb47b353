"""Gaps are found first, and nothing of them gets into what is beside them. Signals are real."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import polars as pl
import pytest

from medcl.errors import MedclError, UsageError
from medcl.plugin import FileStat, Record
from medcl_biosignals.dataset import dataset
from medcl_biosignals.filters import bandpass, clean, notched, resample
from medcl_biosignals.gaps import WHY, lost, runs
from medcl_biosignals.indices import INDICES, index
from medcl_biosignals.plugin import plugin
from medcl_biosignals.prepare import prepare
from medcl_biosignals.readers.contract import Settings
from medcl_biosignals.readers.wfdb_record import read

FS = 360.0
SAMPLE = Path(__file__).parents[2] / "plugins/medcl_biosignals/sample"


@pytest.fixture(scope="module")
def lead() -> np.ndarray:
    """Two minutes of MIT-BIH 101, MLII, in mV."""
    return read(SAMPLE / "101.hea", "", Settings(), (0.0, 120.0)).samples[0]


def why_of(x: np.ndarray, fs: float = FS) -> np.ndarray:
    return lost(x, fs, flat=3.0, clip=1.0, bridge=0.1)


def test_what_is_lost_and_why(lead: np.ndarray) -> None:
    assert not why_of(lead).any()
    x = lead.copy()
    x[1000:1020] = np.nan  # 56 ms: to be bridged
    x[5000:9000] = np.nan
    x[9200:12_000] = np.nan  # 0.6 s of signal between two gaps
    x[15_000:17_000] = x[15_000]  # no sensor for 5.6 s
    x[20_000:20_500] = np.nanmax(x) + 0.5  # at the limit for 1.4 s
    x[30_000:30_200] = x[30_000]  # flat for 0.6 s only
    found = {WHY[code]: runs(why_of(x) == code).tolist() for code in range(1, 5)}
    assert found == {
        "missing": [[5000, 9000], [9200, 12_000]],
        "flat": [[15_000, 17_000]],
        "clipped": [[20_000, 20_500]],
        "fragment": [[9000, 9200]],
    }
    quiet = lost(x, FS, flat=None, clip=None, bridge=0.1)
    assert set(np.unique(quiet)) == {0, 1, 4}
    assert (why_of(np.full(100, np.nan)) == 1).all()


@pytest.mark.parametrize("to", [100.0, 125.0, 360.0, 250.0, 117.3])
def test_no_filter_runs_over_a_gap(lead: np.ndarray, to: float) -> None:
    """What lies in a gap, or beyond it, changes nothing: each stretch is filtered by itself."""
    x, band = lead.copy(), (0.5, 40.0)
    why = np.zeros(len(x), dtype=np.uint8)
    why[14_000:18_001] = 1
    x[why > 0] = 0
    out = clean(x, why, FS, to, band, None)
    wild = x.copy()
    wild[14_000:18_001] = 1e6
    np.testing.assert_array_equal(out, clean(wild, why, FS, to, band, None))
    wild[18_001:] *= -50
    np.testing.assert_array_equal(
        out[: int(14_000 * to / FS)], clean(wild, why, FS, to, band, None)[: int(14_000 * to / FS)]
    )
    # Both stretches are where they would be, and what they would be, without the gap.
    whole = resample(bandpass(lead, FS, band), FS, to)
    assert len(out) == len(whole)
    far = round(2.5 * to)  # the filter's own edge effects die out
    for first, last in ((0, 14_000), (18_001, len(x))):
        inner = slice(int(first * to / FS) + far, int(last * to / FS) - far)
        np.testing.assert_allclose(out[inner], whole[inner], atol=0.02)
        assert np.corrcoef(out[inner], whole[inner])[0, 1] > 0.999
    middle = slice(int(14_000 * to / FS) + 1, int(18_001 * to / FS))
    assert (out[middle] == 0).all()


def test_the_mains_are_taken_out(lead: np.ndarray) -> None:
    t = np.arange(len(lead)) / FS
    hum = lead + 0.3 * np.sin(2 * np.pi * 50 * t) + 0.1 * np.sin(2 * np.pi * 100 * t)
    rest = notched(hum, FS, 50.0)
    inner = slice(720, -720)
    power = np.abs(np.fft.rfft(rest[inner])) ** 2
    before = np.abs(np.fft.rfft(hum[inner])) ** 2
    frequency = np.fft.rfftfreq(len(rest[inner]), 1 / FS)
    for mains in (50, 100):
        near = np.abs(frequency - mains) < 0.2
        assert power[near].sum() < 1e-3 * before[near].sum()
    assert np.corrcoef(rest[inner], lead[inner])[0, 1] > 0.99
    with pytest.raises(MedclError, match="50 or 60"):
        notched(lead, FS, 0.0)


def archive(root: Path, lines: dict[str, tuple[np.ndarray, str]], fs: float = FS) -> Record:
    """A recording of these channels (name → samples, unit)."""
    with h5py.File(root / "rec.h5", "w") as file:
        file.attrs["fs"] = fs
        for name, (x, unit) in lines.items():
            file[name] = x
            file[name].attrs["units"] = unit
    stat = FileStat("rec.h5", (root / "rec.h5").stat().st_size, 0)
    (row,) = [row for unit in plugin.units([stat]) for row in plugin.scan(root, unit)]
    assert isinstance(row, Record), row
    return row


def test_each_kind_has_its_band(tmp_path: Path, lead: np.ndarray) -> None:
    """Synthetic waves of 0.1, 3 and 15 Hz in channels of four kinds: each keeps its own."""
    t = np.arange(len(lead)) / FS
    waves = [np.sin(2 * np.pi * f * t) for f in (0.1, 3.0, 15.0)]
    x = 80 + sum(waves)
    names = {"II": "mV", "PLETH": "NU", "RESP": "NU", "ABP": "mmHg", "HR": "bpm", "EMG": "uV"}
    row = archive(tmp_path, {name: (x, unit) for name, unit in names.items()})
    leads = tuple(names)
    arrays = prepare(tmp_path, row.files, row.fields, fs=FS, leads=leads, dtype="float32")
    assert arrays["kinds"].tolist() == [b"ECG", b"PPG", b"RESP", b"pressure", b"numeric", b"EMG"]
    inner = slice(7200, -7200)
    basis = np.stack([np.ones_like(t), *waves])[:, inner]
    parts = np.linalg.lstsq(basis.T, arrays["x"][:, inner].T, rcond=None)[0].T.round(1)
    assert parts.tolist() == [
        [0, 0, 1, 1],  # ECG: 0.5 to 40 Hz
        [0, 0, 1, 0],  # PPG: 0.5 to 8 Hz
        [0, 1, 0, 0],  # RESP: 0.05 to 1 Hz
        [80, 1, 1, 0.9],  # pressure: below 20 Hz, with its level
        [80, 1, 1, 1],  # a measured value: as it is
        [0, 0, 0, 0.1],  # EMG: above 20 Hz
    ]
    own = prepare(
        tmp_path,
        row.files,
        row.fields,
        fs=FS,
        leads=("II",),
        band={"ECG": (1.0, 8.0)},
        dtype="float32",
    )
    parts = np.linalg.lstsq(basis.T, own["x"][:, inner].T, rcond=None)[0].T.round(1)
    assert parts.tolist() == [[0, 0, 1, 0]]


def test_gaps_of_single_channels_are_told_apart(tmp_path: Path, lead: np.ndarray) -> None:
    one, two = lead.copy(), lead.copy()
    one[7200:14_400] = np.nan
    two[10_800:18_000] = two[10_800]
    row = archive(tmp_path, {"II": (one, "mV"), "V1": (two, "mV"), "V5": (lead * np.nan, "mV")})
    arrays = prepare(tmp_path, row.files, row.fields, fs=100.0, leads=("II", "V1", "V5"))
    assert arrays["present"].tolist() == [True, True, False]
    np.testing.assert_allclose(arrays["gaps"], [[3000, 4000]], atol=1)
    expected = [[0, 2000, 4000, 1], [1, 3000, 5000, 2]]
    np.testing.assert_allclose(arrays["lost"], expected, atol=1)
    items = pl.DataFrame({"id": ["a"], "patient": ["p"]})
    some = dataset(items, {"a": arrays}.__getitem__, seconds=5.0, stride=5.0)
    whole = dataset(items, {"a": arrays}.__getitem__, seconds=5.0, stride=5.0, complete=True)
    starts = [[int(name.split(":")[1]) for name in samples.ids] for samples in (some, whole)]
    # A new sample that covers part of a gap belongs to it, hence the windows that end at 4000.
    assert set(range(0, 12_000, 500)) - set(starts[0]) <= {3000, 3500, 4000, 2500}
    assert {3000, 3500} <= set(range(0, 12_000, 500)) - set(starts[0])
    assert {2000, 2500, 3000, 3500, 4000, 4500} <= set(range(0, 12_000, 500)) - set(starts[1])
    assert {0, 500, 1000, 6000, 11_000} <= set(starts[1])


def test_nothing_but_nan(tmp_path: Path, lead: np.ndarray) -> None:
    row = archive(tmp_path, {"II": (lead * np.nan, "mV")})
    with pytest.raises(MedclError, match="no valid sample"):
        prepare(tmp_path, row.files, row.fields)


# --- indices --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory, lead: np.ndarray) -> dict[str, np.ndarray]:
    """101 with noise in seconds 40 to 80, and a clean copy beside it."""
    root = tmp_path_factory.mktemp("damaged")
    random = np.random.default_rng(0)
    noisy = lead.copy()
    here = slice(round(40 * FS), round(80 * FS))
    noisy[here] += random.normal(0, 4 * lead.std(), len(noisy[here]))
    row = archive(root, {"II": (lead, "mV"), "V1": (noisy, "mV")})
    return prepare(root, row.files, row.fields, fs=100.0, dtype="float32")


@pytest.mark.parametrize("name", INDICES)
def test_every_index(damaged: dict[str, np.ndarray], name: str) -> None:
    values = index(damaged, name)
    assert values.shape == (2, 60)
    assert np.isfinite(values).all()
    clean_lead, noisy_lead = values[0, 21:39].mean(), values[1, 21:39].mean()
    if name in ("quality", "kurtosis", "spectral", "template"):
        assert noisy_lead < 0.8 * clean_lead
    np.testing.assert_allclose(values[1, :18], values[0, :18], rtol=0.2, atol=0.1)


def test_beats_are_like_their_neighbours_unless_they_are_ectopic() -> None:
    files = tuple(f"119{suffix}" for suffix in (".hea", ".dat", ".atr"))
    arrays = prepare(SAMPLE, files, {}, fs=100.0)
    values = index(arrays, "template")[0]
    block = (arrays["beats"] / 200).astype(int)
    ectopic = np.zeros(len(values), dtype=bool)
    ectopic[block[arrays["aami"] == 2]] = True
    assert np.median(values[~ectopic]) > 0.9
    assert np.median(values[ectopic]) < 0.8 * np.median(values[~ectopic])


def test_windows_by_any_index(damaged: dict[str, np.ndarray]) -> None:
    items = pl.DataFrame({"id": ["a"], "patient": ["p"]})
    arrays = {"a": damaged}.__getitem__
    every = dataset(items, arrays, seconds=10.0, stride=10.0)
    good = dataset(items, arrays, seconds=10.0, stride=10.0, minimum={"template": 0.85})
    lost_windows = {int(i.split(":")[1]) // 1000 for i in set(every.ids) - set(good.ids)}
    assert lost_windows == {4, 5, 6, 7}
    with pytest.raises(UsageError, match="'templat'"):
        dataset(items, arrays, minimum={"templat": 0.5})
    with pytest.raises(MedclError, match="too strict"):
        dataset(items, arrays, minimum={"template": 1.1})


# --- scales and rhythms ---------------------------------------------------------------------------


def test_scales(damaged: dict[str, np.ndarray]) -> None:
    items = pl.DataFrame({"id": ["a"], "patient": ["p"]})

    def batch(scale: Any) -> np.ndarray:
        samples = dataset(items, {"a": damaged}.__getitem__, seconds=10.0, stride=10.0, scale=scale)
        return samples.read(np.arange(len(samples)))["x"]

    asis = batch("none")
    np.testing.assert_array_equal(asis[1], damaged["x"][:, 1000:2000])
    robust = batch("robust")
    np.testing.assert_allclose(np.median(robust, axis=-1), 0, atol=1e-3)
    np.testing.assert_allclose(1.4826 * np.median(np.abs(robust), axis=-1), 1, atol=1e-3)
    np.testing.assert_allclose(batch("window").std(axis=-1), 1, atol=1e-3)


def test_rhythm_labels(damaged: dict[str, np.ndarray]) -> None:
    """Marks written for the test (synthetic): the bundled annotations carry none."""
    from medcl_biosignals.spans import Span
    from medcl_biosignals.spans import arrays as arrays_of

    marks = [(0.0, 55.0, "N"), (30.0, 55.0, "N"), (55.0, 90.0, "AFIB"), (90.0, 120.0, "other")]
    made = arrays_of([Span(a, b, "rhythm", name) for a, b, name in marks], 100.0, 12_000)
    items = pl.DataFrame({"id": ["a"], "patient": ["p"]})
    arrays = {"a": {**damaged, **made}}.__getitem__
    samples = dataset(items, arrays, seconds=10.0, stride=10.0)
    assert samples.labels["rhythm"].tolist() == [0, 0, 0, 0, 0, -1, 1, 1, 1, -1, -1, -1]
    assert "rhythm" not in dataset(items, {"a": damaged}.__getitem__).labels
    with pytest.raises(UsageError, match="'AF'"):
        dataset(items, arrays, rhythms=("N", "AF"))
