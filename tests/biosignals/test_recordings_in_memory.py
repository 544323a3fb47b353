"""Recordings in Python objects: predicted and embedded as the file with the same content is."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
import wfdb
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import medcl
from medcl import recipe as recipes
from medcl.archive.index import build
from medcl.engine.pretrain import pretrain
from medcl.errors import MedclError, UsageError
from medcl.run import Run
from medcl_biosignals.in_memory import save
from medcl_biosignals.plugin import plugin
from medcl_biosignals.readers.choose import read
from medcl_biosignals.readers.contract import Recording, Settings

mne = pytest.importorskip("mne")
xr = pytest.importorskip("xarray")

FS = 360.0
TINY = [
    "encoder={name: resnet1d, channels: 2, widths: [8, 16], blocks: 1, stride: 4}",
    "trainer={steps: 2, batch_size: 16}",
    "prepare.fs=100", "views.fs=100", "dataset.seconds=4", "dataset.stride=4", "dataset.quality=0",
    "monitor={every: 100, samples: 32}",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("objects")
    (root / "archive").mkdir()
    for name in ("106", "114", "118", "207"):
        for file in sample.glob(f"{name}.*"):
            shutil.copy(file, root / "archive" / file.name)
    build(root / "archive", root / "index", plugin)
    return pretrain(recipes.load("simclr-ecg", TINY), root / "index", root / "run")


@pytest.fixture(scope="module")
def ecg(sample: Path) -> np.ndarray:
    """Thirty seconds of MIT-BIH 101 in mV, (2, 10800)."""
    return np.ascontiguousarray(wfdb.rdrecord(str(sample / "101"), sampto=10800).p_signal.T)


def as_raw(ecg: np.ndarray) -> Any:
    info = mne.create_info(["MLII", "V1"], FS, "ecg")
    return mne.io.RawArray(ecg / 1e3, info, verbose="error")


def as_frame(ecg: np.ndarray) -> pd.DataFrame:
    times = pd.to_timedelta(np.arange(ecg.shape[1]) / FS, unit="s")
    return pd.DataFrame(ecg.T, index=times, columns=["MLII (mV)", "V1 (mV)"])


def as_counted(ecg: np.ndarray) -> pd.DataFrame:
    frame = pd.DataFrame(ecg.T, columns=["MLII", "V1"])
    frame.attrs = {"fs": FS, "units": {"MLII": "mV", "V1": "mV"}}
    return frame


def as_polars(ecg: np.ndarray) -> pl.DataFrame:
    times = np.arange(ecg.shape[1]) / FS
    return pl.DataFrame({"time [s]": times, "MLII [mV]": ecg[0], "V1 [mV]": ecg[1]})


def as_array(ecg: np.ndarray) -> Any:
    return xr.DataArray(
        ecg * 1e3,
        dims=("lead", "time"),
        coords={"lead": ["MLII", "V1"], "time": np.arange(ecg.shape[1]) / FS},
        attrs={"units": "uV"},
    )


def as_dataset(ecg: np.ndarray) -> Any:
    start = np.datetime64("2020-03-01T08:00:00", "ns")
    times = start + (np.arange(ecg.shape[1]) * 1e9 / FS).astype("timedelta64[ns]")
    return xr.Dataset(
        {
            "MLII": ("time", ecg[0], {"units": "mV"}),
            "V1": ("time", ecg[1], {"units": "mV"}),
        },
        coords={"time": times},
    )


OBJECTS = [as_raw, as_frame, as_counted, as_polars, as_array, as_dataset]


def written(ecg: np.ndarray, path: Path) -> Path:
    """The same as a file that has nothing to do with these objects."""
    import edfio

    signals = [
        edfio.EdfSignal(row, FS, label=f"ECG {name}", physical_dimension="mV",
                        physical_range=(-5.12, 5.115))
        for row, name in zip(ecg, ("MLII", "V1"), strict=True)
    ]  # fmt: skip
    edfio.Edf(signals).write(path)
    return path


@pytest.fixture(scope="module")
def by_file(run: Run, ecg: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    """The predictions for the same recording in a file."""
    root = tmp_path_factory.mktemp("file")
    medcl.predict(run, written(ecg, root / "a.edf"), root / "file.parquet", workers=1)
    return pl.read_parquet(root / "file.parquet")


@pytest.mark.slow
@pytest.mark.parametrize("made", OBJECTS)
def test_an_object_is_predicted_as_the_file_is(
    run: Run,
    ecg: np.ndarray,
    by_file: pl.DataFrame,
    tmp_path: Path,
    made: Callable[[np.ndarray], Any],
) -> None:
    done = medcl.predict(run, made(ecg), tmp_path / "object.parquet", workers=1)
    assert done.records == 1
    by_object = pl.read_parquet(tmp_path / "object.parquet")
    assert by_object["start"].to_list() == by_file["start"].to_list()
    x, y = (np.stack(table["embedding"].to_list()) for table in (by_object, by_file))
    assert np.abs(y).max() > 0
    np.testing.assert_allclose(x, y, atol=2e-3 * np.abs(y).max())  # steps of the file's 16 bits


@pytest.mark.slow
def test_an_object_is_predicted_as_its_own_file_exactly(
    run: Run, ecg: np.ndarray, tmp_path: Path
) -> None:
    as_raw(ecg).save(tmp_path / "a_raw.fif", fmt="double", verbose="error")
    medcl.predict(run, tmp_path / "a_raw.fif", tmp_path / "file.parquet", workers=1)
    medcl.predict(run, as_raw(ecg), tmp_path / "object.parquet", workers=1)
    tables = [pl.read_parquet(tmp_path / f"{name}.parquet") for name in ("file", "object")]
    kept = [table.select("start", "embedding") for table in tables]
    assert kept[0].equals(kept[1])


@pytest.mark.slow
def test_objects_are_embedded_and_lie_in_no_folder_afterwards(
    run: Run, ecg: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    both = medcl.embed(run, [as_raw(ecg), as_frame(ecg)])
    assert len(both.x) == 7 + 7
    assert len(set(both.patients)) == 2
    np.testing.assert_allclose(both.x[:7], both.x[7:], atol=2e-3 * np.abs(both.x).max())
    assert not list(tmp_path.iterdir())
    alone = medcl.embed(run, as_raw(ecg))
    np.testing.assert_allclose(alone.x, both.x[:7], atol=2e-3 * np.abs(both.x).max())


def test_samples_in_memory_are_samples_still(run: Run) -> None:
    windows = np.random.default_rng(0).normal(size=(3, 2, 400)).astype(np.float32)
    assert len(medcl.embed(run, windows).x) == 3
    assert len(medcl.embed(run, torch.utils.data.TensorDataset(torch.from_numpy(windows))).x) == 3


def test_what_is_no_recording_is_refused(run: Run, ecg: np.ndarray, tmp_path: Path) -> None:
    out = tmp_path / "o.parquet"
    with pytest.raises(UsageError, match="knows no recording of this type"):
        medcl.predict(run, object(), out)
    with pytest.raises(MedclError, match=r"reader\.fs"):  # counts rows, and says no rate
        medcl.predict(run, pd.DataFrame(ecg.T, columns=["MLII", "V1"]), out)
    assert medcl.predict(
        run, pd.DataFrame(ecg.T, columns=["MLII", "V1"]), out, fs=FS, workers=1
    ).records == 1  # fmt: skip
    with pytest.raises(UsageError, match="dimensions"):
        medcl.predict(run, xr.DataArray(np.zeros((2, 3, 4))), out)
    twice = pd.DataFrame(ecg.T, columns=["V1", "V1"])
    with pytest.raises(UsageError, match="Two columns"):
        medcl.predict(run, twice, out)
    with pytest.raises(UsageError, match="do not go with recordings"):
        medcl.embed(run, as_raw(ecg), patients=["a"])


def of(recording: object, folder: Path) -> Recording:
    file = save(recording, folder, "recording-1")
    assert file is not None
    return read(folder, file.name, Settings())


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    fs=st.sampled_from([50.0, 64.0, 100.0, 130.0, 250.0, 256.0, 360.0, 500.0, 1000.0]),
    unit=st.sampled_from(["mV", "uV", "V", "µV"]),
    leads=st.permutations(["I", "II", "V1", "V6"]),
    length=st.integers(300, 900),
    form=st.sampled_from(["timedelta", "date", "zoned", "seconds", "counted", "array", "turned"]),
)
def test_values_rates_units_and_names_of_tables(
    tmp_path: Path, fs: float, unit: str, leads: list[str], length: int, form: str
) -> None:
    x = np.round(np.cumsum(np.random.default_rng(length).normal(size=(length, 4)), axis=0), 3)
    seconds = np.arange(length) / fs
    frame = pd.DataFrame(x, columns=leads)
    frame.attrs = {"units": dict.fromkeys(leads, unit)}
    since = (seconds * 1e9).round().astype("timedelta64[ns]")
    made: Any = frame
    if form == "timedelta":
        made = frame.set_axis(pd.TimedeltaIndex(since))
    elif form in ("date", "zoned"):
        index = pd.DatetimeIndex(np.datetime64("2021-10-31T00:30", "ns") + since)
        made = frame.set_axis(index.tz_localize("UTC").tz_convert("Europe/Berlin")
                              if form == "zoned" else index)  # fmt: skip
    elif form == "seconds":
        made = frame.set_axis(pd.Index(seconds, name="time [s]"))
    elif form == "counted":
        frame.attrs["sampling_rate"] = fs
    else:
        dims = ("time", "channel") if form == "array" else ("channel", "time")
        made = xr.DataArray(
            x if form == "array" else x.T,
            dims=dims,
            coords={"channel": leads, "time": since},
            attrs={"units": unit},
        )
    recording = of(made, tmp_path)
    assert [channel.name for channel in recording.channels] == leads
    assert {channel.units for channel in recording.channels} == {unit}
    for channel, row, truth in zip(recording.channels, recording.samples, x.T, strict=True):
        assert channel.fs == pytest.approx(fs, rel=1e-3)
        np.testing.assert_allclose(row, truth.astype(np.float32), rtol=1e-6)
