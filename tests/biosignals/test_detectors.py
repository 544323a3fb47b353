"""R peaks of several leads together, and detectors by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medcl.errors import UsageError
from medcl.registry import checked
from medcl_biosignals.axes import names
from medcl_biosignals.detect import r_peaks
from medcl_biosignals.detectors import DETECTORS
from medcl_biosignals.look import look
from medcl_biosignals.prepare import prepare

FS = 125.0


@pytest.fixture(scope="module")
def lead(sample: Path) -> np.ndarray:
    made = prepare(sample, ["101.hea", "101.dat"], {}, fs=FS, detector="none")
    assert len(made["beats"]) == 0
    return made["x"][0, : round(120 * FS)]


def near(found: np.ndarray, beats: np.ndarray) -> float:
    """The share of either that has one of the other within 60 ms."""
    apart = np.abs(found[:, None] - beats) <= 0.06 * FS
    return float(min(apart.any(axis=0).mean(), apart.any(axis=1).mean()))


@pytest.mark.parametrize("loud", [0.1, 1.0, 10.0, 1e4])
def test_a_lead_of_noise_takes_nothing_away(lead: np.ndarray, loud: float) -> None:
    alone = r_peaks(lead[None], FS)
    assert 115 < len(alone) < 150
    noise = np.random.default_rng(0).normal(0, loud * lead.std(), lead.shape).astype(np.float32)
    assert near(r_peaks(np.stack([lead, noise]), FS), alone) > 0.99


def test_leads_that_are_noisy_by_turns_help_one_another(lead: np.ndarray) -> None:
    random = np.random.default_rng(0)
    two = np.stack([lead, -0.3 * lead])
    half = len(lead) // 2
    two[0, :half] += random.normal(0, 3 * lead.std(), half)
    two[1, half:] += random.normal(0, 3 * lead.std(), len(lead) - half)
    alone = r_peaks(lead[None], FS)
    together = near(r_peaks(two, FS), alone)
    assert together > 0.97
    assert together > max(near(r_peaks(each[None], FS), alone) for each in two)


def test_a_spike_hides_no_beats(lead: np.ndarray) -> None:
    alone = r_peaks(lead[None], FS)
    spiked = lead.copy()
    spiked[7500] += 1e4 * lead.std()
    found = r_peaks(spiked[None], FS)
    apart = np.abs(alone[:, None] - found).min(axis=1) <= 0.06 * FS
    assert apart[np.abs(alone - 7500) > 3 * FS].all()


@pytest.mark.parametrize("x", [np.zeros((2, 1000)), np.ones((1, 100)), np.full((1, 1000), 7.0)])
@pytest.mark.parametrize("name", ["energy", "xqrs", "none"])
def test_nothing_is_found_where_nothing_is(x: np.ndarray, name: str) -> None:
    assert len(DETECTORS[name].r_peaks(x.astype(np.float32), FS)) == 0  # type: ignore[index]


@pytest.mark.parametrize("name", ["xqrs", "neurokit"])
def test_other_detectors_find_the_same_beats(sample: Path, lead: np.ndarray, name: str) -> None:
    if name == "neurokit":
        pytest.importorskip("neurokit2")
    found = DETECTORS[name].r_peaks(lead[None], FS)  # type: ignore[index]
    assert near(found, r_peaks(lead[None], FS)) > 0.97


def test_an_unknown_name_says_which_there_are() -> None:
    with pytest.raises(
        UsageError, match="prepare.detector.*'energy', 'xqrs', 'neurokit' or 'none'"
    ):
        checked(prepare, {"detector": "pan"}, "prepare")


def test_both_leads_of_ds1(ecg: Path) -> None:
    """Two hard records; benchmarks/biosignals/r_peaks.py has all."""
    for record, most in (("203", 45), ("106", 25)):
        files = [p.name for p in sorted((ecg / "mitdb_ds1").glob(f"{record}.*"))]
        files.sort(key=lambda name: not name.endswith(".hea"))
        marked = prepare(ecg / "mitdb_ds1", files, {}, fs=FS)
        found, beats = r_peaks(marked["x"], FS), marked["beats"]
        apart = np.abs(found[:, None] - beats) <= 0.15 * FS
        assert (~apart.any(axis=0)).sum() + (~apart.any(axis=1)).sum() <= most, record


def test_the_picture_names_channels_and_no_file(sample: Path, tmp_path: Path) -> None:
    made = prepare(sample, ["101.hea", "101.dat"], {}, fs=100.0)
    assert names(made) == ["MLII", "V1"]
    (picture,) = look([sample / "101.hea"], made, tmp_path / "out")
    data = picture.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert b"101" not in data[:200]
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["signal.png"]


@pytest.mark.parametrize("count", [1, 2, 4, 5, 6, 8, 9, 13])
def test_likeness_of_many_beats_is_measured_in_parts(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medcl_biosignals import likeness

    rng = np.random.default_rng(count)
    x = rng.normal(size=(2, 3000)).astype(np.float32)
    beats = np.sort(rng.choice(3000, count, replace=False))
    whole = likeness.likeness(x, beats, 100.0)
    monkeypatch.setattr(likeness, "_AT_ONCE", 4)
    assert np.array_equal(likeness.likeness(x, beats, 100.0), whole)
    assert whole.shape == (count, 12)
