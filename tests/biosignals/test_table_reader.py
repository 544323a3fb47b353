"""CSV and TSV as people have them: real files, and those same samples written in other ways."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from medcl.archive.index import Index, build
from medcl.archive.store import prepare as prepare_all
from medcl.errors import UsageError
from medcl.plugin import Record, Reject, Unit
from medcl_biosignals.plugin import plugin
from medcl_biosignals.prepare import prepare
from medcl_biosignals.readers.choose import read
from medcl_biosignals.readers.contract import Recording
from medcl_biosignals.scan import scan as scan_unit
from medcl_biosignals.scan import settings_of

# What these files do not say: rates of bare columns (HeartPy's documentation); that "hr" is PPG.
SAID = {
    "files": {
        "heartpy_data.csv": {"fs": 100.0, "columns": {"1": "PPG"}},
        "heartpy_smartring.csv": {"fs": 32.0, "columns": {"1": "PPG"}},
        "heartpy_data[23].csv": {"columns": {"hr": "PPG"}},
    }
}


def rows_of(root: Path, name: str, **said: Any) -> list[Record | Reject]:
    (unit,) = plugin.units([_stat(root / name, name)])
    return list(scan_unit(root, unit, **said))


def _stat(path: Path, name: str) -> Any:
    from medcl.plugin import FileStat

    return FileStat(name, path.stat().st_size, 0)


def record_of(root: Path, name: str, **said: Any) -> Record:
    (row,) = rows_of(root, name, **said)
    assert isinstance(row, Record), row
    return row


def reject_of(root: Path, name: str, **said: Any) -> Reject:
    (row,) = rows_of(root, name, **said)
    assert isinstance(row, Reject), row
    return row


def samples_of(root: Path, name: str, span: Any = None, **said: Any) -> Recording:
    return read(root, record_of(root, name, **said).files[0], settings_of(said).of(name), span)


@pytest.fixture(scope="session")
def ppg(shared_data: Path) -> Path:
    return shared_data / "ppg"


# --- real files -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.shared_data
@pytest.mark.parametrize("folder", ["ppg", "ecg"])
def test_every_real_recording_is_indexed_and_prepared(
    shared_data: Path, tmp_path: Path, folder: str
) -> None:
    root = shared_data / folder
    summary = build(root, tmp_path / "idx", plugin, reader=SAID if folder == "ppg" else None)
    assert summary.rejects == {}
    assert summary.items == len([*root.rglob("*.csv"), *root.rglob("*.hea")])
    index = Index.open(tmp_path / "idx")
    prepared = prepare_all(index, plugin, {"fs": 50.0, "channels": 1})
    assert prepared.rejects.is_empty()
    for item in prepared.items["id"]:
        arrays = prepared.arrays(item)
        assert np.isfinite(arrays["x"]).all()
        assert len(arrays["beats"]) > 5


@pytest.mark.shared_data
def test_a_coarse_clock_costs_no_sample(ppg: Path) -> None:
    """BIDMC rounds its times to 10 ms after 100 s; the samples are 8 ms apart."""
    row = record_of(ppg, "bidmc_01_Signals.csv")
    assert row.fields["fs"] == 125
    assert row.fields["leads"] == "RESP,PLETH,V,aVR,II"
    assert row.fields["kinds"] == "RESP,PPG,ECG,ECG,ECG"
    truth = np.loadtxt(ppg / "bidmc_01_Signals.csv", delimiter=",", skiprows=1)
    ours = np.stack(samples_of(ppg, "bidmc_01_Signals.csv").samples, axis=1)
    np.testing.assert_array_equal(ours, truth[:, 1:].astype(np.float32))
    part = samples_of(ppg, "bidmc_01_Signals.csv", (200.0, 210.0))
    np.testing.assert_array_equal(part.samples[0], ours[25_000:26_250, 0])


@pytest.mark.shared_data
def test_bare_columns_and_milliseconds(ppg: Path) -> None:
    assert reject_of(ppg, "heartpy_data.csv").code == "no-sampling-rate"
    bare = samples_of(ppg, "heartpy_data.csv", fs=100)
    np.testing.assert_array_equal(bare.samples[0], np.loadtxt(ppg / "heartpy_data.csv"))
    row = record_of(ppg, "heartpy_data2.csv", columns={"hr": "PPG"})
    assert row.fields["fs"] == pytest.approx(1000 / 8.54790319, rel=1e-6)
    assert row.fields["leads"] == "PPG"
    assert "assumed-milliseconds" in row.findings
    truth = np.loadtxt(ppg / "heartpy_data2.csv", delimiter=",", skiprows=1)
    ours = samples_of(ppg, "heartpy_data2.csv", columns={"hr": "PPG"})
    np.testing.assert_array_equal(ours.samples[0], truth[:, 1])


@pytest.mark.shared_data
def test_timestamps_with_jitter_and_repeats(ppg: Path) -> None:
    row = record_of(ppg, "heartpy_data3.csv")
    assert {"repeated-times", "irregular-times"} <= set(row.findings)
    ours = samples_of(ppg, "heartpy_data3.csv").samples[0]
    frame = pl.read_csv(ppg / "heartpy_data3.csv")
    moments = [datetime.fromisoformat(stamp) for stamp in frame["datetime"]]
    since = np.array([(moment - moments[0]).total_seconds() for moment in moments])
    assert np.isfinite(ours).all()
    assert len(ours) == pytest.approx(since[-1] * 100, abs=2)
    back = np.interp(since, np.arange(len(ours)) / 100, ours)  # its ticks are 16 ms apart
    pieces = np.array_split(np.arange(frame.height), 20)
    assert min(np.corrcoef(back[p], frame["hr"].to_numpy()[p])[0, 1] for p in pieces) > 0.97


@pytest.mark.shared_data
def test_camera_frames_give_the_heart_rate_of_a_chest_strap(ppg: Path) -> None:
    errors = []
    for path in sorted(ppg.glob("welltory/*/PPG.csv")):
        name = path.relative_to(ppg).as_posix()
        row = record_of(ppg, name)
        assert row.fields["leads"] == "PPG-red,PPG-green,PPG-blue"
        frames = np.loadtxt(path, delimiter=",", skiprows=1)
        assert row.fields["seconds"] == pytest.approx(np.ptp(frames[:, 0]) / 1000, abs=0.1)
        arrays = prepare(ppg, row.files, row.fields, fs=50.0, channels=3)  # one is often dark
        rr = np.array(path.with_name("RR.txt").read_text().split(), dtype=float)
        beats = 1000 * np.diff(arrays["beats"]) / 50
        errors.append(abs(np.median(beats) / np.median(rr) - 1))
    assert len(errors) == 21
    assert np.median(errors) < 0.03
    assert (np.array(errors) < 0.1).mean() > 0.6  # some fingers moved, or let light in


# --- the same samples, written in other ways (written for the test) -------------------------------


@pytest.fixture(scope="session")
def pleth(request: pytest.FixtureRequest) -> np.ndarray:
    """Twenty seconds of a real ECG at 100 Hz, two leads: (2000, 2), in mV."""
    import wfdb

    sample = Path(__file__).parents[2] / "plugins/medcl_biosignals/sample/101"
    record = wfdb.rdrecord(str(sample), sampto=7200)
    return np.round(record.p_signal[::3][:2000], 3)


T = np.arange(2000) / 100


def text(rows: list[list[str]], delimiter: str = ",", header: str | None = "time,PLETH,II") -> str:
    lines = [delimiter.join(row) for row in rows]
    return "\n".join(([header.replace(",", delimiter)] if header else []) + lines) + "\n"


def numbers(x: np.ndarray, times: np.ndarray | list[str] | None = None) -> list[list[str]]:
    first = T if times is None else times
    return [
        [t if isinstance(t, str) else f"{t:.10g}", *(f"{v:.3f}" for v in row)]
        for t, row in zip(first, x, strict=True)
    ]


def stamps(form: str) -> list[str]:
    start = datetime(2016, 11, 24, 23, 59, 50)
    out = []
    for t in T:
        moment = start + timedelta(seconds=float(t))
        out.append(moment.strftime(form).replace("%L", f"{moment.microsecond // 1000:03d}"))
    return out


def _plain(x: np.ndarray) -> str:
    return text(numbers(x))


def _decimal_comma(x: np.ndarray) -> str:
    return text([[cell.replace(".", ",") for cell in row] for row in numbers(x)], ";")


def _quoted_decimal_comma(x: np.ndarray) -> str:  # as PowerShell exports it in a German office
    rows = [[f'"{cell.replace(".", ",")}"' for cell in row] for row in numbers(x)]
    return text(rows, header='"time","PLETH","II"')


def _comma_in_words(x: np.ndarray) -> str:
    rows = [[*row, '"walking, slowly"'] for row in numbers(x)]
    return text(rows, header="time,PLETH,II,activity")


def _tabs(x: np.ndarray) -> str:
    return text(numbers(x), "\t")


def _blanks(x: np.ndarray) -> str:
    return text([[f"  {cell}" for cell in row] for row in numbers(x)], " ")


def _preamble(x: np.ndarray) -> str:
    return "# exported by a recorder\nDevice: 7\n\n" + text(numbers(x))


def _byte_order_mark(x: np.ndarray) -> str:
    return "\ufeff" + text(numbers(x))


def _units_in_names(x: np.ndarray) -> str:
    return text(numbers(x, T * 1000), header="t [ms],PLETH (NU),II (mV)")


def _units_below(x: np.ndarray) -> str:  # as PhysioNet exports samples.csv
    times = [f"'{int(t // 60)}:{t % 60:06.3f}'" for t in T]
    return text(numbers(x, times), header="'Elapsed time','PLETH','II'\n'mm:ss.mmm','NU','mV'")


def _milliseconds(x: np.ndarray) -> str:
    return text(numbers(x, T * 1000), header="time_ms,PLETH,II")


def _epoch_seconds(x: np.ndarray) -> str:
    times = [f"{1.48e9 + t:.2f}" for t in T]
    return text(numbers(x, times), header="timestamp,PLETH,II")


def _epoch_microseconds(x: np.ndarray) -> str:
    times = [str(int((1.48e9 + t) * 1e6 + 0.5)) for t in T]
    return text(numbers(x, times), header="timestamp,PLETH,II")


def _iso(x: np.ndarray) -> str:
    return text(numbers(x, stamps("%Y-%m-%dT%H:%M:%S.%LZ")))


def _german(x: np.ndarray) -> str:
    times = stamps("%d.%m.%Y %H:%M:%S,%L")
    rows = [
        [t, *(c.replace(".", ",") for c in row[1:])]
        for t, row in zip(times, numbers(x), strict=True)
    ]
    return text(rows, ";")


def _clock_past_midnight(x: np.ndarray) -> str:
    return text(numbers(x, stamps("%H:%M:%S.%L")))


def _other_columns(x: np.ndarray) -> str:
    rows = [[str(n), *row, "walking"] for n, row in enumerate(numbers(x))]
    return text(rows, header="sample,time,PLETH,II,activity")


def _long(x: np.ndarray) -> str:
    rows = [
        [f"{t:.2f}", name, f"{value:.3f}"]
        for t, pair in zip(T, x, strict=True)
        for name, value in zip(("PLETH", "II"), pair, strict=True)
    ]
    return text(rows, header="time,channel,value")


@pytest.mark.slow
@pytest.mark.parametrize(
    "written",
    [
        _plain, _decimal_comma, _quoted_decimal_comma, _comma_in_words, _tabs, _blanks, _preamble,
        _byte_order_mark, _units_in_names, _milliseconds, _epoch_seconds, _epoch_microseconds,
        _iso, _german, _clock_past_midnight, _other_columns, _long,
    ],
)  # fmt: skip
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1252"])
def test_however_it_is_written(
    tmp_path: Path, pleth: np.ndarray, written: Callable[[np.ndarray], str], encoding: str
) -> None:
    body = written(pleth)
    if encoding != "utf-8":  # cp1252 has no mark, and Python writes one before utf-16
        body = body.replace("\ufeff", "").replace("# exported", "# übertragen")
    (tmp_path / "a.csv").write_bytes(body.encode(encoding))
    row = record_of(tmp_path, "a.csv")
    assert row.fields["fs"] == pytest.approx(100, rel=1e-6)
    assert row.fields["leads"] == "PLETH,II"
    assert row.fields["samples"] == 2000
    assert not {"gaps", "irregular-times", "repeated-times"} & set(row.findings)
    if written in (_units_in_names, _units_below):
        assert row.fields["units"] == "NU,mV"
    ours = np.stack(samples_of(tmp_path, "a.csv").samples, axis=1)
    np.testing.assert_array_equal(ours, pleth.astype(np.float32))


def test_without_a_header(tmp_path: Path, pleth: np.ndarray) -> None:
    (tmp_path / "a.csv").write_text(text(numbers(pleth), header=None))
    said = {"columns": {"2": "PPG-green", "3": "II"}}
    row = record_of(tmp_path, "a.csv", **said)
    assert (row.fields["leads"], row.fields["fs"]) == ("PPG-green,II", 100)
    (tmp_path / "b.csv").write_text(text([row[1:] for row in numbers(pleth)], header=None))
    assert reject_of(tmp_path, "b.csv").code == "no-sampling-rate"
    assert record_of(tmp_path, "b.csv", fs=250).fields["leads"] == "other,other"
    (tmp_path / "c.csv").write_text("\n".join(f"{v:.3f}".replace(".", ",") for v in pleth[:, 0]))
    one = samples_of(tmp_path, "c.csv", fs=100, decimal="comma")
    np.testing.assert_array_equal(one.samples[0], pleth[:, 0].astype(np.float32))
    (tmp_path / "d.csv").write_text("PPG\n" + (tmp_path / "c.csv").read_text())
    one = samples_of(tmp_path, "d.csv", fs=100)  # a header of one name: 0,51 is one number
    np.testing.assert_array_equal(one.samples[0], pleth[:, 0].astype(np.float32))


def test_columns_are_chosen_by_name_and_number(tmp_path: Path, pleth: np.ndarray) -> None:
    (tmp_path / "a.csv").write_text(text(numbers(pleth), header="when,left,right"))
    assert reject_of(tmp_path, "a.csv").code == "no-sampling-rate"  # "when" could be a signal
    row = record_of(tmp_path, "a.csv", time="when", columns={"right": "ECG"}, units="mV")
    assert (row.fields["leads"], row.fields["units"]) == ("ECG", "mV")
    only = samples_of(tmp_path, "a.csv", time="1", columns={"3": "ECG"})
    np.testing.assert_array_equal(only.samples[0], pleth[:, 1].astype(np.float32))
    assert reject_of(tmp_path, "a.csv", columns={"middle": "ECG"}).code == "no-such-column"
    with pytest.raises(UsageError, match="reader.files"):
        record_of(tmp_path, "a.csv", files={"*.csv": {"fz": 3}})


def test_people_in_one_table_are_items_of_their_own(tmp_path: Path, pleth: np.ndarray) -> None:
    rows = [["Roe" if n < 1200 else "Doe", *row] for n, row in enumerate(numbers(pleth))]
    (tmp_path / "a.csv").write_text(text(rows, header="subject,time,PLETH,II"))
    found = rows_of(tmp_path, "a.csv")
    assert [row.patient for row in found if isinstance(row, Record)] == ["Roe", "Doe"]
    assert [row.fields["samples"] for row in found if isinstance(row, Record)] == [1200, 800]
    doe = read(tmp_path, found[1].files[0], settings_of({}))  # type: ignore[union-attr]
    np.testing.assert_array_equal(doe.samples[0], pleth[1200:, 0].astype(np.float32))


def test_a_vocabulary_of_ones_own(tmp_path: Path, pleth: np.ndarray) -> None:
    (tmp_path / "a.csv").write_text(text(numbers(pleth), header="time,LED-3 raw,Galvo"))
    assert record_of(tmp_path, "a.csv").fields["leads"] == "other,other"
    mine = {
        "PPG": {"names": {"PPG-green": ["led 3 raw"]}},
        "galvanic": {"band": [0, 4], "units": None, "names": {"galvo": []}},
    }
    row = record_of(tmp_path, "a.csv", vocabulary=mine)
    assert (row.fields["leads"], row.fields["kinds"]) == ("PPG-green,galvo", "PPG,galvanic")
    with pytest.raises(UsageError, match="reader.vocabulary"):
        record_of(tmp_path, "a.csv", vocabulary={"PPG": ["green"]})


def test_the_command_line_says_what_files_do_not(pleth: np.ndarray, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from medcl_cli.main import app

    runner = CliRunner()
    archive = tmp_path / "archive"
    archive.mkdir()
    np.savetxt(archive / "ring.csv", pleth[:, 0])
    command = ["index", str(archive), "--plugin", "biosignals", "--out", str(tmp_path / "idx")]
    first = runner.invoke(app, [*command, "--json", "-s", "reader.fs=32"])
    assert first.exit_code == 0, first.output
    given = ["--set", "reader.fs=32", "--set", "reader.columns.1=PPG-green"]
    again = runner.invoke(app, [*command, "--json", *given])
    assert json.loads(again.stdout)["scanned"] == 1, "other settings read the file again"
    unchanged = runner.invoke(app, [*command, "--json"])
    assert json.loads(unchanged.stdout)["reused"] == 1, "the settings are kept"
    index = Index.open(tmp_path / "idx")
    assert index.items["leads"].to_list() == ["PPG-green"]
    assert index.reader == {"fs": 32, "columns": {"1": "PPG-green"}}
    assert "reader" not in (tmp_path / "idx/index.json").read_text()
    said = tmp_path / "reader.yaml"
    said.write_text("fs: 64\ncolumns: {1: PPG-green}\n")
    runner.invoke(app, [*command, "-s", f"reader=@{said}"])
    assert Index.open(tmp_path / "idx").items["fs"].to_list() == [64]
    wrong = runner.invoke(app, [*command, "-s", "reader.colums.1=PPG"])
    assert isinstance(wrong.exception, UsageError)
    assert "Did you mean 'columns'" in str(wrong.exception)


# --- times that are not what they should be -------------------------------------------------------


def timed(root: Path, x: np.ndarray, times: np.ndarray, **said: Any) -> tuple[Record, np.ndarray]:
    (root / "a.csv").write_text(text(numbers(x, times)))
    row = record_of(root, "a.csv", **said)
    return row, np.stack(samples_of(root, "a.csv", **said).samples, axis=1)


def test_reversed_times(tmp_path: Path, pleth: np.ndarray) -> None:
    row, ours = timed(tmp_path, pleth[::-1], T[::-1])
    assert "reversed-times" in row.findings
    np.testing.assert_array_equal(ours, pleth.astype(np.float32))


def test_rows_out_of_order(tmp_path: Path, pleth: np.ndarray) -> None:
    order = np.arange(2000)
    order[500:510] = order[500:510][::-1]
    row, ours = timed(tmp_path, pleth[order], T[order])
    assert "unsorted-times" in row.findings
    np.testing.assert_array_equal(ours, pleth.astype(np.float32))


def test_a_pause_is_a_gap(tmp_path: Path, pleth: np.ndarray) -> None:
    late = np.where(np.arange(2000) < 1000, T, T + 5.0)
    row, ours = timed(tmp_path, pleth, late)
    assert "gaps" in row.findings
    assert row.fields["samples"] == 2500
    assert np.isnan(ours[1000:1500]).all()
    np.testing.assert_array_equal(ours[1500:], pleth[1000:].astype(np.float32))
    arrays = prepare(tmp_path, row.files, row.fields, fs=100.0)
    assert arrays["gaps"].tolist() == [[1000, 1500]]


def test_lost_and_repeated_rows(tmp_path: Path, pleth: np.ndarray) -> None:
    keep = np.delete(np.arange(2000), [700, 701, 1300])
    row, ours = timed(tmp_path, pleth[keep], T[keep])
    assert np.isnan(ours[[700, 701, 1300]]).all()
    np.testing.assert_array_equal(ours[keep], pleth[keep].astype(np.float32))
    twice = np.sort(np.concatenate([np.arange(2000), [400, 900]]))
    row, ours = timed(tmp_path, pleth[twice], T[twice])
    assert "repeated-times" in row.findings
    np.testing.assert_allclose(ours, pleth, atol=1e-6)


@pytest.mark.parametrize("form", ["", "%Y-%m-%d %H:%M:%S.%L", "%H:%M:%S.%L"])
def test_a_few_rows_without_a_time_are_left_out(
    tmp_path: Path, pleth: np.ndarray, form: str
) -> None:
    rows = numbers(pleth, stamps(form) if form else None)
    rows[300][0], rows[1500][0] = "", "soon" if form else "NaN"
    (tmp_path / "a.csv").write_text(text(rows))
    row = record_of(tmp_path, "a.csv")
    assert "rows-without-time" in row.findings
    ours = np.stack(samples_of(tmp_path, "a.csv").samples, axis=1)
    assert np.flatnonzero(np.isnan(ours[:, 0])).tolist() == [300, 1500]
    keep = np.delete(np.arange(2000), [300, 1500])
    np.testing.assert_array_equal(ours[keep], pleth[keep].astype(np.float32))


def test_jitter_is_resampled(tmp_path: Path) -> None:
    """Synthetic: a sine sampled at jittered times comes back as the sine on a grid."""
    random = np.random.default_rng(0)
    times = T + random.uniform(-0.004, 0.004, 2000)
    wave = np.sin(2 * np.pi * 1.3 * times)
    row, ours = timed(tmp_path, np.stack([wave, wave], axis=1), times)
    assert row.fields["fs"] == 100
    assert "irregular-times" in row.findings
    grid = times[0] + np.arange(len(ours)) / 100
    np.testing.assert_allclose(ours[5:-5, 0], np.sin(2 * np.pi * 1.3 * grid)[5:-5], atol=0.01)


def test_a_wrong_sampling_rate_is_a_finding(tmp_path: Path, pleth: np.ndarray) -> None:
    row, _ = timed(tmp_path, pleth, T, fs=250.0)
    assert "fs-mismatch" in row.findings
    assert row.fields["fs"] == 100  # the times count
    row, _ = timed(tmp_path, pleth, T, fs=100.0)
    assert "fs-mismatch" not in row.findings


@pytest.mark.parametrize(
    ("times", "code"),
    [
        (np.arange(2000.0), "ambiguous-times"),
        (np.concatenate([T[:1000], T[:1000]]), "times-jump-back"),
        (np.where(np.arange(2000) == 1999, 1e7, T), "sparse-times"),
        (np.full(2000, 5.0), "too-short"),
    ],
)
def test_times_that_make_no_recording(
    tmp_path: Path, pleth: np.ndarray, times: np.ndarray, code: str
) -> None:
    (tmp_path / "a.csv").write_text(text(numbers(pleth, times)))
    reject = reject_of(tmp_path, "a.csv")
    assert reject.code == code
    if code == "ambiguous-times":
        assert "reader.time_unit=ms" in reject.reason
        assert record_of(tmp_path, "a.csv", time_unit="ms").fields["fs"] == 1000
        assert record_of(tmp_path, "a.csv", time="none", fs=50).fields["fs"] == 50


# --- files that are no recording ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "empty-file"),
        (b"\n\n  \n", "empty-file"),
        (b"time,PLETH\n", "not-a-signal"),
        (b"Dear Anna Roe,\nthe recording, as promised, is on the other drive.\n", "not-a-signal"),
        (b"name,city\nAnna Roe,Bern\nJane Doe,Basel\n" * 20, "not-a-signal"),
        (b"ecg_id,age,sex,site,report\n1,56,1,0,sinus\n2,19,0,0,sinus\n" * 20, "not-a-signal"),
        (bytes(range(256)) * 20, "not-a-signal"),
        (b"time,PLETH\n0,1\n0.01,2\n", "too-short"),
        (b"time,PLETH\n" + b"".join(b"%.2f,\n" % (n / 100) for n in range(900)), "no-samples"),
    ],
)
def test_what_is_no_recording_is_one_reject(tmp_path: Path, content: bytes, code: str) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    reject = reject_of(tmp_path, "a.csv")
    assert reject.code == code
    for name in ("Anna", "Roe", "Bern"):
        assert name not in reject.reason


def test_an_empty_channel_and_words_among_numbers(tmp_path: Path, pleth: np.ndarray) -> None:
    rows = [[t, "NaN", v] for t, _, v in numbers(pleth)]
    rows[700][2] = "ERR"
    (tmp_path / "a.csv").write_text(text(rows, header="time,PLETH,II"))
    row = record_of(tmp_path, "a.csv")
    assert row.fields["leads"] == "PLETH,II"
    assert "empty-channel" in row.findings
    empty, ours = samples_of(tmp_path, "a.csv").samples
    assert np.isnan(empty).all()
    assert np.flatnonzero(np.isnan(ours)).tolist() == [700]
    arrays = prepare(tmp_path, row.files, row.fields, fs=50.0, leads=("PLETH", "II"))
    assert arrays["present"].tolist() == [False, True]


def test_unit_of_another_file_is_not_touched(tmp_path: Path) -> None:
    assert not list(plugin.units([_stat(Path(__file__), "notes.md")]))
    (tmp_path / "notes.txt").write_text("12\n13\n14\n" * 200)  # opened, but no recorder wrote it
    assert rows_of(tmp_path, "notes.txt") == []
    assert isinstance(next(iter(plugin.units([_stat(Path(__file__), "A.CSV")]))), Unit)
