"""Windows and beats: where they lie, what they hold, what is left out."""

from __future__ import annotations

import pickle
from functools import partial
from typing import Any

import numpy as np
import polars as pl
import pytest

from medcl.errors import MedclError, UsageError
from medcl_biosignals.baselines import handcrafted, names, raw
from medcl_biosignals.dataset import dataset
from medcl_biosignals.rhythm import intervals, ratios

Prepared = tuple[pl.DataFrame, dict[str, dict[str, np.ndarray]]]


def lookup(item: str, store: dict[str, dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return store[item]


def test_windows_are_read_from_where_they_say(prepared: Prepared) -> None:
    items, store = prepared
    samples = dataset(items, store.__getitem__, kind="window", seconds=10.0, stride=4.0)
    assert len(samples.ids) == len(set(samples.ids)) == len(samples)
    random = np.random.default_rng(0)
    which = random.integers(0, len(samples), 64)
    batch = samples.read(which)
    assert batch["x"].shape == (64, 2, 1000)
    for i, row in enumerate(which):
        item, start = samples.ids[row].split(":")
        assert samples.items[row] == item
        assert samples.patients[row] == f"key-of-{item}"
        expected = store[item]["x"][:, int(start) : int(start) + 1000].astype(np.float32)
        expected -= expected.mean(axis=1, keepdims=True)
        expected /= expected.std(axis=1, keepdims=True)
        np.testing.assert_allclose(batch["x"][i], expected, atol=2e-3)


def test_the_batch_can_be_read_in_another_process(prepared: Prepared) -> None:
    items, store = prepared
    samples = dataset(items, partial(lookup, store=store), kind="beat", seconds=2.0)
    copy = pickle.loads(pickle.dumps(samples.read))
    which = np.arange(0, len(samples), 97)
    for key, value in samples.read(which).items():
        np.testing.assert_array_equal(copy(which)[key], value)


def test_beats_are_centred_and_all_there(prepared: Prepared) -> None:
    items, store = prepared
    samples = dataset(items, store.__getitem__, kind="beat", seconds=3.0)
    assert len(samples) == sum(len(arrays["beats"]) for arrays in store.values())
    truth = np.concatenate([store[item]["aami"] for item in items["id"]])
    np.testing.assert_array_equal(samples.labels["aami"], truth)
    x = samples.read(np.arange(len(samples)))["x"]
    middle = np.abs(x[:, 0, 120:180]).argmax(axis=1)
    assert abs(np.median(middle) - 30) <= 2
    row = samples.items.index("101")  # its first beat is 0.2 s into the record
    beat = int(store["101"]["beats"][0])
    assert beat < 50
    before = samples.read(np.array([row]))["x"][0, :, : 150 - beat]
    np.testing.assert_allclose(np.ptp(before, axis=-1), 0, atol=1e-6)


def test_classes_can_be_chosen(prepared: Prepared) -> None:
    items, store = prepared
    samples = dataset(items, store.__getitem__, kind="beat", classes=("V", "N"))
    truth = np.concatenate([store[item]["aami"] for item in items["id"]])
    expected = np.select([truth == 2, truth == 0], [0, 1], -1)
    np.testing.assert_array_equal(samples.labels["aami"], expected)
    with pytest.raises(UsageError, match="'X'"):
        dataset(items, store.__getitem__, kind="beat", classes=("N", "X"))


def test_unusual_beats_are_drawn_more_often_within_each_patient(prepared: Prepared) -> None:
    items, store = prepared
    alike = dataset(items, store.__getitem__, kind="beat")
    assert alike.weights is None
    samples = dataset(items, store.__getitem__, kind="beat", unusual=0.5)
    weights = samples.weights
    assert weights is not None
    assert weights.min() >= 0.5
    for patient in set(samples.patients):
        assert weights[np.array(samples.patients) == patient].mean() == pytest.approx(1)
    batch = samples.read(np.arange(len(samples)))
    measured = batch["likeness"].reshape(len(samples), 6, 2).mean(axis=2)
    squared = ((batch["rr"] / 0.2) ** 2).sum(1) + ((measured - [1, 0, 0, 1, 0, 0]) ** 2).sum(1)
    one = np.flatnonzero(np.array(samples.items) == "114")
    unlike = np.minimum(squared[one], 25)
    np.testing.assert_allclose(weights[one], 0.5 + 0.5 * unlike / unlike.mean(), rtol=1e-3)
    ectopic = np.isin(samples.labels["aami"], (1, 2))  # the label has no say, but it shows
    assert weights[ectopic].mean() > 1.4 * weights[~ectopic].mean()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"kind": "beat", "unusual": 1.0}, "below 1"),
        ({"kind": "beat", "unusual": -0.1}, "below 1"),
        ({"kind": "window", "unusual": 0.5}, "dataset.kind=beat"),
    ],
)
def test_a_share_of_unusual_beats_that_is_none(
    prepared: Prepared, given: dict[str, Any], said: str
) -> None:
    items, store = prepared
    with pytest.raises(UsageError, match=said):
        dataset(items, store.__getitem__, **given)


