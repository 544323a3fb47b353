"""Variants of tables that were once read wrong: decimal signs, quotes, dates, filters, packing.

Written for the tests, after what the programs of recorders write in other languages and settings.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from medcl.plugin import FileStat, Record, Reject
from medcl_biosignals.naming import meant
from medcl_biosignals.plugin import plugin
from medcl_biosignals.readers.choose import read
from medcl_biosignals.readers.columns import parted
from medcl_biosignals.readers.contract import Settings
from medcl_biosignals.readers.measures import known_unit
from medcl_biosignals.sidecar import NotUnderstood, table_spans
from medcl_biosignals.vocabulary import vocabulary

N = 640
X = np.random.default_rng(0).normal(size=N).round(3)


def rows_of(root: Path) -> list[Record | Reject]:
    stats = [FileStat(path.name, path.stat().st_size, 0) for path in sorted(root.iterdir())]
    return [row for unit in plugin.units(stats) for row in plugin.scan(root, unit)]


def record(root: Path, name: str, content: str | bytes) -> Record:
    (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    (row,) = rows_of(root)
    assert isinstance(row, Record), row
    return row


def samples(root: Path, row: Record) -> np.ndarray:
    return read(root, row.files[0], Settings()).samples[0]


def table(header: str, rows: object, mark: str = ",") -> str:
    assert isinstance(rows, zip)
    return "\n".join([header, *(mark.join(map(str, row)) for row in rows)]) + "\n"


# --- signs, units and filters in names ------------------------------------------------------------


@pytest.mark.parametrize("lead", ["aVR", "II", "V1"])
@pytest.mark.parametrize("form", ["-{}", "{}-", "ECG -{}", "-{} [mV]", "-{}_mV", "- {} (mV)",
                                  "lead -{}", "\u2212{}", "{} inverted", "inv {}"])  # fmt: skip
def test_a_lead_turned_over_is_one_however_it_is_written(lead: str, form: str) -> None:
    bare, unit = parted(form.format(lead))
    assert meant(bare, vocabulary({}), unit=known_unit(unit)).name == f"-{lead}"


def test_an_electrode_with_its_reference_left_off_is_not_turned() -> None:
    assert meant("Fp1-", vocabulary({})).name != "-Fp1"


@pytest.mark.parametrize(
    "name", ["ECG (.5 - 35 Hz)", "ECG 0.5-35Hz", "ECG 50 Hz notch", "ECG HP 100 Hz",
             "ECG filtered 40 Hz", "ECG BP 1-100 Hz"],
)  # fmt: skip
def test_the_frequencies_of_a_filter_are_no_rate(tmp_path: Path, name: str) -> None:
    text = table(f"time [s],{name}", zip(np.arange(N) / 250, X, strict=True))
    row = record(tmp_path, "a.csv", text)
    assert (row.fields["fs"], row.fields["kinds"]) == (250, "ECG")
    assert "fs-mismatch" not in row.findings
    (tmp_path / "a.csv").write_text(name + "\n" + "\n".join(map(str, X)))
    (reject,) = rows_of(tmp_path)
    assert isinstance(reject, Reject)
    assert reject.code == "no-sampling-rate"


def test_galileos_are_no_thousandths_of_g() -> None:
    assert known_unit("mGal") == "other"
    assert known_unit("mg") == "mg"


# --- moments --------------------------------------------------------------------------------------

MONTHS = {
    "fr": "janv. févr. mars avr. mai juin juil. août sept. oct. nov. déc.",
    "es": "ene feb mar abr may jun jul ago sep oct nov dic",
    "de": "Jan Feb Mär Apr Mai Jun Jul Aug Sep Okt Nov Dez",
}
DATES = {
    "day behind": "{0:%H:%M:%S}.{ms} {0:%d/%m/%Y}",
    "PhysioNet": "[{0:%H:%M:%S}.{ms} {0:%d/%m/%Y}]",
    "points and blanks": "{0:%d. %m. %Y %H:%M:%S}.{ms}",
    "fr": "{0:%d} {month} {0:%Y %H:%M:%S}.{ms}",
    "es": "{0:%d}-{month}-{0:%Y %H:%M:%S}.{ms}",
    "de": "{0:%d}. {month} {0:%Y %H:%M:%S},{ms}",
}


@pytest.mark.parametrize("form", DATES)
@pytest.mark.parametrize("month", range(1, 13))
def test_dates_of_other_orders_and_languages(tmp_path: Path, form: str, month: int) -> None:
    start = datetime(2021, month, 14, 22, 59, 58)
    moments = [start + timedelta(seconds=n / 50) for n in range(N)]
    name = MONTHS[form].split()[month - 1] if form in MONTHS else ""
    told = [DATES[form].format(m, ms=f"{m.microsecond // 1000:03d}", month=name) for m in moments]
    row = record(tmp_path, "a.csv", table("when;PPG", zip(told, X, strict=True), ";"))
    assert (row.fields["fs"], row.fields["samples"]) == (50, N)
    np.testing.assert_array_equal(samples(tmp_path, row), X.astype(np.float32))


@pytest.mark.parametrize(("name", "each"), [("micros", 4000), ("millis", 4), ("nanos", 4_000_000)])
def test_counters_as_microcontrollers_call_them(tmp_path: Path, name: str, each: int) -> None:
    row = record(tmp_path, "a.csv", table(f"{name},II", zip(np.arange(N) * each, X, strict=True)))
    assert (row.fields["fs"], row.fields["leads"]) == (250, "II")


# --- headers of recorders -------------------------------------------------------------------------

COUNTS = np.arange(N) % 97 - 40
E4 = {
    "decimal comma": "1611140400,000000\n64,000000\n" + "\n".join(f"{c},25" for c in COUNTS),
    "quoted": '"1611140400.000000"\n"64.000000"\n' + "\n".join(f'"{c}.25"' for c in COUNTS),
    "Windows": "1611140400.000000\r\n64.000000\r\n" + "\r\n".join(f"{c}.25" for c in COUNTS),
}


@pytest.mark.parametrize("form", E4)
def test_empatica_in_other_settings(tmp_path: Path, form: str) -> None:
    row = record(tmp_path, "BVP.csv", E4[form] + "\n")
    assert (row.fields["fs"], row.fields["samples"], row.fields["leads"]) == (64, N, "PPG")
    want = [float(f"{c}.25") for c in COUNTS]
    np.testing.assert_allclose(samples(tmp_path, row), want)


@pytest.mark.parametrize(
    ("mark", "comma"), [(";", True), ("\t", True), ("\t", False), (",", False)]
)
@pytest.mark.parametrize("quoted", [False, True])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_acqknowledge_in_other_settings(
    tmp_path: Path, mark: str, comma: bool, quoted: bool, end: str
) -> None:
    def number(value: float) -> str:
        return f"{value:.3f}".replace(".", "," if comma else ".")

    above = ["rec.acq", f"{'2,5' if comma else '2.5'} msec/sample", "2 channels",
             "ECG", "mV", "PPG", "Volts"]  # fmt: skip
    below = [mark.join(["CH1", "CH2", ""]), mark.join([str(N), str(N), ""])]
    shown = [f'"{line}"' if quoted else line for line in above]
    body = [mark.join([number(x), number(2 * x), ""]) for x in X]
    row = record(tmp_path, "a.txt", end.join([*shown, *below, *body]) + end)
    assert (row.fields["fs"], row.fields["samples"]) == (400, N)
    assert (row.fields["kinds"], row.fields["units"]) == ("ECG,PPG", "mV,V")
    np.testing.assert_array_equal(samples(tmp_path, row), X.astype(np.float32))


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-16", "utf-8-sig", "cp1252"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    text = table("time,ECG [µV]", zip(np.arange(N) / 250, X, strict=True))
    row = record(tmp_path, "a.csv", text.encode(encoding))
    assert (row.fields["leads"], row.fields["units"]) == ("ECG", "uV")
    np.testing.assert_array_equal(samples(tmp_path, row), X.astype(np.float32))


@pytest.mark.parametrize(("suffix", "pack"), [("gz", gzip.compress), ("xz", lzma.compress),
                                              ("bz2", bz2.compress)])  # fmt: skip
def test_packed_text_is_read_where_a_recorder_wrote_it(
    tmp_path: Path, suffix: str, pack: object
) -> None:
    assert callable(pack)
    head = "# Simple Text Format\n# Sampling Rate (Hz):= 250.00\n# Labels:= ECG\n"
    row = record(tmp_path, f"a.txt.{suffix}", pack((head + "\n".join(map(str, X))).encode()))
    assert (row.fields["fs"], row.fields["leads"]) == (250, "ECG")
    (tmp_path / f"a.txt.{suffix}").write_bytes(pack(b"Dear Sir,\nas promised.\n" * 50))
    assert rows_of(tmp_path) == []


# --- events beside a recording --------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "onset,trial_type\n0,stress\n10000,rest\n20000,stress\n",  # milliseconds, no duration
        "onset,duration,trial_type\n0,0,stress\n5,0,rest\n",  # moments, not spans
    ],
)
def test_events_that_cover_nothing_are_not_understood(tmp_path: Path, text: str) -> None:
    (tmp_path / "a_events.csv").write_text(text)
    with pytest.raises(NotUnderstood):
        table_spans(tmp_path / "a_events.csv", 60.0)
