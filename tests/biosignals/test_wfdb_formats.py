"""Every WFDB format, segment layout and rate: our samples are those that were written, and wfdb's.

The samples are real (MIT-BIH 101); the files in which they are written here are made for the test.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import wfdb

from medcl.plugin import Record, Reject
from medcl_biosignals.aami import CLASS_OF, PACED
from medcl_biosignals.annotations import RHYTHMS, SYMBOLS, read_annotations
from medcl_biosignals.prepare import prepare
from medcl_biosignals.readers.contract import Settings
from medcl_biosignals.readers.wfdb_record import read

Scan = Callable[[Path], list[Record | Reject]]
FS, GAIN, BASELINE = 360.0, 200.0, 0
WRITABLE = ("80", "212", "16", "24", "32", "508", "516", "524")
BY_HAND = ("8", "61", "160", "310", "311")


@pytest.fixture(scope="module")
def digital() -> np.ndarray:
    """Ten seconds of MIT-BIH 101 in the units of its recorder, (3600, 2)."""
    sample = Path(__file__).parents[2] / "plugins/medcl_biosignals/sample/101"
    record = wfdb.rdrecord(str(sample), sampto=3600)
    return np.rint(record.p_signal * GAIN).astype(np.int64)


def fitting(digital: np.ndarray, fmt: str) -> np.ndarray:
    """The samples with as many bits as the format has: centred, and made smaller where need be."""
    limit = {"80": 127, "508": 127, "8": 127, "310": 511, "311": 511, "212": 2047}.get(fmt, 30_000)
    x = digital - np.median(digital, axis=0).astype(np.int64)
    largest = np.abs(np.diff(x, axis=0)).max() if fmt == "8" else np.abs(x).max()
    return x // (largest // limit + 1)


def packed(x: np.ndarray, fmt: str) -> bytes:
    """As the WFDB manual (signal(5)) defines the formats that wfdb does not write."""
    if fmt == "8":  # differences to the sample before, the first to the header's initial value
        return np.diff(x, axis=0, prepend=x[:1]).astype(np.int8).tobytes()
    flat = x.ravel()
    if fmt == "61":
        return flat.astype(">i2").tobytes()
    if fmt == "160":
        return (flat + 32768).astype("<u2").tobytes()
    three = np.pad(flat, (0, -len(flat) % 3)).reshape(-1, 3) & 0x3FF
    if fmt == "311":
        words = three[:, 0] | three[:, 1] << 10 | three[:, 2] << 20
        return words.astype("<u4").tobytes()
    first = three[:, 0] << 1 | (three[:, 2] & 0x1F) << 11
    second = three[:, 1] << 1 | (three[:, 2] >> 5) << 11
    return np.stack([first, second], axis=1).astype("<u2").tobytes()


def write(root: Path, x: np.ndarray, fmt: str, name: str = "rec") -> Path:
    if fmt in WRITABLE:
        wfdb.wrsamp(
            name,
            fs=FS,
            units=["mV", "mV"],
            sig_name=["MLII", "V1"],
            d_signal=x,
            fmt=[fmt, fmt],
            adc_gain=[GAIN, GAIN],
            baseline=[BASELINE, BASELINE],
            write_dir=str(root),
        )
    else:
        (root / f"{name}.dat").write_bytes(packed(x, fmt))
        lines = [
            f"{name}.dat {fmt} {GAIN}({BASELINE})/mV 12 0 {x[0, c]} 0 0 {lead}"
            for c, lead in enumerate(("MLII", "V1"))
        ]
        (root / f"{name}.hea").write_text("\n".join([f"{name} 2 {FS:g} {len(x)}", *lines]) + "\n")
    return root / f"{name}.hea"


@pytest.mark.parametrize("fmt", WRITABLE + BY_HAND)
def test_every_format(tmp_path: Path, scan: Scan, digital: np.ndarray, fmt: str) -> None:
    x = fitting(digital, fmt)
    assert np.ptp(x[:, 0]) > 50, "not much of the recording is left"
    header = write(tmp_path, x, fmt)
    (row,) = scan(tmp_path)
    assert isinstance(row, Record), row
    assert row.fields["format"] == fmt
    assert row.fields["samples"] == 3600
    recording = read(header, "", Settings())
    ours = np.stack(recording.samples, axis=1)
    np.testing.assert_allclose(ours, (x - BASELINE) / GAIN, rtol=1e-6, atol=1e-6)
    theirs = wfdb.rdrecord(str(header.with_suffix(""))).p_signal
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)
    assert [(c.name, c.units, c.fs) for c in recording.channels] == [
        ("MLII", "mV", FS),
        ("V1", "mV", FS),
    ]
    part = read(header, "", Settings(), (2.0, 3.5))
    np.testing.assert_array_equal(np.stack(part.samples, axis=1), ours[720:1260])


def test_channels_of_several_rates_keep_them(
    tmp_path: Path, scan: Scan, digital: np.ndarray
) -> None:
    fast, slow = digital[:, 0], digital[::4, 1]
    frames = np.concatenate([fast.reshape(-1, 4), slow[:, None]], axis=1)
    (tmp_path / "rec.dat").write_bytes(frames.astype("<i2").tobytes())
    (tmp_path / "rec.hea").write_text(
        "rec 2 90 900\nrec.dat 16x4 200/mV 12 0 0 0 0 II\nrec.dat 16 200/mV 12 0 0 0 0 RESP\n"
    )
    (row,) = scan(tmp_path)
    assert isinstance(row, Record)
    assert (row.fields["fs"], row.fields["rates"], row.fields["seconds"]) == (90, "360,90", 10)
    recording = read(tmp_path / "rec.hea", "", Settings())
    assert [channel.fs for channel in recording.channels] == [360, 90]
    np.testing.assert_allclose(recording.samples[0], fast / 200, atol=1e-6)
    np.testing.assert_allclose(recording.samples[1], slow / 200, atol=1e-6)
    arrays = prepare(tmp_path, row.files, row.fields, fs=180.0, band=None, dtype="float32")
    assert arrays["x"].shape == (2, 1800)
    middle = slice(100, 1700)  # the resampling filter sees zeros beyond the ends
    for channel, truth in zip(arrays["x"], (digital[::2, 0], digital[::2, 1]), strict=True):
        assert np.corrcoef(channel[middle], truth[middle])[0, 1] > 0.9


@pytest.mark.shared_data
def test_a_real_record_of_several_rates(ecg: Path) -> None:
    header = ecg / "other/03700181.hea"
    recording = read(header, "", Settings())
    theirs = wfdb.rdrecord(str(header.with_suffix("")), smooth_frames=False)
    assert [channel.fs for channel in recording.channels] == [500, 125, 125]
    for ours, truth in zip(recording.samples, theirs.e_p_signal, strict=True):
        np.testing.assert_allclose(ours, truth, rtol=2e-6, atol=2e-6)
    part = read(header, "", Settings(), (100.0, 110.0))
    assert [len(row) for row in part.samples] == [5000, 1250, 1250]
    np.testing.assert_allclose(part.samples[0], recording.samples[0][50_000:55_000])


@pytest.mark.shared_data
def test_spans_of_real_records(ecg: Path) -> None:
    for name in ("mitdb_ds1/101", "mitdb_ds1/115", "other/a103l", "other/s0010_re"):
        whole = read(ecg / f"{name}.hea", "", Settings())
        part = read(ecg / f"{name}.hea", "", Settings(), (5.0, 8.0))
        fs = whole.channels[0].fs
        for ours, truth in zip(part.samples, whole.samples, strict=True):
            np.testing.assert_array_equal(ours, truth[round(5 * fs) : round(8 * fs)])


def segments(root: Path, digital: np.ndarray, layout: bool) -> Path:
    """Two segments with a pause between them; with a layout the second has one channel only."""
    write(root, digital[:1800], "16", "rec_0001")
    write(root, digital[1800:], "16", "rec_0002")
    parts = ["rec_0001 1800", "~ 720", "rec_0002 1800"]
    if layout:
        text = (root / "rec_0001.hea").read_text().splitlines()
        lines = [line.replace("rec_0001.dat", "~") for line in text[1:]]
        (root / "rec_layout.hea").write_text("\n".join(["rec_layout 2 360 0", *lines]) + "\n")
        parts.insert(0, "rec_layout 0")
        (root / "rec_0002.dat").write_bytes(digital[1800:, 1].astype("<i2").tobytes())
        second = (root / "rec_0002.hea").read_text().splitlines()
        (root / "rec_0002.hea").write_text("rec_0002 1 360 1800\n" + second[2] + "\n")
    master = root / "rec.hea"
    master.write_text("\n".join([f"rec/{len(parts)} 2 360 4320", *parts]) + "\n")
    return master


@pytest.mark.parametrize("layout", [False, True])
def test_segments_and_the_pauses_between_them(
    tmp_path: Path, scan: Scan, digital: np.ndarray, layout: bool
) -> None:
    master = segments(tmp_path, digital, layout)
    (row,) = scan(tmp_path)
    assert isinstance(row, Record), row
    assert row.fields["segments"] == (4 if layout else 3)
    ours = np.stack(read(master, "", Settings()).samples, axis=1)
    if layout:  # wfdb 4.3 cannot join a fixed layout with a pause
        theirs = wfdb.rdrecord(str(master.with_suffix(""))).p_signal
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)
    part = read(master, "", Settings(), (4.0, 8.0))
    np.testing.assert_array_equal(np.stack(part.samples, axis=1), ours[1440:2880])
    assert np.isnan(ours[1800:2520]).all()
    np.testing.assert_allclose(ours[:1800], digital[:1800] / GAIN, atol=1e-6)
    np.testing.assert_allclose(ours[2520:, 1], digital[1800:, 1] / GAIN, atol=1e-6)
    assert np.isnan(ours[2520:, 0]).all() == layout
    arrays = prepare(tmp_path, row.files, row.fields, fs=100.0)
    np.testing.assert_allclose(arrays["gaps"], [[500, 700]], atol=1)
    if layout:
        assert [0, 500, 1200, 1] in arrays["lost"].tolist()


def test_annotations_are_those_of_wfdb(sample: Path) -> None:
    for path in sample.glob("*.atr"):
        assert_as_wfdb(path)


@pytest.mark.shared_data
def test_annotations_of_whole_records(ecg: Path) -> None:
    for path in sorted(ecg.rglob("*.atr")):
        assert_as_wfdb(path)


def assert_as_wfdb(path: Path) -> None:
    marks, truth = read_annotations(path), wfdb.rdann(str(path.with_suffix("")), path.suffix[1:])
    pairs = [
        (sample, CLASS_OF[symbol])
        for sample, symbol in zip(truth.sample.tolist(), truth.symbol, strict=True)
        if symbol in CLASS_OF
    ]
    assert list(zip(marks.beats.tolist(), marks.classes.tolist(), strict=True)) == pairs
    assert marks.paced == bool(set(PACED) & set(truth.symbol))


def test_codes_are_those_of_wfdb() -> None:
    table = {label.label_store: label.symbol for label in wfdb.io.annotation.ann_labels}
    assert {code: table[code] for code in SYMBOLS} == SYMBOLS
    assert set(CLASS_OF) <= set(SYMBOLS.values())


def test_long_pauses_notes_and_other_clocks(tmp_path: Path) -> None:
    """Written by wfdb for the test: jumps of over 1,023 samples, notes, a rate of its own."""
    wfdb.wrann(
        "rec",
        "atr",
        sample=np.array([5, 2000, 3_000_000, 3_000_010]),
        symbol=["N", "V", "+", "/"],
        aux_note=["", "a note of odd length", "(VT", ""],
        chan=np.array([0, 1, 0, 1]),
        fs=1000,
        write_dir=str(tmp_path),
    )
    assert_as_wfdb(tmp_path / "rec.atr")
    marks = read_annotations(tmp_path / "rec.atr")
    assert marks.fs == 1000
    assert marks.rhythms.tolist() == [[3_000_000, RHYTHMS.index("VT")]]
    whole = (tmp_path / "rec.atr").read_bytes()
    for keep in (0, 1, 7, len(whole) - 3):
        (tmp_path / "rec.atr").write_bytes(whole[:keep])
        with pytest.raises(ValueError, match="cut off"):
            read_annotations(tmp_path / "rec.atr")


def test_rhythms_between_their_marks(tmp_path: Path, scan: Scan, digital: np.ndarray) -> None:
    """The bundled annotations carry no rhythms; these are written for the test (synthetic)."""
    write(tmp_path, digital, "16")
    wfdb.wrann(
        "rec",
        "atr",
        sample=np.array([10, 100, 1800, 2000, 3000]),
        symbol=["+", "N", "+", "V", "+"],
        aux_note=["(N", "", "(AFIB", "", "(WHATEVER"],
        write_dir=str(tmp_path),
    )
    (row,) = scan(tmp_path)
    assert isinstance(row, Record)
    assert row.labels["rhythm"] == "N"  # from 10 to 1800; AFIB to 3000
    arrays = prepare(tmp_path, row.files, row.fields, fs=180.0)
    assert arrays["classes"].tolist() == [b"rhythm:AFIB", b"rhythm:N", b"rhythm:other"]
    end = arrays["x"].shape[1]
    assert arrays["spans"].tolist() == [[5, 900, 1], [900, 1500, 0], [1500, end, 2]]
    assert arrays["beats"].tolist() == [50, 1000]
    assert arrays["aami"].tolist() == [0, 2]
