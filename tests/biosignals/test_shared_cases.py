"""Every file of ../shared/cases/signals, and all that its scripts write: what is read of each.

The table in docs/biosignals.md says the same in words.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from fnmatch import fnmatchcase as fnmatch
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import pytest

from medcl.plugin import FileStat, Record, Reject
from medcl_biosignals.plugin import plugin
from medcl_biosignals.readers.choose import read
from medcl_biosignals.readers.contract import Settings

pytestmark = pytest.mark.shared_data


class Want(NamedTuple):
    """What the index should say: rate, leads, units, samples, and findings beyond the person's."""

    fs: float
    leads: str
    units: str
    samples: int
    findings: frozenset[str] = frozenset()


PPG = Want(64.0, "PPG", "unknown", 3840)
S = frozenset({"assumed-seconds"})
SECONDS = PPG._replace(findings=S)
ECG = Want(128.0, "ECG", "uV", 7680)
FILES: dict[str, Want | str] = {
    "acc_before_ppg_green.parquet": Want(
        64.0, "ACC-x,ACC-y,ACC-z,TEMP,PPG-green,PPG-ir", ",".join(["unknown"] * 6), 7680,
        frozenset({"no-unit"}),
    ),
    "dst_offset_spring_small.csv": PPG._replace(samples=1280),
    "e4_ACC.csv": Want(32.0, "ACC-x,ACC-y,ACC-z", "g/64,g/64,g/64", 320),
    "e4_BVP.csv": PPG._replace(samples=640),
    "ecg250_second_stamps.csv": Want(250.0, "ECG", "mV", 2500, frozenset({"repeated-times"})),
    "edfio_XXXX_0.edf": ECG._replace(samples=5120),
    "edfio_XXXX_1.edf": ECG._replace(samples=5120),
    "max30102_ir_red.csv": Want(100.0, "PPG-ir,PPG-red", "unknown,unknown", 4000, S),
    "mu_latin1.edf": ECG,
    "mu_utf8.edf": ECG,
    "opensignals.csv": Want(1000.0, "ECG,PPG", "a.u.,a.u.", 1297, frozenset({"no-unit"})),
    "polar_ecg.csv": Want(130.0, "ECG", "uV", 1200),
}  # fmt: skip
TABLES: dict[str, Want | str] = {
    "e4/BVP.csv": PPG,
    "e4/ACC.csv": Want(32.0, "ACC-x,ACC-y,ACC-z", "g/64,g/64,g/64", 1920),
    "e4/EDA.csv": Want(4.0, "EDA", "uS", 240),
    "e4/TEMP.csv": Want(4.0, "TEMP", "degC", 240, frozenset({"no-waveform"})),
    "e4/HR.csv": Want(1.0, "HR", "bpm", 50, frozenset({"no-waveform"})),
    "e4/IBI.csv": "not-a-signal",
    "e4/tags.csv": "not-a-signal",
    "1611144212_A01F11.zip": Want(
        64.0, "ACC-x,ACC-y,ACC-z,PPG,EDA,HR,TEMP", "g/64,g/64,g/64,unknown,uS,bpm,degC", 3840
    ),
    "polar_ecg.csv": Want(130.0, "ECG", "uV", 3840),
    **{f"epoch_{unit}.csv": PPG for unit in ("s", "ms", "us", "ns")},
    "int32_overflow_ms.csv": PPG._replace(findings=frozenset({"counter-began-anew"})),
    "dst_local.csv": PPG._replace(findings=frozenset({"clocks-changed"})),
    "dst_spring.csv": PPG._replace(findings=frozenset({"clocks-changed"})),
    **dict.fromkeys(
        (
            "decimal_comma.csv", "quoted.csv", "comments.csv", "utf16.csv", "bom.csv", "g.csv.gz",
            "x.csv.xz", "z.zip", "excel.xlsx", "f.feather", "indexed.parquet", "string_nan.csv",
        ),
        SECONDS,
    ),
    "dup_cols.csv": Want(64.0, "PPG,PPG", "unknown,unknown", 3840, S),
    "tz_ms.parquet": PPG,
    "long.parquet": Want(64.0, "PPG,ACC-x", "unknown,unknown", 3840, frozenset({"no-unit"})),
    "midnight_clock.csv": PPG,
    "dd_mm.csv": PPG,
    "ecg_2021-01-20.csv": Want(512.0, "I", "uV", 15360),
    "opensignals.csv": Want(1000.0, "ECG,PPG", "a.u.,a.u.", 3840, frozenset({"no-unit"})),
    "oura_heartrate.csv": Want(1 / 300, "HR", "unknown", 280, frozenset({"no-waveform"})),
    "no_time.csv": "no-sampling-rate",
    "firstcol_index.csv": "no-sampling-rate",
    "p.pkl": "pickled-objects",
    "S2.pkl": "pickled-objects",
    "heart_rate-2021-01-20.json": "too-short",  # one value
}  # fmt: skip
EDF: dict[str, Want | str] = {
    "cont.edf": ECG,
    "edfplusd_gap.edf": ECG._replace(samples=20480, findings=frozenset({"gaps"})),
    "edfplusd_overlap.edf": ECG._replace(samples=7616, findings=frozenset({"overlapping-records"})),
    "edfplusd_back.edf": "bad-times",
    "edfplusd_fracgap.edf": ECG._replace(samples=7723, findings=frozenset({"gaps"})),
    "edfplusc_with_gap.edf": ECG._replace(
        samples=20480, findings=frozenset({"gaps", "says-it-is-continuous"})
    ),
    "minus1.edf": ECG,
    "less_records.edf": ECG._replace(samples=6400, findings=frozenset({"longer-than-header"})),
    "more_records.edf": ECG._replace(findings=frozenset({"truncated"})),
    "truncated_mid.edf": ECG._replace(samples=7552, findings=frozenset({"truncated"})),
    "dup_names.edf": Want(128.0, "ECG,ECG", "uV,uV", 7680),
    "mu_latin1.edf": ECG,
    "mu_utf8.edf": ECG,
    "mu_greek_utf8.edf": ECG,
    "unit_volts.edf": ECG._replace(units="V"),
    "unit_nV.edf": ECG._replace(units="nV"),
    "pmin_eq_pmax.edf": Want(128.0, "ECG,ECG2", "uV,uV", 7680, frozenset({"uncalibrated-channel"})),
    "dmin_eq_dmax.edf": Want(128.0, "ECG,ECG2", "uV,uV", 7680, frozenset({"uncalibrated-channel"})),
    "inverted_cal.edf": ECG,
    "comma_decimal.edf": ECG,
    "status.bdf": Want(
        128.0, "ECG,other", "uV,other", 7680, frozenset({"unknown-unit", "unknown-channel"})
    ),
    "dur0.edf": "no-signals",
    "dur_frac.edf": ECG,
    "dur_comma.edf": ECG,
    "names_ascii.edf": ECG,
    "crosstalk.edf": Want(
        128.0, "ECG,other,ECG,EKG1-EKG2", "uV,uV,uV,uV", 7680, frozenset({"unknown-channel"})
    ),
    "no_annotations_only.edf": "no-signals",
}
NAMED = {"long.parquet", "ecg_2021-01-20.csv", "names_ascii.edf"}
"""Files that say whose they are."""


