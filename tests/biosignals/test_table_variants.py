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
from medcl_biosignals.readers.contract import Settings, person
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


@pytest.mark.parametrize("form", [
    "{}/mV", "{},mV", "{}:mV", "{}|mV", "{}; mV", "{}=mV", "{}<mV>", "{} {{mV}}", "{} (in mV)",
    "{} (unit: mV)", "{}_[mV]", "{} milli-V", "{} [m V]", "{} &#109;V", "{} MV",
])  # fmt: skip
@pytest.mark.parametrize("name", ["ECG", "Lead II", "chest_ECG"])
def test_units_in_any_punctuation(form: str, name: str) -> None:
    bare, unit = parted(form.format(name))
    assert (bare, known_unit(unit)) == (name, "mV")


@pytest.mark.parametrize("unit", ["m/s^2", "m/s/s", "m/s\u00b2", "m\u00b7s\u207b\u00b2", "mps2"])
def test_accelerations_keep_their_axis_and_unit(unit: str) -> None:
    bare, found = parted(f"acc_x_{unit}")
    assert (bare, known_unit(found)) == ("acc_x", "m/s2")


@pytest.mark.parametrize("name", ["ECGuV", "ecgUv", "EcgUV", "ECG\u00b5V"])
def test_units_joined_to_names(name: str) -> None:
    bare, unit = parted(name)
    assert (bare.lower(), known_unit(unit)) == ("ecg", "uV")


@pytest.mark.parametrize("name", ["ECG x1000 mV", "ECG_x100_mV", "ECG *10 mV"])
def test_a_unit_times_something_is_not_understood(tmp_path: Path, name: str) -> None:
    row = record(
        tmp_path, "a.csv", table(f"time [s],{name}", zip(np.arange(N) / 250, X, strict=True))
    )
    assert row.fields["kinds"] == "ECG"
    assert "unknown-unit" in row.findings


def test_resistance_does_not_pass_for_conductance(tmp_path: Path) -> None:
    text = table("time [s],GSR [kOhm]", zip(np.arange(N) / 32, X + 99, strict=True))
    assert "unit-not-converted" in record(tmp_path, "a.csv", text).findings


@pytest.mark.parametrize("name", ["ECG - ECG100C", "ECG-", "ECG - chest", "PPG - PPG100C", "ECG -"])
def test_a_dash_before_a_device_turns_nothing(name: str) -> None:
    assert not meant(name, vocabulary({})).name.startswith("-")


@pytest.mark.parametrize(
    "name", ["PPG_SpO2", "PPG_PR", "Pleth PI", "ECG_ST", "ECG_QTc", "ABP HR", "ECG_EMG_Status1",
             "NBP Sys", "NBPd", "ART mean", "ECG HR", "RESP_rate"],
)  # fmt: skip
def test_what_is_worked_out_of_a_signal_is_no_signal(name: str) -> None:
    assert meant(name, vocabulary({})).kind == "numeric"


@pytest.mark.parametrize(("name", "held"), [("PULSE", 125), ("RESP", 500), ("ABP", 125)])
def test_numerics_repeated_beside_waveforms(tmp_path: Path, name: str, held: int) -> None:
    """A rate or a mean once a second, in each row of an ECG at 125 Hz, under a waveform's name."""
    n = 8000
    wave = np.random.default_rng(1).normal(size=n).round(3)
    repeated = 60 + np.random.default_rng(2).integers(0, 40, size=n // held + 1).repeat(held)[:n]
    wave[:held] = wave[0]  # a lead that was off is still one
    text = table(f"time [s],II [mV],{name}", zip(np.arange(n) / 125, wave, repeated, strict=True))
    row = record(tmp_path, "a.csv", text)
    assert row.fields["kinds"] == "ECG,numeric"
    assert "rate-of-no-waveform" in row.findings


def test_all_three_axes_are_read(tmp_path: Path) -> None:
    row = record(
        tmp_path, "a.csv", table("time,x,y,z", zip(np.arange(N) / 50, X, X, X, strict=True))
    )
    assert row.fields["channels"] == 3


# --- who is who -----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [
    "k.A.", "keine Angabe", "N.N.", "n/a", "John Doe", "Doe^Jane", "999999999", "Withheld",
    "Nachname, Vorname", "To be edited", "Name^Vorname", "blinded", "X X 01-JAN-1985 X",
    "<anonymous>",
])  # fmt: skip
def test_other_placeholders_are_nobody(text: str) -> None:
    assert person(text) is None


@pytest.mark.parametrize("text", ["Jane^Roe", "99999", "Na Li", "P07", "Anon-0012", "12 K A Smith"])
def test_names_like_placeholders_are_somebody(text: str) -> None:
    assert person(text) == text


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
    "ISO, basic": "{0:%Y%m%dT%H%M%S}.{ms}",
    "names of files": "{0:%Y%m%d_%H%M%S}_{ms}",
    "digits": "{0:%Y%m%d%H%M%S}{ms}",
    "digits and a point": "{0:%Y%m%d%H%M%S}.{ms}",
    "zone by its city": "{0:%Y-%m-%dT%H:%M:%S}.{ms}[Europe/Berlin]",
    "of a span": "0 days 00:00:{0:%S}.{ms}",
}


@pytest.mark.parametrize("form", DATES)
@pytest.mark.parametrize("month", range(1, 13))
def test_dates_of_other_orders_and_languages(tmp_path: Path, form: str, month: int) -> None:
    start = datetime(2021, month, 14, 22, 59, 0 if form == "of a span" else 55)
    moments = [start + timedelta(seconds=n / 50) for n in range(N)]
    name = MONTHS[form].split()[month - 1] if form in MONTHS else ""
    told = [DATES[form].format(m, ms=f"{m.microsecond // 1000:03d}", month=name) for m in moments]
    row = record(tmp_path, "a.csv", table("when;PPG", zip(told, X, strict=True), ";"))
    near = 2e-4 if form == "digits and a point" else 0  # a float64 of that size is 4 ms off
    assert row.fields["fs"] == pytest.approx(50, rel=near)
    assert row.fields["samples"] == N
    np.testing.assert_array_equal(samples(tmp_path, row), X.astype(np.float32))