def test_paced_recordings_are_left_out_unless_asked_for(prepared: Prepared) -> None:
    items, store = prepared
    paced = items.with_columns((pl.col("id") == "114").alias("label.paced"))
    assert "114" not in dataset(paced, store.__getitem__, kind="beat").items
    assert "114" in dataset(paced, store.__getitem__, kind="beat", paced=True).items


def test_no_window_crosses_a_gap(prepared: Prepared) -> None:
    items, store = prepared
    item = items["id"][0]
    gaps = np.array([[1000, 1200], [5000, 5001]])
    broken = {**store, item: {**store[item], "gaps": gaps}}
    one = items.filter(pl.col("id") == item)
    for kind in ("window", "beat"):
        samples = dataset(one, broken.__getitem__, kind=kind, seconds=5.0, stride=0.5)
        starts = np.array([int(name.split(":")[1]) for name in samples.ids])
        for first, last in gaps:
            assert not ((starts < last) & (starts + 500 > first)).any()
        assert {500, 1200, 1250} & set(starts.tolist()) or kind == "beat"  # those beside it stay
        whole = dataset(one, store.__getitem__, kind=kind, seconds=5.0, stride=0.5)
        lost = set(whole.ids) - set(samples.ids)
        assert 0 < len(lost) < 40


def test_bad_windows_can_be_left_out(prepared: Prepared) -> None:
    items, store = prepared
    item = items["id"][0]
    quality = store[item]["quality"].copy()
    quality[:, 50:60] = 0  # seconds 100 to 120
    broken = {**store, item: {**store[item], "quality": quality}}
    one = items.filter(pl.col("id") == item)
    samples = dataset(one, broken.__getitem__, seconds=4.0, stride=2.0, quality=0.3)
    starts = np.array([int(name.split(":")[1]) for name in samples.ids]) / 100
    assert not ((starts >= 100) & (starts + 4 <= 120)).any()
    assert len(starts) > 130
    with pytest.raises(MedclError, match="dataset\\.quality"):
        dataset(one, broken.__getitem__, seconds=4.0, quality=1.1)


def test_the_scale_of_the_record_keeps_a_large_beat_large(prepared: Prepared) -> None:
    items, store = prepared
    window = dataset(items, store.__getitem__, kind="beat", seconds=1.0)
    record = dataset(items, store.__getitem__, kind="beat", seconds=1.0, scale="record")
    which = np.arange(0, len(window), 7)
    spread = record.read(which)["x"].std(axis=-1)
    np.testing.assert_allclose(window.read(which)["x"].std(axis=-1), 1, atol=1e-2)
    assert spread.std() > 0.1


def test_a_lead_that_is_not_there_stays_zero(prepared: Prepared) -> None:
    items, store = prepared
    item = items["id"][0]
    x = store[item]["x"].copy()
    x[1] = 0
    broken = {**store, item: {**store[item], "x": x, "scale": np.array([0.1, 0.0], "f4")}}
    one = items.filter(pl.col("id") == item)
    for scale in ("window", "record"):
        batch = dataset(one, broken.__getitem__, scale=scale).read(np.arange(5))["x"]
        assert np.isfinite(batch).all()
        assert (batch[:, 1] == 0).all()


