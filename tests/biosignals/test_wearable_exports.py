"""Exports of wearables: measured values on grids, waveforms in JSON; whose they are; hostile ones.

FIT files are written by an independent library (fit-tool); the others after what their makers'
exports look like, so docs/biosignals.md lists them as untested on a file of the maker.
"""

from __future__ import annotations

import json
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medcl.plugin import FileStat, Record, Reject
from medcl_biosignals.plugin import plugin
from medcl_biosignals.readers import values
from medcl_biosignals.readers.choose import read
from medcl_biosignals.readers.contract import BadSignal, Recording, Settings

BEGAN = 1_611_140_400.0  # 2021-01-20 11:00 UTC


def rows_of(root: Path) -> dict[str, Record | Reject]:
    files = [
        FileStat(path.relative_to(root).as_posix(), path.stat().st_size, 0)
        for path in sorted(root.rglob("*"))
        if path.is_file()
    ]
    return {row.key: row for unit in plugin.units(files) for row in plugin.scan(root, unit)}


def record_of(root: Path) -> Record:
    (row,) = rows_of(root).values()
    assert isinstance(row, Record), row
    return row


def code_of(root: Path) -> str:
    (row,) = rows_of(root).values()
    assert isinstance(row, Reject), row
    return row.code


def samples_of(root: Path, row: Record) -> Recording:
    return read(root, row.files[0], Settings())


# --- grids of measured values ---------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    step=st.sampled_from([0.25, 1.0, 2.0, 5.0, 60.0, 300.0]),
    missing=st.sets(st.integers(1, 97), max_size=30),
    offset=st.floats(0, 1e6),
)
def test_values_at_even_times_stay_as_they_are(
    step: float, missing: set[int], offset: float
) -> None:
    """Whatever is missing between them, and in whatever order they come."""
    at = np.array([n for n in range(100) if n not in missing])
    order = np.random.default_rng(0).permutation(len(at))
    rates = 40.0 + at
    series = values.Series("HR", "bpm", (BEGAN + offset + step * at)[order], rates[order])
    held, noticed = values.recording([series])
    assert 1 / held.channels[0].fs == pytest.approx(step, rel=1e-5)
    truth = np.full(100, np.nan)
    truth[at] = rates
    np.testing.assert_array_equal(held.samples[0], truth)
    assert noticed == (("gaps",) if missing else ())


def test_values_at_uneven_times_are_means_within_a_cell_and_nothing_between() -> None:
    times = np.array([0, 3, 61, 119, 121, 600.0, 660]) + BEGAN
    series = values.Series("HR", "bpm", times, np.array([60, 70, 80, 90, 100, 110, 120.0]))
    held, noticed = values.recording([series])
    assert noticed == (values.ON_A_GRID,)
    step = 1 / held.channels[0].fs
    row = held.samples[0]
    assert step == 30  # the median step is 58.5 s
    assert row[0] == 65
    assert row[2] == 80
    assert np.isnan(row[5:20]).all()
    assert np.nanmean(row) == pytest.approx(np.mean([65, 80, 90, 100, 110, 120]))


def test_impossible_times_are_left_out_and_far_ones_refused_before_they_fill_the_memory() -> None:
    times = np.array([np.nan, -5.0, 1e12, BEGAN, BEGAN + 1])
    held, _ = values.recording([values.Series("HR", "bpm", times, np.arange(5.0))])
    assert held.samples[0].tolist() == [3, 4]
    wide = np.array([1.0, 1.1, 4e9])
    held, _ = values.recording([values.Series("HR", "bpm", wide, np.ones(3))])
    assert len(held.samples[0]) <= values._MOST_CELLS + 1
    with pytest.raises(BadSignal, match="no measured value"):
        values.recording([values.Series("HR", "bpm", times[:3], np.arange(3.0))])


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2021-01-20 12:00:00 +0100", BEGAN),
        ("2021-01-20 11:00:00 +0000", BEGAN),
        ("2021-01-20T06:00:00-05:00", BEGAN),
        ("2021-01-20T11:00:00.500Z", BEGAN + 0.5),
        ("01/20/21 11:00:00", BEGAN),
        ("2021-01-20 11:00:00.000", BEGAN),
    ],
)
def test_moments(text: str, seconds: float) -> None:
    assert values.moment(text) == seconds
    assert np.isnan(values.moment("Roe, Anna"))


