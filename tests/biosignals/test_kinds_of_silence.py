"""Properties over kinds of files that were once read wrong without a word (synthetic tables).

Each draws rates, units, offsets, clocks and names, rather than the one file that showed the fault.
"""

from __future__ import annotations

import gzip
import lzma
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from medcl.plugin import FileStat, Record, Reject
from medcl_biosignals.dataset import dataset
from medcl_biosignals.leads import bound, choose
from medcl_biosignals.naming import meant
from medcl_biosignals.plugin import plugin
from medcl_biosignals.prepare import prepare
from medcl_biosignals.readers import ticks, times
from medcl_biosignals.readers.choose import read
from medcl_biosignals.readers.columns import is_time, parted, time_unit
from medcl_biosignals.readers.contract import BadSignal, kept, person
from medcl_biosignals.readers.measures import factor, known_unit
from medcl_biosignals.scan import settings_of
from medcl_biosignals.vocabulary import vocabulary

KNOWN = vocabulary()
LENIENT = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
rates = st.sampled_from([25.0, 32.0, 50.0, 64.0, 100.0, 125.0, 128.0, 130.0, 250.0, 256.0, 500.0])


def pulse(fs: float, seconds: float = 20.0) -> np.ndarray:
    """A wave of 1.2 Hz with its first harmonic: (N,)."""
    t = np.arange(round(fs * seconds)) / fs
    return np.round(np.sin(2 * np.pi * 1.2 * t) + 0.4 * np.sin(4 * np.pi * 1.2 * t + 1), 4)


def rows_of(root: Path, **said: Any) -> list[Record | Reject]:
    files = [
        FileStat(path.relative_to(root).as_posix(), path.stat().st_size, 0)
        for path in sorted(root.rglob("*"))
        if path.is_file()
    ]
    scan: Any = plugin.scan
    return [row for unit in plugin.units(files) for row in scan(root, unit, **said)]


def one(folder: Path, name: str, content: str | bytes, **said: Any) -> Record | Reject:
    for old in folder.iterdir():
        old.unlink()
    data = content if isinstance(content, bytes) else content.encode()
    (folder / name).write_bytes(data)
    (row,) = rows_of(folder, **said)
    return row


def record(folder: Path, name: str, content: str | bytes, **said: Any) -> Record:
    row = one(folder, name, content, **said)
    assert isinstance(row, Record), row
    return row


def samples(folder: Path, row: Record, **said: Any) -> list[np.ndarray]:
    return read(folder, row.files[0], settings_of(said)).samples


# --- the store: any level, any range --------------------------------------------------------------


@LENIENT
@given(
    spread=st.floats(-6, 9).map(lambda e: 10.0**e),
    level=st.sampled_from([0.0, 1.0, -30.0, 1e3, -1e6, 1e7]),  # in deviations
    dtype=st.sampled_from(["float32", "int16"]),
    spike=st.sampled_from([0.0, 1e4]),
    name=st.sampled_from(["PPG", "TEMP"]),
)
def test_what_is_stored_is_what_was_recorded(
    tmp_path: Path, spread: float, level: float, dtype: Any, spike: float, name: str
) -> None:
    fs = 50.0
    wave = np.random.default_rng(0).normal(size=1500).cumsum()
    wave = (wave - wave.mean()) / wave.std() * spread
    x = wave + level * spread
    x[700] += spike * spread
    np.savez(tmp_path / "a.npz", **{name: x}, fs=fs)
    (row,) = rows_of(tmp_path)
    assert isinstance(row, Record)
    arrays = prepare(
        tmp_path, row.files, row.fields, fs=fs, band=None, leads=(name,), clip=None, dtype=dtype
    )
    back = arrays["x"][0] * arrays["gain"][0] + arrays["offset"][0]
    assert np.abs(back.astype(np.float64) - x).max() < 1e-3 * x.std()
    assert float(arrays["scale"][0]) >= 0

    items = pl.DataFrame({"id": ["a"], "patient": ["p"]})
    made = dataset(items, lambda _: arrays, seconds=5.0, stride=5.0)  # type: ignore[arg-type]
    z = made.read(np.arange(len(made)))["x"][:, 0]
    cut = x.reshape(-1, 250)
    want = (cut - cut.mean(axis=1, keepdims=True)) / cut.std(axis=1, keepdims=True)
    if not spike:
        np.testing.assert_allclose(z, want, atol=5e-3)
    assert np.isfinite(z).all()