@pytest.fixture(scope="session")
def cases(shared_data: Path) -> Path:
    folder = shared_data.parent / "cases" / "signals"
    if not folder.is_dir():
        pytest.skip("the cases are not here")
    return folder


@pytest.fixture(scope="session")
def written(cases: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    for module in ("neurokit2", "pandas", "openpyxl"):
        pytest.importorskip(module)
    folder = tmp_path_factory.mktemp("written")
    (folder / "edfx").mkdir()
    for script in ("make_tables.py", "mkedf.py"):
        subprocess.run([sys.executable, str(cases / script)], cwd=folder, check=True)
    return folder


def rows_of(root: Path) -> dict[str, Record | Reject]:
    files = [
        FileStat(path.relative_to(root).as_posix(), path.stat().st_size, 0)
        for path in sorted(root.rglob("*"))
        if path.is_file()
    ]
    return {row.key: row for unit in plugin.units(files) for row in plugin.scan(root, unit)}


def check(rows: dict[str, Record | Reject], name: str, want: Want | str) -> None:
    row = rows[name]
    if isinstance(want, str):
        assert isinstance(row, Reject), row
        assert row.code == want
        return
    assert isinstance(row, Record), row
    assert row.fields["fs"] == pytest.approx(want.fs, rel=1e-6)
    told: tuple[Any, ...] = tuple(row.fields[n] for n in ("leads", "units", "samples"))
    assert told == (want.leads, want.units, want.samples)
    persons = {"patient-is-record-name", "patient-is-folder"}
    assert set(row.findings) - persons == want.findings
    assert (Path(name).name in NAMED) == (not persons & set(row.findings))


def test_the_docs_name_every_file() -> None:
    """In the first column of their table, by name or pattern, with the suffix or without."""
    docs = Path(__file__).parents[2] / "docs" / "biosignals.md"
    section = docs.read_text(encoding="utf-8").partition("## Files of wearables and loggers")[2]
    first = [line.split("|")[1] for line in section.splitlines() if line.startswith("| ")]
    named = re.findall(r"`([^`]+)`", " ".join(first))
    assert len(named) > 50
    for name in (*FILES, *TABLES, *EDF):
        path = PurePosixPath(name)
        shown = (name, path.name, path.stem, PurePosixPath(path.stem).stem)
        folder = any(token.endswith("/") and name.startswith(token) for token in named)
        assert folder or any(fnmatch(s, token) for s in shown for token in named), name


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_the_files(cases: Path, name: str) -> None:
    rows = rows_of(cases)
    assert {key for key in rows if not key.startswith("fixed1/")} == set(FILES)
    check(rows, name, FILES[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLES)
def test_the_tables(written: Path, name: str) -> None:
    rows = rows_of(written / "tab")
    assert set(rows) == set(TABLES)
    check(rows, name, TABLES[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", EDF)
def test_the_edf_files(written: Path, name: str) -> None:
    rows = rows_of(written / "edfx")
    assert set(rows) == set(EDF)
    check(rows, name, EDF[name])


@pytest.mark.slow
def test_their_values(written: Path) -> None:
    """All tables of the one PPG hold the same samples; the EDF files' units are one scale."""
    tab = written / "tab"
    truth = np.array([float(line) for line in (tab / "no_time.csv").read_text().split()[1:]])
    for name, want in TABLES.items():
        if isinstance(want, Want) and want.leads == "PPG" and "e4" not in name:
            ours = read(tab, name, Settings()).samples[0]
            held = np.isfinite(ours)
            assert held.mean() == (1 if name != "string_nan.csv" else pytest.approx(0.98, abs=0.01))
            np.testing.assert_allclose(ours[held], truth[held], atol=6e-5)
    whole = read(tab, "1611144212_A01F11.zip", Settings())
    by_name = dict(zip([c.name for c in whole.channels], whole.samples, strict=True))
    np.testing.assert_allclose(by_name["BVP"], truth * 50, atol=0.01)
    assert np.isnan(by_name["HR"][:10]).all()  # it starts ten seconds later
    mv = [
        read(written / "edfx", name, Settings()).samples[0] * by
        for name, by in (("mu_utf8.edf", 1e-3), ("unit_volts.edf", 1e3), ("unit_nV.edf", 1e-6))
    ]
    np.testing.assert_allclose(mv[0], mv[2], atol=1e-4)


def test_several_headers_on_one_signal_file(cases: Path, shared_data: Path, tmp_path: Path) -> None:
    import wfdb

    shutil.copytree(cases / "fixed1", tmp_path / "a")
    shutil.copy(shared_data / "ecg" / "other" / "v102s.dat", tmp_path / "a")
    rows = rows_of(tmp_path)
    assert {key: row.fields["samples"] for key, row in rows.items()} == {  # type: ignore[union-attr]
        "a/v102s": 225_000, "a/v102s_1": 75_000, "a/v102s_2": 75_000, "a/v102s_3": 75_000,
    }  # fmt: skip
    theirs = wfdb.rdrecord(str(tmp_path / "a" / "v102s")).p_signal
    ours = np.stack(read(tmp_path, "a/v102s.hea", Settings()).samples, axis=1)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, equal_nan=True)