@pytest.mark.parametrize(("name", "each"), [("micros", 4000), ("millis", 4), ("nanos", 4_000_000)])
def test_counters_as_microcontrollers_call_them(tmp_path: Path, name: str, each: int) -> None:
    row = record(tmp_path, "a.csv", table(f"{name},II", zip(np.arange(N) * each, X, strict=True)))
    assert (row.fields["fs"], row.fields["leads"]) == (250, "II")


@pytest.mark.parametrize("digits", [0, 3, 6])
def test_times_of_day_in_digits(tmp_path: Path, digits: int) -> None:
    """115959.5 is followed by 120000: no gap of forty seconds at the end of each minute."""
    start = datetime(2021, 1, 1, 11, 59, 55)
    moments = [start + timedelta(seconds=n / 50) for n in range(N)]
    told = [f"{m:%H%M%S}.{m:%f}" if not digits else f"{m:%H%M%S%f}"[: 6 + digits] for m in moments]
    row = record(tmp_path, "a.csv", table("time,PPG", zip(told, X, strict=True)))
    assert (row.fields["fs"], row.fields["samples"]) == (50, N)
    assert "gaps" not in row.findings


@pytest.mark.parametrize(
    ("head", "step"),
    [("ticks,PPG", 512), ("time,PPG", 156.25), ("clock ticks,II", 131), ("Time,PULSE,HR", 60)],
)
def test_clocks_of_unknown_length_are_refused(tmp_path: Path, head: str, step: float) -> None:
    columns = [np.arange(N) % 9 + 60] * head.count(",")
    (tmp_path / "a.csv").write_text(table(head, zip(np.arange(N) * step, *columns, strict=True)))
    (row,) = rows_of(tmp_path)
    assert isinstance(row, Reject)
    assert row.code == "ambiguous-times"


def test_stamps_since_1970_of_whole_milliseconds_give_the_whole_rate(tmp_path: Path) -> None:
    told = [f"{1611140400 + n / 256:.3f}" for n in range(3000)]
    wave = np.resize(X, 3000)
    row = record(tmp_path, "a.csv", table("timestamps,TP9", zip(told, wave, strict=True)))
    assert (row.fields["fs"], row.fields["samples"]) == (256, 3000)


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


# --- rates in words above a table -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("above", "fs"),
    [
        ("# Notch frequency: 50 Hz\n# Sampling rate: 250 Hz\n", 250),
        ("# Notch frequency: 50 Hz\n", None),
        ("Low pass frequency,40 Hz\nHigh pass frequency,0.5 Hz\n", None),
        ("# Heart rate: 70 Hz\n", None),
        ("# original sampling rate: 1000 Hz\n# sampling rate: 250 Hz\n", 250),
        ("# ECG sampling rate: 1000 Hz\n# PPG sampling rate: 250 Hz\n", None),
        ("# Sampling period: 4 ms\n", 250),
        ("# data rate = 0.25 kHz\n", 250),
        ("% fs=250\n", 250),
        ('{"sampling_rate": 250}\n', 250),
        ("Frequency: 250 Hz\n", 250),
    ],
)
def test_only_a_rate_of_sampling_is_the_rate(tmp_path: Path, above: str, fs: int | None) -> None:
    (tmp_path / "a.csv").write_text(above + "ECG\n" + "\n".join(map(str, X)))
    (row,) = rows_of(tmp_path)
    if fs is None:
        assert isinstance(row, Reject)
        assert row.code == "no-sampling-rate"
    else:
        assert isinstance(row, Record)
        assert (row.fields["fs"], row.fields["leads"]) == (fs, "ECG")


@pytest.mark.parametrize(
    "name", ["ecg_mV_raw", "ECG mV (filtered)", "ECG [mV] raw", "ECG (mV) cleaned", "ECG_mV_filt"]
)
def test_what_was_done_to_a_signal_does_not_hide_its_unit(name: str) -> None:
    bare, unit = parted(name)
    assert (meant(bare, vocabulary({})).name, known_unit(unit)) == ("ECG", "mV")
    assert parted("PPG_raw")[1] == ""
    assert meant(parted("IR_raw")[0], vocabulary({})).name == "PPG-ir"


# --- cells with blanks around them ----------------------------------------------------------------


@pytest.mark.parametrize("align", ["<", ">", "^"])
@pytest.mark.parametrize("mark", [",", ";", "\t", " , ", "|"])
@pytest.mark.parametrize("first", [0, 620])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_blanks_around_numbers_cost_no_sample(
    tmp_path: Path, align: str, mark: str, first: int, end: str
) -> None:
    """In all rows, or from one on that is far below those by which the layout is told."""
    times = [f"{1.6e9 + n / 64:.6f}" for n in range(N)]
    cells = [
        [f"{cell:{align}20}" if n >= first else cell for cell in (time, f"{x:.3f}")]
        for n, (time, x) in enumerate(zip(times, X, strict=True))
    ]
    text = end.join([f"time{mark}ppg", *(mark.join(row) for row in cells), ""])
    row = record(tmp_path, "a.csv", text)
    assert (row.fields["fs"], row.fields["samples"]) == (64, N)
    assert "gaps" not in row.findings
    np.testing.assert_allclose(samples(tmp_path, row), X, atol=1e-6)