@pytest.mark.parametrize("size", [1e-6, 1e-3, 1.0, 1e3, 1e9])
@pytest.mark.parametrize("level", [0.0, 1e9])
def test_quality_and_beats_do_not_depend_on_size(tmp_path: Path, size: float, level: float) -> None:
    found = []
    for by, offset in ((1.0, 0.0), (size, level * size)):
        np.savez(tmp_path / "a.npz", PPG=pulse(64.0, 60) * by + offset, fs=64.0)
        (row,) = rows_of(tmp_path)
        assert isinstance(row, Record)
        found.append(prepare(tmp_path, row.files, row.fields, fs=64.0, channels=1))
    np.testing.assert_allclose(found[1]["quality"], found[0]["quality"], atol=0.02)
    assert abs(len(found[1]["beats"]) - len(found[0]["beats"])) <= 1
    assert len(found[0]["beats"]) > 60


@given(st.floats(-1e12, 1e12), st.floats(1e-6, 1e6))
@settings(max_examples=60, deadline=None)
def test_samples_are_kept_at_the_precision_that_they_need(level: float, spread: float) -> None:
    x = level + spread * np.random.default_rng(0).normal(size=200)
    assume(abs(level) * 2.0**-53 < 1e-5 * spread)
    assert np.abs(kept(x).astype(np.float64) - x).max() <= 1e-3 * spread


# --- wildcards ------------------------------------------------------------------------------------

CHANNELS = ["II", "V1", "PPG-green", "PPG-ir", "ACC-x", "ACC-y", "TEMP", "RESP", "EDA", "ABP"]


@given(
    st.permutations(CHANNELS),
    st.integers(1, len(CHANNELS)),
    st.lists(st.sampled_from(["PPG:*", "ECG:*", "MLII|II|*", "PPG|PLETH|*", "ACC:*"]), max_size=4),
)
@settings(max_examples=200, deadline=None)
def test_a_wildcard_takes_its_own_kind_alone(
    names: list[str], count: int, slots: list[str]
) -> None:
    names = names[:count]
    kinds = [meant(name, KNOWN).kind for name in names]
    picked = choose(names, slots, kinds)
    used = [pick.channel for pick in picked if pick is not None]
    assert len(used) == len(set(used))
    for kind_of_slot, pick in zip(bound(slots), picked, strict=True):
        if pick is not None:
            assert kinds[pick.channel] in kind_of_slot
    for slot, pick in zip(slots, picked, strict=True):
        if pick is None:  # nothing of that kind was left
            (kind,) = bound([slot])[0] - {"other"}
            left = [n for n, k in enumerate(kinds) if k == kind and n not in used]
            assert not left