def test_a_premature_beat_is_early_for_everyone() -> None:
    for rate in (50, 90):  # beats a minute
        beats = np.cumsum(np.full(41, 60 / rate))
        beats[20] -= 0.3 * 60 / rate  # comes 30 % early; the pause after it makes up for it
        near = intervals((beats * 1000).astype(int), 1000.0)
        values = ratios(near)
        np.testing.assert_allclose(np.exp(values[20]), [0.7, 1.3, 0.7 / 0.97, 0.7 / 1.3], rtol=0.01)
        np.testing.assert_allclose(np.exp(values[10]), 1, rtol=0.01)
    assert ratios(intervals(np.zeros(0, dtype=int), 100.0)).shape == (0, 4)
    np.testing.assert_allclose(ratios(intervals(np.array([5]), 100.0)), 0, atol=1e-6)


def test_handcrafted_features_tell_ventricular_beats(prepared: Prepared) -> None:
    items, store = prepared
    samples = dataset(items, store.__getitem__, kind="beat", seconds=3.0)
    batch = samples.read(np.arange(len(samples)))
    features = handcrafted(batch)
    assert features.shape == (len(samples), 4 + 13 * 2)
    assert np.isfinite(features).all()
    truth = samples.labels["aami"]
    likeness = features[:, 4]  # correlation with the beat before, first lead
    normal, ventricular = likeness[truth == 0], likeness[truth == 2]
    assert np.median(normal) > 0.9 > 0.7 > np.median(ventricular)
    assert raw(batch).shape == (len(samples), 2 * 64 + 4)


def test_baselines_of_windows(prepared: Prepared) -> None:
    items, store = prepared
    batch = dataset(items, store.__getitem__, seconds=10.0).read(np.arange(8))
    assert handcrafted(batch).shape == (8, len(names(2)))
    assert raw(batch).shape == (8, 128)
    assert np.isfinite(handcrafted(batch)).all()


@pytest.mark.parametrize("scale", ["window", "robust", "record"])
def test_handcrafted_amplitudes_keep_their_unit_whatever_the_scale(
    prepared: Prepared, scale: str
) -> None:
    items, store = prepared
    which = np.arange(16)
    plain = dataset(items, store.__getitem__, scale="none").read(which)
    scaled = dataset(items, store.__getitem__, scale=scale).read(which)
    level = plain["x"].mean(axis=-1, keepdims=True)
    mine = scaled["x"] * scaled["unit"][..., None]
    mine += level - mine.mean(axis=-1, keepdims=True)
    np.testing.assert_allclose(mine, plain["x"], atol=1e-3)
    columns = [n.startswith(("r.", "s.", "t.", "st.", "height.")) for n in names(2)]
    one, other = handcrafted(plain)[:, columns], handcrafted(scaled)[:, columns]
    np.testing.assert_allclose(one, other, atol=0.02)


def test_windows_know_their_beats_and_the_intervals_around_them(prepared: Prepared) -> None:
    items, store = prepared
    samples = dataset(items, store.__getitem__, seconds=10.0, stride=5.0)
    batch = samples.read(np.arange(len(samples)))
    where = samples.where(np.arange(len(samples)))
    for row in range(0, len(samples), 7):
        record = store[samples.items[row]]
        fs = float(record["fs"][0])
        beats = np.asarray(record["beats"]) / fs
        first = where["start"][row]
        inside = beats[(beats >= first) & (beats < first + 10)]
        peaks = batch["peaks"][row]
        np.testing.assert_allclose(peaks[peaks >= 0] / fs + first, inside, atol=1e-6)
        near = beats[(beats >= first + 5 - 30) & (beats < first + 5 + 30)]
        intervals = batch["intervals"][row]
        np.testing.assert_allclose(intervals[intervals > 0], np.diff(near)[:96], atol=1e-6)