# --- FIT ------------------------------------------------------------------------------------------


def fit_bytes(messages: list[Any]) -> bytes:
    builder = pytest.importorskip("fit_tool.fit_file_builder")
    pytest.importorskip("fitdecode")
    from fit_tool.profile.messages.file_id_message import FileIdMessage
    from fit_tool.profile.profile_type import FileType

    made = builder.FitFileBuilder(auto_define=True, min_string_size=50)
    first = FileIdMessage()
    first.type, first.product, first.manufacturer = FileType.ACTIVITY, 0, 255
    first.time_created, first.serial_number = int(BEGAN * 1000), 77
    made.add(first)
    for message in messages:
        made.add(message)
    return bytes(made.build().to_bytes())


def test_an_activity(tmp_path: Path) -> None:
    """Every second but for a pause; a heart rate of 255 is none."""
    messages = pytest.importorskip("fit_tool.profile.messages.record_message")
    held = []
    for n in [*range(30), *range(90, 120)]:
        message = messages.RecordMessage()
        message.timestamp = int((BEGAN + n) * 1000)
        message.heart_rate = 255 if n == 5 else 60 + n
        message.power, message.enhanced_speed, message.temperature = 200 + n, 2.5, 21
        message.position_lat, message.position_long = 47.1, 8.5
        held.append(message)
    (tmp_path / "run.fit").write_bytes(fit_bytes(held))
    row = record_of(tmp_path)
    assert row.fields["format"] == "FIT"
    assert row.fields["leads"] == "HR,power,speed,TEMP"  # where somebody ran is never read
    assert row.fields["units"] == "bpm,W,m/s,degC"
    assert set(row.findings) == {"gaps", "no-waveform", "patient-is-record-name"}
    heart, power, speed, _ = samples_of(tmp_path, row).samples
    truth = np.full(120, np.nan)
    truth[[*range(30), *range(90, 120)]] = [60 + n for n in [*range(30), *range(90, 120)]]
    truth[5] = np.nan
    np.testing.assert_array_equal(heart, truth)
    assert power[95] == 295
    assert speed[0] == 2.5


def test_a_day_of_monitoring_has_times_of_16_bits(tmp_path: Path) -> None:
    """Their counter begins anew every 18 hours, wherever the first full time lies."""
    messages = pytest.importorskip("fit_tool.profile.messages.monitoring_message")
    first = messages.MonitoringMessage()
    first.timestamp, first.heart_rate = int(BEGAN * 1000), 50
    held = [first]
    for n in range(1, 1440):
        message = messages.MonitoringMessage()
        message.timestamp_16 = (int(BEGAN) - 631065600 + 60 * n) % 65536
        message.heart_rate = 50 + n % 40
        held.append(message)
    (tmp_path / "day.fit").write_bytes(fit_bytes(held))
    row = record_of(tmp_path)
    assert (row.fields["fs"], row.fields["samples"]) == (pytest.approx(1 / 60), 1440)
    (heart,) = samples_of(tmp_path, row).samples
    np.testing.assert_array_equal(heart, 50 + np.arange(1440) % 40)