def test_what_lacks_is_noticed(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", PPG=pulse(64.0), ECG=pulse(64.0), fs=64.0)
    (row,) = rows_of(tmp_path)
    assert isinstance(row, Record)
    arrays = prepare(tmp_path, row.files, row.fields, leads=("PPG:*", "PPG:*"), fs=64.0)
    assert arrays["findings"].tolist() == ["lacks:PPG:*"]
    assert arrays["present"].tolist() == [True, False]
    with pytest.raises(Exception, match=r"none of the leads ACC:\*"):
        prepare(tmp_path, row.files, row.fields, leads=("ACC:*",), fs=64.0)
    free = prepare(tmp_path, row.files, row.fields, channels=2, fs=64.0)
    assert free["findings"].tolist() == ["took:PPG+ECG"]


# --- who is who -----------------------------------------------------------------------------------


@given(
    st.lists(
        st.sampled_from(["X", "x", "anonymous", "ANON", "unknown", "0000", "N/A", "none", "Test"]),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from([" ", "^", "_", ", ", "-"]),
)
def test_placeholders_are_nobody(words: list[str], between: str) -> None:
    assert person(between.join(words)) is None


@given(st.text("ABCDEFGHKLMNPRSTUVWYZ", min_size=3, max_size=8), st.integers(1, 10**9))
def test_people_are_somebody(name: str, number: int) -> None:
    assume(len(set(name)) > 1 and person(name) is not None)
    assert person(f"{name}-{number}") == f"{name}-{number}"
    assume(number < 10**5 or len(set(str(number))) > 1)  # 999999 is nobody
    assert person(str(number)) == str(number)


# --- times ----------------------------------------------------------------------------------------


@given(
    fs=st.one_of(rates, st.floats(20.0, 600.0)),
    tick=st.sampled_from([1e-3, 1e-2, 1 / 60, 0.1, 0.5, 1.0]),
    phase=st.floats(0, 1),
    rounded=st.booleans(),
    gap=st.sampled_from([0, 3, 60]),
)
@settings(max_examples=120, deadline=None)
def test_no_sample_is_lost_to_a_coarse_clock(
    fs: float, tick: float, phase: float, rounded: bool, gap: int
) -> None:
    assume(not 0.98 < fs * tick < 1)  # one tick in fifty or more is skipped: as by a lost sample
    n = max(round(fs * max(12.0, 12 * tick)), 200)
    true = phase * tick + np.arange(n) / fs
    true[n // 2 :] += gap
    told = (np.round if rounded else np.floor)(true / tick) * tick
    grid = times.grid(told)
    span = n / fs
    resampled = "irregular-times" in grid.findings  # to a whole rate nearby
    near = pytest.approx(fs, rel=0.021, abs=0.51)  # half a step of whole rates
    exact = pytest.approx(fs, rel=max(1.5 * tick / span, 2e-3))
    assert grid.fs == (near if resampled else exact)
    placed = grid.place(np.arange(n, dtype=float))
    held = placed[np.isfinite(placed)]
    if not resampled:
        np.testing.assert_array_equal(held, np.arange(n))  # each sample once, in its order
    assert len(held) >= 0.97 * n
    assert grid.length == pytest.approx((span + gap) * grid.fs, abs=2.5 * tick * fs + 0.02 * n + 3)


@given(fs=rates, unit=st.sampled_from(["s", "ms", "us", "ns"]), since=st.booleans())
@settings(max_examples=60, deadline=None)
def test_bare_numbers_count_what_the_channels_allow(fs: float, unit: str, since: bool) -> None:
    """Of an ECG the right unit or a refusal; never another."""
    n = 2000
    start = 1.6e9 if since else 0.0
    values = np.round((start + np.arange(n) / fs) / ticks.UNITS[unit])
    if unit == "s":
        values = start + np.arange(n) / fs
    told = ticks.Told(("ECG",), KNOWN.rates)
    try:
        seconds, _ = ticks.seconds(values, None, told)
    except BadSignal:  # refused, with what to say
        return
    assert times.grid(seconds).fs == pytest.approx(fs, rel=2e-3)


@pytest.mark.parametrize(("kind", "step"), [("other", 5), ("EDA", 5), ("ECG", 1), ("RESP", 2)])
def test_numbers_that_may_count_several_things_are_refused(kind: str, step: float) -> None:
    values = np.arange(500.0) * step
    with pytest.raises(BadSignal) as caught:
        ticks.seconds(values, None, ticks.Told((kind,), KNOWN.rates))
    assert caught.value.code == "ambiguous-times"


def test_a_row_every_five_seconds_is_no_waveform(tmp_path: Path) -> None:
    lines = [f"{5 * n},{60 + n % 7}" for n in range(300)]
    row = record(tmp_path, "a.csv", "\n".join(["time,hr", *lines]))
    assert row.fields["fs"] == pytest.approx(0.2)
    assert "no-waveform" in row.findings


@given(
    bits=st.sampled_from([16, 24, 32]),
    signed=st.booleans(),
    step=st.integers(1, 500),
    before=st.integers(5, 400),
)
@settings(max_examples=60, deadline=None)
def test_counters_that_begin_anew_go_on(bits: int, signed: bool, step: int, before: int) -> None:
    size = 2**bits
    assume(step * 700 < size)  # once
    counted = size - step * before + step * np.arange(700)
    wrapped = counted % size if not signed else (counted + size // 2) % size - size // 2
    if signed:
        counted = counted - size // 2
        wrapped = (counted + size // 2) % size - size // 2
    lifted, found = ticks.unwrapped(wrapped.astype(float))
    np.testing.assert_array_equal(np.diff(lifted), step)
    assert found == ("counter-began-anew",)


FORMS = (
    "%Y-%m-%dT%H:%M:%S.%f", "%Y-%m-%d %H:%M:%S.%f", "%d/%m/%Y %H:%M:%S.%f", "%m/%d/%Y %H:%M:%S.%f",
    "%d.%m.%Y %H:%M:%S.%f", "%m/%d/%Y %I:%M:%S.%f %p", "%d-%b-%Y %H:%M:%S.%f",
    "%d %B %Y %H:%M:%S.%f",
    "%Y/%m/%d %H:%M:%S.%f", "%H:%M:%S.%f", "%I:%M:%S.%f %p", "%d-%b-%Y %H:%M:%S:%L",
    "%b %d %Y %H:%M:%S.%f", "[%d/%m/%Y %H:%M:%S.%f]",
    "%a, %d %b %Y %H:%M:%S.%f +0000", "%A, %d %B %Y %H:%M:%S.%f",
    "%Y-%jT%H:%M:%S.%f", "%Y-%j %H:%M:%S.%fZ", "%Y%jT%H%M%S.%f", "%Y:%j:%H:%M:%S.%f",
)  # fmt: skip


@pytest.mark.slow
@LENIENT
@given(
    form=st.sampled_from(FORMS),
    start=st.datetimes(datetime(2001, 1, 1), datetime(2035, 12, 31)),
    fs=st.sampled_from([50.0, 64.0, 100.0, 125.0]),
    name=st.sampled_from(["time", "when", "ts", "Datum", "recorded_at"]),
)
def test_moments_however_they_are_written(
    tmp_path: Path, form: str, start: datetime, fs: float, name: str
) -> None:
    assume(not 0 <= start.hour <= 3)  # an hour in which clocks change
    x = pulse(fs, 12.0)
    lines = []
    for n, value in enumerate(x):
        moment = start + timedelta(seconds=n / fs)
        text = moment.strftime(form.replace("%L", f"{moment.microsecond // 1000:03d}"))
        lines.append(f"{text};{value}")
    row = record(tmp_path, "a.csv", "\n".join([f"{name};PPG", *lines]))
    assert row.fields["fs"] == pytest.approx(fs, rel=1e-3)
    (ours,) = samples(tmp_path, row)
    np.testing.assert_array_equal(ours, x.astype(np.float32))


@LENIENT
@given(before=st.integers(-11, 13), after=st.integers(-11, 13), fs=st.sampled_from([50.0, 64.0]))
def test_offsets_of_utc_count(tmp_path: Path, before: int, after: int, fs: float) -> None:
    x = pulse(fs, 12.0)
    start = datetime(2021, 3, 28, 0, 59, 55, tzinfo=UTC)
    lines = []
    for n, value in enumerate(x):
        zone = timezone(timedelta(hours=before if n < len(x) // 2 else after))
        lines.append(f"{(start + timedelta(seconds=n / fs)).astimezone(zone).isoformat()},{value}")
    row = record(tmp_path, "a.csv", "\n".join(["time,PPG", *lines]))
    assert row.fields["fs"] == fs
    assert not {"gaps", "unsorted-times", "reversed-times"} & set(row.findings)
    np.testing.assert_array_equal(samples(tmp_path, row)[0], x.astype(np.float32))


@pytest.mark.parametrize("hint", [{}, {"fs": 64.0}, {"time": "none", "fs": 64.0}])
@pytest.mark.parametrize("name", ["ts", "t0", "whatever", "unix_ms"])
@pytest.mark.parametrize("scale", [1e3, 1e6, 1e9])
def test_a_clock_is_never_a_channel(
    tmp_path: Path, hint: dict[str, Any], name: str, scale: float
) -> None:
    x = pulse(64.0)
    stamps = np.round((1.7e9 + np.arange(len(x)) / 64) * scale).astype(np.int64)
    (tmp_path / "a.parquet").unlink(missing_ok=True)
    unit = (
        {} if not name.endswith("ms") else {"time_unit": {1e3: "ms", 1e6: "us", 1e9: "ns"}[scale]}
    )
    pl.DataFrame({name: stamps, "acc_x": x, "ppg_green": x}).write_parquet(tmp_path / "a.parquet")
    (row,) = rows_of(tmp_path, **hint, **unit)
    assert isinstance(row, Record), row
    assert (row.fields["leads"], row.fields["fs"]) == ("ACC-x,PPG-green", 64.0)


@pytest.mark.parametrize(
    ("written", "delimiter"),
    [("{:,.2f}", ";"), ("{:,.2f}", "\t"), ("'{:,.2f}'", ","), ("de", ";"), ("{:,.0f}", ";")],
)
def test_thousands_are_parted(tmp_path: Path, written: str, delimiter: str) -> None:
    values = np.round(np.linspace(3.0, 2_500_000, 900) + 2000 * pulse(50.0, 18.0), 2)
    if written.endswith("0f}"):
        values = np.round(values)

    def cell(value: float) -> str:
        if written == "de":
            return f"{value:,.2f}".translate(str.maketrans(",.", ".,"))
        return written.format(value).replace("'", '"')

    lines = [f"{n / 50:.2f}{delimiter}{cell(v)}" for n, v in enumerate(values)]
    if written == "de":
        lines = [line.replace(".", ",", 1) for line in lines]
    row = record(tmp_path, "a.csv", "\n".join([f"time{delimiter}PPG", *lines]))
    np.testing.assert_allclose(samples(tmp_path, row)[0], values, rtol=1e-6)


# --- numerics, units, names -----------------------------------------------------------------------


@given(
    name=st.sampled_from(["PULSE", "PPG", "ECG", "II", "PLETH", "ABP"]),
    unit=st.sampled_from(["bpm", "1/min", "rpm", "degC", ""]),
    fs=st.sampled_from([1 / 60, 0.2, 1.0, 125.0]),
)
def test_what_cannot_be_a_waveform_is_none(name: str, unit: str, fs: float) -> None:
    found = meant(name, KNOWN, unit=known_unit(unit), fs=fs)
    waveform = unit == "" and fs == 125.0
    assert (found.kind != "numeric") == waveform
    assert bool(found.findings) != waveform


MICRO = ("u", "µ", "μ", "Âµ", "Î¼")


@given(
    micro=st.sampled_from(MICRO),
    base=st.sampled_from(["V", "S"]),
    form=st.sampled_from(["{n}_{u}", "{n} [{u}]", "{n} ({u})", "{n}({u})", "{n}-{u}", "{n}, {u}"]),
    name=st.sampled_from(["ecg", "ECG", "EKG", "Lead II"]),
)
def test_units_in_names(micro: str, base: str, form: str, name: str) -> None:
    bare, unit = parted(form.format(n=name, u=f"{micro}{base}"))
    assert bare == name
    assert known_unit(unit) == f"u{base}"
    assert factor(known_unit(unit), "mV") == (pytest.approx(1e-3) if base == "V" else None)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("EEG Fpz-Cz", "EEG"), ("EEG C3-A2", "EEG"), ("F4-M1", "EEG"), ("EOG horizontal", "EOG"),
        ("Resp oro-nasal", "RESP"), ("EMG submental", "EMG"), ("Temp rectal", "numeric"),
        ("ECG1", "ECG"), ("EKG 1", "ECG"), ("ECG II", "ECG"), ("ECG V1-V2", "ECG"),
        ("EKG1-EKG2", "ECG"), ("LA-LL", "ECG"), ("PPG_raw", "PPG"), ("RSP", "RESP"),
        ("THOR RES", "RESP"), ("ir", "PPG"), ("IR1", "PPG"), ("red_2", "PPG"), ("infrared", "PPG"),
        ("finger_ppg", "PPG"), ("wrist_BVP", "PPG"), ("Accelerometer_X", "ACC"),
        ("Shimmer_8E5F_ECG_LL-RA_24BIT_CAL", "ECG"), ("Shimmer_8E5F_PPG_A13_CAL", "PPG"),
        ("Shimmer_8E5F_Accel_LN_X_CAL", "ACC"), ("Shimmer_8E5F_GSR_Skin_Conductance_CAL", "EDA"),
        ("ECG_Rate", "numeric"), ("PPG quality", "numeric"), ("ABP Sys", "numeric"),
        ("ecg_id", "other"), ("Anna Roe", "other"), ("-aVR", "ECG"), ("−aVR", "ECG"),
    ],
)  # fmt: skip
def test_names_that_recorders_give(name: str, kind: str) -> None:
    assert meant(parted(name)[0], KNOWN).kind == kind


@given(st.sampled_from(["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V6", "MLII"]), st.booleans())
def test_a_lead_the_other_way_up_is_turned(lead: str, upright: bool) -> None:
    recorded = meant(lead if upright else f"-{lead}", KNOWN)
    (pick,) = choose([recorded.name], [lead], [recorded.kind])
    assert pick is not None
    assert pick.sign == (1 if upright else -1)


def test_minus_avr_in_the_store(tmp_path: Path) -> None:
    x = pulse(125.0)
    np.savez(tmp_path / "a.npz", **{"-aVR": x}, fs=125.0)
    (row,) = rows_of(tmp_path)
    assert isinstance(row, Record)
    assert row.fields["leads"] == "-aVR"
    turned = prepare(tmp_path, row.files, row.fields, leads=("aVR",), band=None, fs=125.0)
    np.testing.assert_allclose(turned["x"][0], -x, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("Phone timestamp", None), ("sensor timestamp [ns]", "ns"), ("timestamp [ms]", "ms"),
        ("time_us", "us"), ("t_ms", "ms"), ("elapsed (min)", "min"), ("Timestamp_Unix", None),
        ("device_ticks_ns", "ns"), ("timens", "ns"), ("Shimmer_5E6F_Timestamp_Unix_CAL", None),
    ],
)  # fmt: skip
def test_names_of_times(name: str, unit: str | None) -> None:
    assert is_time(name)
    assert time_unit(name) == unit


@LENIENT
@given(
    form=st.sampled_from(
        ["{0} (1/{1} s)", "{0} [s/{1}]", "{0} (1 / {1} sec)", "{0}[1/{1} seconds]"]
    ),
    name=st.sampled_from(["time", "Time", "t", "timestamp", "ticks"]),
    parts=st.sampled_from([25, 64, 100, 128, 256, 1000]),
)
def test_clocks_that_count_parts_of_a_second(
    tmp_path: Path, form: str, name: str, parts: int
) -> None:
    x = pulse(parts, 4.0)
    lines = [f"{n},{value}" for n, value in enumerate(x)]
    row = record(tmp_path, "a.csv", "\n".join([f"{form.format(name, parts)},PPG", *lines]))
    assert row.fields["fs"] == pytest.approx(parts)


@LENIENT
@given(
    form=st.sampled_from(["{0} [{1} {2}]", "{0} ({1}{2})", "{0}_{1}{2}", "{0} (x{1} {2})"]),
    name=st.sampled_from(["time", "Time", "t", "timestamp"]),
    times=st.sampled_from([2, 4, 5, 8, 10, 20]),
    unit=st.sampled_from(["ms", "msec", "milliseconds"]),
)
def test_clocks_that_count_several_milliseconds(
    tmp_path: Path, form: str, name: str, times: int, unit: str
) -> None:
    fs = 1000 / times
    lines = [f"{n},{value}" for n, value in enumerate(pulse(fs, 4.0))]
    header = f"{form.format(name, times, unit)},PPG"
    row = record(tmp_path, "a.csv", "\n".join([header, *lines]))
    assert row.fields["fs"] == pytest.approx(fs)


@pytest.mark.parametrize(
    "name", ["time (10^-3 s)", "time (1e-3 s)", "time (10**-3 s)", "time (3 x)"]
)
def test_a_clock_of_an_unknown_unit_is_asked_about(tmp_path: Path, name: str) -> None:
    lines = [f"{n},{value}" for n, value in enumerate(pulse(100.0, 4.0))]
    row = one(tmp_path, "a.csv", "\n".join([f"{name},PPG", *lines]))
    assert isinstance(row, Reject)
    assert row.code in ("ambiguous-times", "no-sampling-rate")


@LENIENT
@given(
    form=st.sampled_from(
        ["{h:02d}:{m:02d}", "1:{h:02d}:{m:02d}:{s:02d}", "334:{h}:{m:02d}:{s:02d}"]
    ),
    hour=st.integers(1, 20),
    rows=st.integers(30, 160),
    step=st.sampled_from([60, 120]),
)
def test_clocks_whose_parts_may_be_others_are_asked_about(
    tmp_path: Path, form: str, hour: int, rows: int, step: int
) -> None:
    lines = []
    for n in range(rows):
        of_day = hour * 3600 + n * (step if form.count(":") == 1 else 1)
        h, m, s = of_day // 3600 % 24, of_day // 60 % 60, of_day % 60
        lines.append(f"{form.format(h=h, m=m, s=s)},{n % 7}")
    row = one(tmp_path, "a.csv", "\n".join(["time,EDA [uS]", *lines]))
    assert isinstance(row, Reject)
    assert row.code == "ambiguous-times"


def test_frames_of_a_video_are_no_hundredths_of_a_second(tmp_path: Path) -> None:
    lines = [f"00:00:{n // 25:02d}:{n % 25:02d},{n % 7}" for n in range(400)]
    row = one(tmp_path, "a.csv", "\n".join(["timecode,ECG [mV]", *lines]))
    assert isinstance(row, Reject)


@pytest.mark.parametrize(
    ("cell", "fs"),
    [
        (lambda n: f"{n // 60:02d}:{n % 60:02d}", 1.0),
        (lambda n: f"{10 + n // 240:02d}:{n / 4 % 60:05.2f}", 4.0),
        (lambda n: f"00:00:{n // 50:02d}:{n % 50 * 2:02d}", 50.0),
    ],
    ids=["from 00:00", "with a fraction", "hundredths"],
)
def test_clocks_of_one_meaning_are_read(
    tmp_path: Path, cell: Callable[[int], str], fs: float
) -> None:
    lines = [f"{cell(n)},{n % 7}" for n in range(1000)]
    row = record(tmp_path, "a.csv", "\n".join(["time,EDA [uS]", *lines]))
    assert row.fields["fs"] == pytest.approx(fs)


# --- what stands above a table --------------------------------------------------------------------


@LENIENT
@given(
    fs=st.sampled_from([4.0, 32.0, 64.0, 250.0, 512.0]),
    stem=st.sampled_from(["BVP", "ACC", "EDA", "S2_E4_BVP", "bvp"]),
    start=st.integers(10**9, 2 * 10**9),
)
def test_empatica(tmp_path: Path, fs: float, stem: str, start: int) -> None:
    columns = 3 if "ACC" in stem else 1
    x = np.round(pulse(fs, 12) * 50)
    row_of = [", ".join([f"{v:.6f}"] * columns) for v in (start, fs)]
    body = [",".join([f"{v:.2f}"] * columns) for v in x]
    row = record(tmp_path, f"{stem}.csv", "\n".join([*row_of, *body]) + "\n")
    assert row.fields["fs"] == fs
    assert row.fields["samples"] == len(x)
    assert row.fields["channels"] == columns
    np.testing.assert_array_equal(samples(tmp_path, row)[-1], x.astype(np.float32))


HEADERS = {
    "biosppy": "# Simple Text Format\n# Sampling Rate (Hz):= {fs:.2f}\n"
    "# Resolution:= 12\n# Labels:= ECG\n",
    "words": "Device,X\nSampling Rate,{fs:g} Hz\n\nECG\n",
    "acq": "rec.acq\n{ms:g} msec/sample\n1 channels\nECG\nmV\nCH1,\n{n},\n",
    "labchart": "Interval=\t{s:.9g} s\nChannelTitle=\tECG\nRange=\t10.000 mV\n",
    "constant": "fs,ECG\n",
}


@pytest.mark.slow
@LENIENT
@given(form=st.sampled_from(sorted(HEADERS)), fs=st.sampled_from([100.0, 125.0, 250.0, 500.0]))
def test_the_file_says_its_rate(tmp_path: Path, form: str, fs: float) -> None:
    x = pulse(fs)
    head = HEADERS[form].format(fs=fs, ms=1000 / fs, s=1 / fs, n=len(x))
    if form == "labchart":
        lines = [f"{n / fs:.6f}\t{v}" for n, v in enumerate(x)]
    elif form == "constant":
        lines = [f"{fs:g},{v}" for v in x]
    else:
        lines = [f"{v}" for v in x]
    for hint in ({}, {"fs": fs}, {"fs": 2 * fs}):
        row = record(tmp_path, "a.csv", head + "\n".join(lines) + "\n", **hint)
        assert (row.fields["fs"], row.fields["leads"]) == (pytest.approx(fs), "ECG")
        assert ("fs-mismatch" in row.findings) == (hint.get("fs") == 2 * fs)
        np.testing.assert_array_equal(samples(tmp_path, row, **hint)[0], x.astype(np.float32))


# --- names that look like patterns, packed files --------------------------------------------------


@LENIENT
@given(st.text("ab1[]*?!{}-~", min_size=1, max_size=8), st.sampled_from(["csv", "parquet"]))
def test_names_are_names(tmp_path: Path, stem: str, suffix: str) -> None:
    assume(not stem.startswith(("~", ".")))
    for old in tmp_path.iterdir():
        old.unlink()
    for n, name in enumerate({stem, "a", "ab", "a1"}):
        frame = pl.DataFrame({"PPG": pulse(64.0)[: 600 + 10 * n]})
        path = tmp_path / f"{name}.{suffix}"
        frame.write_csv(path) if suffix == "csv" else frame.write_parquet(path)
    for row in rows_of(tmp_path, fs=64.0):
        assert isinstance(row, Record), row
        path = tmp_path / row.files[0]
        opened = path.open("rb")
        with opened:
            held = pl.read_csv(opened) if suffix == "csv" else pl.read_parquet(opened)
        assert row.fields["samples"] == held.height
        assert len(samples(tmp_path, row, fs=64.0)[0]) == held.height


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "csv.xz", "zip", "feather", "xlsx"])
def test_packed_it_is_the_same(tmp_path: Path, suffix: str) -> None:
    if suffix == "xlsx":
        pytest.importorskip("fastexcel")
        pytest.importorskip("openpyxl")
    x = pulse(64.0)
    frame = pl.DataFrame({"time": np.arange(len(x)) / 64, "PPG": x})
    text = frame.write_csv().encode()
    path = tmp_path / f"a.{suffix}"
    if suffix == "csv.gz":
        path.write_bytes(gzip.compress(text))
    elif suffix == "csv.xz":
        path.write_bytes(lzma.compress(text))
    elif suffix == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.csv", text)
    elif suffix == "feather":
        frame.write_ipc(path, compression="lz4")
    elif suffix == "xlsx":
        frame.to_pandas().to_excel(path, index=False)
    else:
        path.write_bytes(text)
    (row,) = rows_of(tmp_path)
    assert isinstance(row, Record), row
    assert (row.fields["fs"], row.fields["leads"]) == (64.0, "PPG")
    np.testing.assert_array_equal(samples(tmp_path, row)[0], x.astype(np.float32))


# --- headers of WFDB ------------------------------------------------


@pytest.mark.parametrize(
    "when",
    [
        "03:03:10 1/03/2000",
        "03:03:10 31/31/2000",
        "12:00:00 2017-03-01",
        "25:61:61 1/1/1",
        "0:0 0/0/0",
    ],
)
def test_whatever_date_a_header_gives(tmp_path: Path, when: str) -> None:
    import wfdb

    x = pulse(300.0, 10)
    wfdb.wrsamp("A1", fs=300, units=["mV"], sig_name=["ECG"], p_signal=x[:, None], fmt=["16"],
                write_dir=str(tmp_path))  # fmt: skip
    truth = wfdb.rdrecord(str(tmp_path / "A1")).p_signal[:, 0]
    head, _, rest = (tmp_path / "A1.hea").read_text().partition("\n")
    (tmp_path / "A1.hea").write_text(f"{head} {when}\n{rest}")
    (row,) = rows_of(tmp_path)
    assert isinstance(row, Record)
    np.testing.assert_allclose(samples(tmp_path, row)[0], truth, rtol=1e-6)


@pytest.mark.parametrize("table", [True, False])
def test_records_of_ptbxl_are_no_patients(tmp_path: Path, table: bool) -> None:
    import wfdb

    folder = tmp_path / "ptb-xl" / "records100" / "00000"
    folder.mkdir(parents=True)
    for n in (1, 2, 3):
        wfdb.wrsamp(f"{n:05d}_lr", fs=100, units=["mV"], sig_name=["I"], fmt=["16"],
                    p_signal=pulse(100.0, 10)[:, None], write_dir=str(folder))  # fmt: skip
    if table:
        text = "ecg_id,patient_id,filename_lr\n1,15709.0,a\n2,15709.0,b\n3,22.0,c\n"
        (tmp_path / "ptb-xl" / "ptbxl_database.csv").write_text(text)
    rows = [row for row in rows_of(tmp_path) if isinstance(row, Record)]
    assert len(rows) == 3
    if table:
        assert [row.patient for row in rows] == ["15709", "15709", "22"]
    for row in rows:
        assert ("several-records-a-patient" in row.findings) != table


@pytest.mark.parametrize("visits", [2, 40])
def test_a_list_of_recordings_is_none(tmp_path: Path, visits: int) -> None:
    """As PTB-XL's own table: numbers and a date in each row, of several visits a patient."""
    head = "ecg_id,patient_id,age,nurse,recording_date,report,MI\n"
    lines = [
        f"{n},{n % visits}.0,56,2,19{84 + n % 15}-1{n % 3}-0{n % 9 + 1} 09:1{n % 10}:04,sinus,1.0"
        for n in range(200)
    ]
    row = one(tmp_path, "database.csv", head + "\n".join(lines))
    assert isinstance(row, Reject)
    assert row.code == "not-a-signal"
