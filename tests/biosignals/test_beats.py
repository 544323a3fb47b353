"""Tables of beats and rates: NeuroKit2's figures, ectopic beats and gaps left out, and the verb."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from medcl.errors import MedclError, UsageError
from medcl.measure import measure
from medcl_biosignals.beats import beats
from medcl_biosignals.hrv import frequency_domain, normal, time_domain
from medcl_biosignals.prepare import prepare
from medcl_cli.main import app

FS = 125.0
NO_GAPS = np.zeros((0, 2), np.int64)


def rhythm(count: int = 400, seed: int = 0) -> np.ndarray:
    """Beats of 75 a minute with breathing and a slow wave, in samples."""
    t = np.arange(count) * 0.8
    random = np.random.default_rng(seed)
    rr = 0.8 + 0.04 * np.sin(2 * np.pi * 0.25 * t) + 0.03 * np.sin(2 * np.pi * 0.1 * t)
    return np.rint((rr + random.normal(0, 0.005, count)).cumsum() * FS).astype(np.int64)


def test_measures_are_those_of_neurokit2() -> None:
    neurokit2 = pytest.importorskip("neurokit2")
    at = rhythm()
    nn = np.diff(at) / FS * 1000
    ours = time_domain(nn, np.ones(len(nn), bool))
    theirs = neurokit2.hrv_time(at, sampling_rate=FS).iloc[0]
    for name in ("MeanNN", "SDNN", "RMSSD", "SDSD", "pNN50", "pNN20"):
        assert ours[f"HRV_{name}"] == pytest.approx(theirs[f"HRV_{name}"], rel=1e-6), name
    spectrum = frequency_domain(nn, at[1:] / FS)
    power = neurokit2.hrv_frequency(at, sampling_rate=FS, normalize=False).iloc[0]
    # Their intervals are sampled at 100 Hz and windowed otherwise; the powers are the same.
    assert spectrum["HRV_LFHF"] == pytest.approx(power["HRV_LFHF"], rel=0.1)
    # By hand: half the squared amplitude of each sine, 450 and 800 ms².
    assert spectrum["HRV_LF"] == pytest.approx(450, rel=0.15)
    assert spectrum["HRV_HF"] == pytest.approx(800, rel=0.15)


def test_ectopic_beats_and_gaps_are_no_normal_intervals() -> None:
    at = rhythm(60)
    early = at.copy()
    early[30] -= round(0.3 * FS)  # one beat too early: the intervals to both sides are wrong
    classes = np.full(60, -1, np.int8)
    assert np.flatnonzero(~normal(early, FS, classes, NO_GAPS)).tolist() == [29, 30]
    classes[:] = 0
    classes[10] = 2
    assert np.flatnonzero(~normal(at, FS, classes, NO_GAPS)).tolist() == [9, 10]
    gap = np.array([[at[40] + 10, at[40] + 40]])
    assert np.flatnonzero(~normal(at, FS, np.zeros(60, np.int8), gap)).tolist() == [40]
    assert len(normal(at[:1], FS, classes[:1], NO_GAPS)) == 0


def record(at: np.ndarray, seconds: float) -> dict[str, np.ndarray]:
    length = round(seconds * FS)
    return {
        "fs": np.array([FS]),
        "x": np.zeros((1, length), np.float32),
        "beats": at,
        "aami": np.full(len(at), -1, np.int8),
        "gaps": NO_GAPS,
        "present": np.array([True]),
        "quality": np.ones((1, int(np.ceil(seconds / 2))), np.float32),
    }


def test_windows_share_the_beats_out() -> None:
    at = rhythm(400)
    tables = beats(record(at, 330.0), window=100.0)
    windows = tables["windows"]
    np.testing.assert_allclose(windows["start"], [0, 100, 200, 300])
    np.testing.assert_allclose(windows["seconds"], [100, 100, 100, 30])
    assert windows["beats"].sum() == len(at[at < 330 * FS])
    assert windows["nn"].sum() == tables["records"]["nn"][0] == tables["beats"]["nn"].sum()
    np.testing.assert_allclose(windows["HR"], 75, atol=1.5)
    with pytest.raises(UsageError, match="window"):
        beats(record(at, 330.0), window=0)


@pytest.mark.parametrize(
    ("clock", "spans"),
    [
        (
            23.0,
            [(0.0, 7 * 3600.0), (23 * 3600.0, 31 * 3600.0)],
        ),
        (12.0, [(10 * 3600.0, 18 * 3600.0), (34 * 3600.0, 35 * 3600.0)]),
        (5.5, [(0.0, 1800.0), (16.5 * 3600, 24.5 * 3600)]),
    ],
)
def test_nights_are_those_of_the_clock(clock: float, spans: list[tuple[float, float]]) -> None:
    at = np.arange(1, round(35 * 3600 / 0.8), dtype=np.int64) * 100  # every 0.8 s
    held = record(at, 35 * 3600.0) | {"clock": np.array([clock * 3600])}
    nights = beats(held)["nights"]
    np.testing.assert_allclose(nights["start"], [a for a, _ in spans])
    np.testing.assert_allclose(nights["seconds"], [b - a for a, b in spans])
    np.testing.assert_allclose(nights["HR"], 75, rtol=1e-6)
    assert "nights" not in beats(record(at[:900], 720.0) | {"clock": np.array([43200.0])})
    with pytest.raises(UsageError, match="night"):
        beats(held, night=(22.0, 25.0))


@pytest.mark.parametrize(
    ("line", "clock"),
    [("22:30:05 1/3/2000", 81005.0), ("9:00:00.5", 32400.5), ("", None), ("25:61:61 1/1/1", None)],
)
def test_a_header_says_when_it_begins(tmp_path: Path, line: str, clock: float | None) -> None:
    import wfdb

    wave = np.sin(np.arange(2500) / 20)[:, None]
    wfdb.wrsamp("a", fs=125, units=["mV"], sig_name=["ECG"], p_signal=wave, fmt=["16"],
                write_dir=str(tmp_path))  # fmt: skip
    head, _, rest = (tmp_path / "a.hea").read_text().partition("\n")
    (tmp_path / "a.hea").write_text(f"{head} {line}\n{rest}")
    made = prepare(tmp_path, ["a.hea", "a.dat"], {})
    assert (float(made["clock"][0]) if "clock" in made else None) == clock


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_beats_have_no_figures(count: int) -> None:
    tables = beats(record(rhythm(3)[:count], 20.0))
    assert len(tables["beats"]["start"]) == count
    assert np.isnan(tables["records"]["HRV_SDNN"]).all()
    assert {c.dtype.kind for c in tables["beats"].values()} <= set("fbU")


def test_the_verb_writes_tables_and_lists_what_it_cannot_use(sample: Path, tmp_path: Path) -> None:
    archive = tmp_path / "in"
    archive.mkdir()
    for file in sample.glob("101.*"):
        shutil.copy(file, archive / file.name)
    (archive / "broken.csv").write_text("a,b\n")
    out = tmp_path / "out"
    command = ["beats", str(archive), "-o", str(out), "--workers", "1", "--json"]
    done = CliRunner().invoke(app, [*command, "-s", "beats.window=60", "--format", "csv"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["recordings"] == 1
    assert sum(told["rejects"].values()) == 1
    table = pl.read_csv(out / "beats.csv")
    assert table.height == told["rows"]["beats"] > 300
    assert set(table["class"].drop_nulls()) >= {"N"}
    assert table["rr"][1] == pytest.approx(0.9, abs=0.3)
    assert "path" not in table.columns
    assert pl.read_csv(out / "windows.csv").height == told["rows"]["windows"]
    seen = (
        CliRunner()
        .invoke(app, [*command[:-1], "--paths", "-s", "prepare.leads=[MLII,V6]"])
        .stdout.splitlines()
    )
    heads, row = (line.split("\t") for line in seen[:2])
    assert heads[:2] == ["path", "length (s)"]
    assert {"heart rate (/min)", "SDNN (ms)", "RMSSD (ms)"} < set(heads)
    assert row[0].startswith("101")
    (lacks,) = (line.split("\t") for line in seen if line.startswith("lacks:"))
    assert lacks[:3] == ["lacks:V6", "1", "accepted"]
    assert lacks[3].startswith("lacks the channel V6: zero")


def test_nothing_to_measure_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("a,b\n")
    with pytest.raises((MedclError, UsageError)):
        measure("beats", [tmp_path / "bad.csv"], tmp_path / "out")
    with pytest.raises(UsageError, match="measure 'steps'"):
        measure("steps", [tmp_path], tmp_path / "out")