def test_fit_files_that_are_cut_off_or_hold_nothing(tmp_path: Path) -> None:
    messages = pytest.importorskip("fit_tool.profile.messages.record_message")
    held = []
    for n in range(50):
        message = messages.RecordMessage()
        message.timestamp, message.heart_rate = int((BEGAN + n) * 1000), 60
        held.append(message)
    whole = fit_bytes(held)
    file = tmp_path / "a.fit"
    for damaged in (whole[:-40], whole[: len(whole) // 2], b"\x0e\x10garbage" * 9):
        file.write_bytes(damaged)
        assert code_of(tmp_path) == "bad-signal"
    file.write_bytes(fit_bytes([]))
    assert code_of(tmp_path) == "no-signals"


# --- Fitbit, Samsung, Movesense -------------------------------------------------------------------


def fitbit_day(times: list[float]) -> str:
    rows = [
        {
            "dateTime": datetime.fromtimestamp(BEGAN + t, UTC).strftime("%m/%d/%y %H:%M:%S"),
            "value": {"bpm": 60 + n % 30, "confidence": 3},
        }
        for n, t in enumerate(times)
    ]
    return json.dumps(rows)


def test_fitbit_days_are_of_one_person(tmp_path: Path) -> None:
    folder = tmp_path / "Fitbit" / "Physical Activity"
    folder.mkdir(parents=True)
    (folder / "heart_rate-2021-01-20.json").write_text(fitbit_day([5.0 * n for n in range(200)]))
    (folder / "heart_rate-2021-01-21.json").write_text(fitbit_day([5.0 * n for n in range(100)]))
    (folder / "resting_heart_rate-2021-01-20.json").write_text(
        json.dumps(
            [
                {"dateTime": f"01/{d:02d}/21 00:00:00", "value": {"date": "x", "value": 50.0 + d}}
                for d in range(1, 31)
            ]
        )
    )
    (folder / "exercise-0.json").write_text('[{"logId": 1, "activityName": "Walk"}]')
    other = tmp_path / "Fitbit" / "Heart Rate Variability"
    other.mkdir()
    rows = rows_of(tmp_path)
    assert len(rows) == 3  # settings and lists of other things are left alone
    found = [row for row in rows.values() if isinstance(row, Record)]
    assert {row.patient for row in found} == {"Fitbit"}
    day = rows["Fitbit/Physical Activity/heart_rate-2021-01-20.json"]
    assert isinstance(day, Record)
    assert (day.fields["leads"], day.fields["units"], day.fields["fs"]) == ("HR", "bpm", 0.2)
    assert "no-waveform" in day.findings
    np.testing.assert_array_equal(samples_of(tmp_path, day).samples[0], 60 + np.arange(200) % 30)


def test_fitbit_ecg(tmp_path: Path) -> None:
    wave = np.round(1000 * np.sin(np.arange(7500) / 40)).astype(int)
    reading = {
        "startTime": "2021-01-20T11:00:00", "resultClassification": "Normal Sinus Rhythm",
        "waveformSamples": wave.tolist(), "samplingFrequencyHz": "250", "scalingFactor": 10922,
    }  # fmt: skip
    (tmp_path / "ecg.json").write_text(json.dumps({"ecgReadings": [reading, reading]}))
    rows = rows_of(tmp_path)
    assert set(rows) == {"ecg.json#1", "ecg.json#2"}
    row = rows["ecg.json#2"]
    assert isinstance(row, Record)
    assert (row.fields["fs"], row.fields["leads"], row.fields["units"]) == (250, "I", "mV")
    np.testing.assert_allclose(samples_of(tmp_path, row).samples[0], wave / 10922, rtol=1e-6)


def samsung(root: Path, *, bins: bool = True) -> np.ndarray:
    """An export with a table of heart rates, whose second row has its minutes in a JSON file."""
    kind = "com.samsung.shealth.tracker.heart_rate"
    pre = "com.samsung.health.heart_rate."
    header = [f"{pre}{n}" for n in ("start_time", "time_offset", "heart_rate", "binning_data")]
    name = "0a1b.com.samsung.health.heart_rate.binning_data.json"
    rates = 60.0 + np.arange(60) % 7
    lines = [
        f"{kind},6310003,5",
        ",".join([*header, "source"]),
        "2021-01-20 10:58:00.000,UTC+0100,71.0,,1,",
        f"2021-01-20 11:00:00.000,UTC+0100,66.0,{name},1,",
    ]
    root.mkdir(parents=True, exist_ok=True)
    (root / f"{kind}.20210121.csv").write_text("\ufeff" + "\n".join(lines) + "\n")
    if bins:
        folder = root / "jsons" / kind / "0"
        folder.mkdir(parents=True)
        rows = [
            {"heart_rate": rate, "heart_rate_min": 1, "start_time": int(1000 * (BEGAN + 60 * n)),
             "end_time": int(1000 * (BEGAN + 60 * n)) + 59999}
            for n, rate in enumerate(rates)
        ]  # fmt: skip
        (folder / name).write_text(json.dumps(rows))
    return rates


def test_samsung_tables_take_their_minutes_from_json(tmp_path: Path) -> None:
    rates = samsung(tmp_path / "samsunghealth_roe_20210121")
    row = record_of(tmp_path)  # the bins are no recording of their own
    assert row.fields["format"] == "Samsung Health"
    assert (row.fields["leads"], row.fields["fs"]) == ("HR", pytest.approx(1 / 60))
    (heart,) = samples_of(tmp_path, row).samples
    assert heart[0] == 71
    assert np.isnan(heart[1])
    np.testing.assert_array_equal(heart[2:], rates)


def test_samsung_without_bins_says_so_and_bins_alone_are_read(tmp_path: Path) -> None:
    samsung(tmp_path / "a", bins=False)
    row = record_of(tmp_path)
    assert "bins-missing" in row.findings
    kinds = {
        "x.com.samsung.health.heart_rate.binning_data.json": {"heart_rate": 70.0},
        "x.com.samsung.health.oxygen_saturation.binning_data.json": {"spo2": 96.0},
        "jsons/com.samsung.health.skin_temperature/x/x.binning_data.json": {"mean": 33.5},
        "x.binning_data.json": {"mean": 33.5},  # of what?
    }
    for n, (name, value) in enumerate(kinds.items()):
        file = tmp_path / f"b{n}" / name
        file.parent.mkdir(parents=True)
        bins = [{**value, "start_time": int(1000 * (BEGAN + 60 * k))} for k in range(9)]
        file.write_text(json.dumps(bins))
    rows = list(rows_of(tmp_path).values())[1:]
    shown = [r.fields["leads"] if isinstance(r, Record) else r.code for r in rows]
    assert shown == ["HR", "SpO2", "TEMP", "no-signals"]


def packets(fs: float, size: int, wave: np.ndarray, began: float = 1000.0) -> list[dict[str, Any]]:
    return [
        {"Timestamp": round(began + 1000 * at / fs), "Samples": wave[at : at + size].tolist()}
        for at in range(0, len(wave), size)
    ]


NESTED = {
    "logbook": lambda found: {"data": {"Meas": {"ECG": found}}},
    "converter": lambda found: {"Samples": [{"MeasEcg": packet} for packet in found]},
    "stream": lambda found: [{"Uri": "1/Meas/ECG/125", "Body": packet} for packet in found],
    "bare": lambda found: found,
}


@pytest.mark.parametrize("form", NESTED)
@pytest.mark.parametrize("fs", [125, 128, 200, 512])
def test_movesense_packets_wherever_they_lie(tmp_path: Path, form: str, fs: int) -> None:
    wave = np.round(500 * np.sin(np.arange(16 * 120) / 20)).astype(int)
    (tmp_path / "ecg.json").write_text(json.dumps(NESTED[form](packets(fs, 16, wave))))
    row = record_of(tmp_path)
    assert (row.fields["fs"], row.fields["leads"]) == (fs, "ECG")
    np.testing.assert_array_equal(samples_of(tmp_path, row).samples[0], wave)


def test_movesense_lost_packets_are_gaps_and_a_drifting_clock_is_none(tmp_path: Path) -> None:
    wave = np.arange(16 * 500)
    found = packets(125 * 1.004, 16, wave)
    lines = [json.dumps(packet) for n, packet in enumerate(found) if n not in (200, 201)]
    (tmp_path / "ecg.json").write_text("\n".join(lines))  # one packet a line
    row = record_of(tmp_path)
    assert row.fields["fs"] == 125
    assert "gaps" in row.findings
    held = samples_of(tmp_path, row).samples[0]
    assert np.isnan(held).sum() == 32
    np.testing.assert_array_equal(held[~np.isnan(held)], np.delete(wave, range(3200, 3232)))


def test_movesense_accelerometer_beside_ecg(tmp_path: Path) -> None:
    wave = np.arange(16 * 100)
    acc = [
        {"Timestamp": 1000 + round(1000 * n * 4 / 52),
         "ArrayAcc": [{"x": float(k), "y": -float(k), "z": 9.81} for k in range(4 * n, 4 * n + 4)]}
        for n in range(160)
    ]  # fmt: skip
    document = {"data": {"ECGmV": packets(125, 16, wave), "Acc": acc}}
    (tmp_path / "both.json").write_text(json.dumps(document))
    row = record_of(tmp_path)
    assert row.fields["leads"] == "ECG,ACC-x,ACC-y,ACC-z"
    assert row.fields["rates"] == "125,52,52,52"
    assert row.fields["units"] == "mV,m/s2,m/s2,m/s2"
    held = samples_of(tmp_path, row).samples
    np.testing.assert_array_equal(held[2], -np.arange(640.0))


def test_hostile_json_is_one_reject(tmp_path: Path) -> None:
    for text, code in (
        ('{"Timestamp": 1, "Samples": ' + "[" * 100_000, "bad-signal"),
        ('[{"Timestamp": 1, "Samples": [1]}, {"Timestamp": 1e300, "Samples": [2]}]', "bad-times"),
        ('[{"Timestamp": 1, "Samples": [1, 2]}]', "no-sampling-rate"),
        ('{"Timestamp": "x", "Samples": {"a": 1}}', "no-samples"),
    ):
        (tmp_path / "a.json").write_text(text)
        assert code_of(tmp_path) == code


# --- Apple Health ---------------------------------------------------------------------------------

DOCTYPE = '<?xml version="1.0"?>\n<!DOCTYPE HealthData [\n<!ELEMENT HealthData (Record*)>\n]>\n'
ME = (
    '<ExportDate value="2021-02-01 10:00:00 +0100"/><Me HKCharacteristicTypeIdentifierDateOfBirth='
    '"1980-05-01" HKCharacteristicTypeIdentifierBiologicalSex="HKBiologicalSexFemale"/>'
)


def apple_xml(count: int = 120, zone: int = 1) -> str:
    """A heart rate a minute, while the offset of the local time changes."""
    records = []
    for n in range(count):
        offset = zone + (n >= count // 2)
        when = datetime.fromtimestamp(BEGAN + 60 * n, UTC) + timedelta(hours=offset)
        start = f'startDate="{when:%Y-%m-%d %H:%M:%S} {offset:+03d}00"'
        records += [
            f'<Record type="HKQuantityTypeIdentifierHeartRate" sourceName="Anna Roe\'s Watch" '
            f'unit="count/min" {start} value="{60 + n % 50}"/>',
            f'<Record type="HKQuantityTypeIdentifierStepCount" unit="count" {start} value="9"/>',
        ]
        if n % 10 == 0:
            records.append(
                f'<Record type="HKQuantityTypeIdentifierOxygenSaturation" unit="%" {start} '
                f'value="0.97"/>'
            )
    return f"{DOCTYPE}<HealthData>{ME}{''.join(records)}</HealthData>"


def test_apple_export(tmp_path: Path) -> None:
    (tmp_path / "export.xml").write_text(apple_xml())
    row = record_of(tmp_path)
    assert row.fields["format"] == "Apple Health export"
    assert (row.fields["leads"], row.fields["units"]) == ("HR,SpO2", "bpm,%")
    assert (row.labels["sex"], row.labels["age"]) == ("F", 40)
    assert "counts-left-out" in row.findings
    heart, oxygen = samples_of(tmp_path, row).samples
    np.testing.assert_array_equal(heart, 60 + np.arange(120) % 50)  # no hour is lost or doubled
    np.testing.assert_array_equal(oxygen, np.full(12, 97, np.float32))
    assert "Roe" not in str(row)


ECG_CSV = (
    "{name}Recorded Date,2021-01-20 12:03:32 +0100\nSample Rate,512 hertz\nLead,Lead I\n"
    "Unit,µV\n\n" + "\n".join(str(n % 300) for n in range(2048)) + "\n"
)


@pytest.mark.parametrize("name", ["", 'Name,Anna Roe\nDate of Birth,"1 Jan 1980"\n'])
@pytest.mark.parametrize("zipped", [False, True])
def test_an_export_is_of_one_person(tmp_path: Path, name: str, zipped: bool) -> None:
    inside = {
        "apple_health_export/export.xml": apple_xml(),
        "apple_health_export/export_cda.xml": "<ClinicalDocument/>",
        "apple_health_export/electrocardiograms/ecg_2021-01-20.csv": ECG_CSV.format(name=name),
        "apple_health_export/electrocardiograms/ecg_2021-01-21.csv": ECG_CSV.format(name=name),
    }
    if zipped:
        with zipfile.ZipFile(tmp_path / "export.zip", "w") as archive:
            for file, text in inside.items():
                archive.writestr(file, text)
    else:
        for file, text in inside.items():
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).write_text(text)
    rows = list(rows_of(tmp_path).values())
    found = [row for row in rows if isinstance(row, Record)]
    assert [row.code for row in rows if isinstance(row, Reject)] == ["not-a-signal"]
    assert len(found) == 3
    assert len({row.patient for row in found}) == 1
    values_of = next(row for row in found if row.fields["format"] == "Apple Health export")
    np.testing.assert_array_equal(
        samples_of(tmp_path, values_of).samples[0], 60 + np.arange(120) % 50
    )


def test_entities_in_an_export_are_refused(tmp_path: Path) -> None:
    bomb = "".join(f'<!ENTITY a{n} "&a{n - 1};&a{n - 1};">' for n in range(1, 30))
    for inside, code in (
        (f'<!DOCTYPE HealthData [<!ENTITY a0 "x">{bomb}]><HealthData x="&a29;"/>', "unsafe-xml"),
        ('<!DOCTYPE HealthData [<!ENTITY x SYSTEM "file:///etc/passwd">]><HealthData/>',
         "unsafe-xml"),
        ("<HealthData>" + "<a>" * 100 + "</a>" * 100 + "</HealthData>", "unsafe-xml"),
        (apple_xml()[:-200], "bad-xml"),
        (f"{DOCTYPE}<HealthData>{ME}</HealthData>", "no-signals"),
    ):  # fmt: skip
        (tmp_path / "export.xml").write_text(inside)
        assert code_of(tmp_path) == code


def test_archives_of_two_people_are_two(tmp_path: Path) -> None:
    for who in ("a", "b"):
        with zipfile.ZipFile(tmp_path / f"{who}.zip", "w") as archive:
            for day in (20, 21):
                name = f"Fitbit/Physical Activity/heart_rate-2021-01-{day}.json"
                archive.writestr(name, fitbit_day([5.0 * n for n in range(50)]))
            archive.writestr("notes.txt", "nothing")
    found = [row for row in rows_of(tmp_path).values() if isinstance(row, Record)]
    assert len(found) == 4
    assert len({row.patient for row in found}) == 2


# --- sleep ----------------------------------------------------------------------------------------


def stamp(seconds: float, offset: int) -> str:
    at = datetime.fromtimestamp(BEGAN + seconds + 3600 * offset, UTC)
    return f"{at:%Y-%m-%d %H:%M:%S} {offset:+03d}00"


def night(root: Path, slept: list[tuple[float, float, str]], offsets: list[int]) -> Path:
    """An export of heart rates each minute for four hours, and sleep in any offsets from UTC."""
    rows = [
        f'<Record type="HKQuantityTypeIdentifierHeartRate" unit="count/min" value="{50 + n % 9}" '
        f'startDate="{stamp(60 * n, 0)}" endDate="{stamp(60 * n, 0)}"/>'
        for n in range(240)
    ]
    rows += [
        f'<Record type="HKCategoryTypeIdentifierSleepAnalysis" sourceName="Ann\'s Watch" '
        f'value="HKCategoryValueSleepAnalysis{value}" startDate="{stamp(first, offset)}" '
        f'endDate="{stamp(last, offset)}"/>'
        for (first, last, value), offset in zip(slept, offsets, strict=True)
    ]
    path = root / "export.xml"
    path.write_text("<HealthData>" + "".join(rows) + "</HealthData>", encoding="utf-8")
    return path


@settings(max_examples=20, deadline=None)
@given(
    cuts=st.lists(st.integers(1, 239), min_size=3, max_size=8, unique=True).map(sorted),
    data=st.data(),
)
def test_sleep_of_an_export_is_stages_at_its_own_times(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("sleep")
    said = {"Awake": "W", "AsleepREM": "R", "AsleepCore": "light", "AsleepDeep": "N3"}
    values_of = data.draw(
        st.lists(st.sampled_from(list(said)), min_size=len(cuts) - 1, max_size=len(cuts) - 1)
    )
    offsets = data.draw(
        st.lists(st.integers(-11, 12), min_size=len(cuts) + 1, max_size=len(cuts) + 1)
    )
    spans = [
        (60.0 * first, 60.0 * last, value)
        for first, last, value in zip(cuts, cuts[1:], values_of, strict=False)
    ]
    phone = [(0.0, 14_400.0, "InBed"), (60.0 * cuts[0], 60.0 * cuts[-1], "Asleep")]
    night(root, [*spans, *phone], offsets)
    held = read(root, "export.xml", Settings())
    assert held.stages == tuple((first, last, said[value]) for first, last, value in spans)
    part = read(root, "export.xml", Settings(), (0.0, 600.0))
    assert part.stages == ()


def test_windows_of_an_export_have_the_stage_that_covers_them(tmp_path: Path) -> None:
    from medcl_biosignals.dataset import dataset
    from medcl_biosignals.prepare import prepare

    slept = [(1200.0, 2400.0, "AsleepCore"), (2400.0, 3600.0, "AsleepREM")]
    slept += [(7200.0, 9000.0, "AsleepUnspecified")]
    night(tmp_path, slept, [1, 1, 1])
    with zipfile.ZipFile(tmp_path / "export.zip", "w") as archive:
        archive.write(tmp_path / "export.xml", "apple_health_export/export.xml")
    for file in ("export.xml", "export.zip"):
        made = prepare(tmp_path, [file], {}, fs=1 / 60, leads=("HR",), band=None)
        items = pl.DataFrame({"id": ["a"], "patient": ["p"]})
        names = ("W", "light", "N3", "R", "asleep")
        samples = dataset(
            items, lambda _, made=made: made, seconds=600.0, stride=600.0, stages=names
        )
        stages = [names[c] if c >= 0 else "" for c in samples.labels["stage"].tolist()]
        asleep = ["asleep"] * 3
        assert stages == ["", "", *["light"] * 2, *["R"] * 2, *[""] * 6, *asleep, *[""] * 9]
