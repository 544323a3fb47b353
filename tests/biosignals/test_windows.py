"""Stacks of windows: rows are recordings of their own, and never channels without a word."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from medcl import plugin as plugins
from medcl.archive.index import Index, build
from medcl_biosignals.readers.choose import reader
from medcl_biosignals.readers.contract import BadSignal, Heading, Settings


def found(path: Path, **told: object) -> list[Heading]:
    made = list(reader(path).headings(path, Settings(**told)))  # type: ignore[arg-type]
    assert all(isinstance(heading, Heading) for heading in made)
    return made  # type: ignore[return-value]


def window(path: Path, heading: Heading, **told: object) -> np.ndarray:
    samples = reader(path).read(path, heading.part, Settings(**told)).samples  # type: ignore[arg-type]
    return np.stack(samples)


def write(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    elif path.suffix == ".mat":
        savemat(path, {name: np.atleast_2d(values) for name, values in arrays.items()})
    else:
        with h5py.File(path, "w") as file:
            for name, values in arrays.items():
                file[name] = values
    return path


@settings(max_examples=30, deadline=None)
@given(
    suffix=st.sampled_from([".npz", ".mat", ".h5"]),
    count=st.integers(2, 300),
    length=st.integers(256, 600),
    channels=st.sampled_from([0, 1, 2, 3]),
    name=st.sampled_from(["X", "ppg", "signals", "data"]),
    label=st.sampled_from(["y", "labels", "target", "rhythm"]),
    fs=st.sampled_from([50.0, 100.0, 125.0]),
)
def test_rows_with_a_label_each_are_recordings(
    tmp_path_factory: pytest.TempPathFactory,
    suffix: str,
    count: int,
    length: int,
    channels: int,
    name: str,
    label: str,
    fs: float,
) -> None:
    if count == length:
        count += 1
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, channels, length) if channels else (count, length))
    y = rng.integers(0, 6, count)
    path = tmp_path_factory.mktemp("stack") / f"part{suffix}"
    write(path, {name: x, label: y, "fs": np.array(fs)})
    made = found(path)
    assert len(made) == count
    assert [heading.labels[label] for heading in made] == y.tolist()
    assert {heading.seconds for heading in made} == {length / fs}
    assert all("rows-are-windows" in heading.findings for heading in made)
    assert {heading.session for heading in made} == {"part"}, "of one person, as nobody is named"
    for n in (0, count - 1):
        np.testing.assert_allclose(window(path, made[n]), np.atleast_2d(np.squeeze(x[n])))


@pytest.mark.parametrize("people", [np.repeat([4, 5], 6), np.repeat(["a", "b"], 6)])
def test_a_person_for_each_row_is_the_patient(tmp_path: Path, people: np.ndarray) -> None:
    path = tmp_path / "part.npz"
    np.savez(path, X=np.random.default_rng(0).normal(size=(12, 400)), subject=people, fs=100)
    assert [heading.subject for heading in found(path)] == [str(who) for who in people]


@pytest.mark.parametrize("count", [12, 200])
@pytest.mark.parametrize("name", ["y", "labels", "rhythm"])
def test_classes_in_words_are_labels_of_rows_and_no_channel_names(
    tmp_path: Path, count: int, name: str
) -> None:
    path = tmp_path / "part.npz"
    words = np.array(["sinus", "AF"] * (count // 2))
    x = np.random.default_rng(0).normal(size=(count, 500))
    write(path, {"ecg": x, "fs": np.array(100.0), name: words})
    made = found(path)
    assert [heading.labels[name] for heading in made] == words.tolist()
    assert [channel.name for channel in made[0].channels] == ["ecg"]
    assert window(path, made[3]).shape == (1, 500)


def test_rows_of_named_or_few_channels_are_channels(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(128, 3000))
    named = tmp_path / "named.npz"
    np.savez(named, eeg=x, names=[f"E{n}" for n in range(128)], fs=250)
    few = tmp_path / "few.npz"
    np.savez(few, eeg=x[:32], labels=np.zeros(3000), fs=250)  # a label for each sample
    (one,) = found(named)
    assert [channel.name for channel in one.channels[:2]] == ["E0", "E1"]
    (one,) = found(few)
    assert (len(one.channels), one.seconds) == (32, 12.0)


@settings(max_examples=40, deadline=None)
@given(
    suffix=st.sampled_from([".npz", ".mat", ".h5"]),
    count=st.integers(70, 2000),
    length=st.integers(2, 255),
    label=st.sampled_from(["y", "labels", "subject", "Target"]),
    words=st.booleans(),
)
def test_short_rows_with_a_label_each_are_never_channels_without_a_word(
    tmp_path_factory: pytest.TempPathFactory,
    suffix: str,
    count: int,
    length: int,
    label: str,
    words: bool,
) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(count, length)), rng.integers(0, 3, count)
    classes = np.array(["sit", "walk", "run"])[y]
    path = tmp_path_factory.mktemp("short") / f"part{suffix}"
    spoken = words and suffix == ".npz"
    write(path, {"X": x, label: classes if spoken else y, "fs": np.array(32.0)})
    try:
        made = found(path)
    except BadSignal as refused:
        assert length > 12
        assert length < count
        assert "reader.rows=windows" in str(refused)
    else:
        said = "rows-are-windows" if length >= count else "rows-are-samples"
        assert all(said in heading.findings for heading in made)
        assert len(made) == (count if length >= count else 1)
        assert length >= count or length <= 12
    stack = found(path, rows="windows")
    assert len(stack) == count
    np.testing.assert_allclose(window(path, stack[7], rows="windows"), x[7:8])
    (one,) = found(path, rows="channels")
    assert len(one.channels) == min(length, count)
    assert "rows-are-samples" not in one.findings


@pytest.mark.parametrize("columns", [14, 32, 60])
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_of_short_windows(tmp_path: Path, columns: int, suffix: str) -> None:
    rng = np.random.default_rng(0)
    table = np.column_stack([rng.normal(size=(200, columns)), rng.integers(0, 5, 200)]).round(4)
    path = tmp_path / f"train{suffix}"
    if suffix == ".csv":
        np.savetxt(path, table, delimiter=",", fmt="%.4f")
    else:
        pl.DataFrame(table, schema=[f"c{n}" for n in range(columns + 1)]).write_parquet(path)
    with pytest.raises(BadSignal, match="each column a channel, or each row a window"):
        found(path, fs=32.0)
    made = found(path, fs=32.0, rows="windows")
    assert [heading.labels["label"] for heading in made] == table[:, -1].tolist()


def test_many_rows_that_may_be_either_are_asked_about(tmp_path: Path) -> None:
    path = tmp_path / "either.npz"
    np.savez(path, x=np.random.default_rng(0).normal(size=(128, 3000)), fs=250)
    with pytest.raises(BadSignal, match=r"reader\.rows=channels, or reader\.rows=windows"):
        found(path)
    assert len(found(path, rows="channels")[0].channels) == 128
    assert len(found(path, rows="windows")) == 128


@pytest.mark.parametrize("first", [True, False], ids=["as UCR", "as Kaggle's MIT-BIH"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_a_table_of_windows(tmp_path: Path, first: bool, suffix: str) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 187)).round(4), rng.integers(0, 5, 50)
    table = np.column_stack([y, x] if first else [x, y])
    path = tmp_path / f"train{suffix}"
    if suffix == ".parquet":
        pl.DataFrame(table, schema=[f"c{n}" for n in range(188)]).write_parquet(path)
    else:
        mark = "\t" if suffix == ".tsv" else ","
        np.savetxt(path, table, delimiter=mark, fmt="%.4f")
    with pytest.raises(BadSignal, match="each column a channel, or each row a window"):
        found(path, fs=125.0)
    made = found(path, fs=125.0, rows="windows")
    assert [heading.labels["label"] for heading in made] == y.tolist()
    for n in (0, 49):
        (samples,) = window(path, made[n], fs=125.0, rows="windows")
        np.testing.assert_allclose(samples, x[n])


def test_an_archive_of_stacks_is_prepared_window_by_window(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "ppg").mkdir()
    for name in ("one", "two"):
        x = rng.normal(size=(4, 1000)).cumsum(axis=1)
        np.savez(tmp_path / "ppg" / f"{name}.npz", ppg=x, labels=[0, 1, 2, 0], fs=100)
    plugin = plugins.get("biosignals")
    summary = build(tmp_path / "ppg", tmp_path / "index", plugin)
    items = Index.open(tmp_path / "index").items
    assert (summary.items, items["patient"].n_unique()) == (8, 2)
    assert sorted(items["label.labels"].to_list()) == [0, 0, 0, 0, 1, 1, 2, 2]
