"""ECG carts, Holters, monitors and laboratories: files of makers and of other programs, and files
written by the specifications over rates, units, orders of leads and lengths."""

from __future__ import annotations

import gzip
import shutil
import struct
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wfdb
import written
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medcl.archive.index import build
from medcl.errors import UsageError
from medcl.plugin import FileStat, Record, Reject
from medcl_biosignals.naming import meant
from medcl_biosignals.plugin import plugin
from medcl_biosignals.readers import edf
from medcl_biosignals.readers.choose import read
from medcl_biosignals.readers.contract import BadSignal, Recording, Settings
from medcl_biosignals.vocabulary import vocabulary

FIXTURES = Path(__file__).parents[1] / "fixtures/signals"
TWELVE = ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"]
EIGHT = ["I", "II", "V1", "V2", "V3", "V4", "V5", "V6"]
many = settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])


def rows_of(root: Path) -> list[Record | Reject]:
    files = [
        FileStat(path.relative_to(root).as_posix(), path.stat().st_size, 0)
        for path in sorted(root.rglob("*"))
        if path.is_file()
    ]
    return [row for unit in plugin.units(files) for row in plugin.scan(root, unit)]


def put(root: Path, name: str, content: bytes) -> Path:
    """The file, alone in its folder."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    (root / name).write_bytes(content)
    return root


def record_of(root: Path) -> Record:
    (row,) = rows_of(root)
    assert isinstance(row, Record), row
    return row


def reject_of(root: Path) -> Reject:
    (row,) = rows_of(root)
    assert isinstance(row, Reject), row
    return row


def samples_of(root: Path, row: Record, span: Any = None) -> Recording:
    return read(root, row.files[0], Settings(), span)


def same(root: Path, row: Record, truth: np.ndarray) -> None:
    """The samples (C, N) are these, and a span of them is that part."""
    whole = np.stack(samples_of(root, row).samples)
    np.testing.assert_allclose(whole, truth.astype(np.float32), rtol=1e-6)
    fs, seconds = float(row.fields["fs"]), float(row.fields["seconds"])  # type: ignore[arg-type]
    part = np.stack(samples_of(root, row, (seconds / 4, seconds / 2)).samples)
    first, last = round(seconds / 4 * fs), round(seconds / 2 * fs)
    np.testing.assert_array_equal(part, whole[:, first:last])


def walk_of(seed: int, leads: int, length: int, step: int = 20) -> np.ndarray:
    """(C, N) int64, a random walk that 16 bits hold."""
    steps = np.random.default_rng(seed).integers(-step, step + 1, (leads, length))
    return np.clip(np.cumsum(steps, axis=1), -30_000, 30_000)


# --- files of makers and of other programs --------------------------------------------------------


def unpacked(name: str, root: Path) -> Path:
    root.mkdir(exist_ok=True)
    file = root / name.removesuffix(".gz")
    file.write_bytes(gzip.decompress((FIXTURES / name).read_bytes()))
    return file


def test_a_muse_export_equals_its_dicom_by_another_program(tmp_path: Path) -> None:
    """A MUSE 9 export, and what ecg2dcm made of it, which pydicom decodes."""
    pydicom = pytest.importorskip("pydicom")
    unpacked("muse_9.xml.gz", tmp_path / "muse")
    dicom = pydicom.dcmread(unpacked("muse_9.dcm.gz", tmp_path))
    row = record_of(tmp_path / "muse")
    assert row.fields["format"] == "GE MUSE"
    assert (row.fields["fs"], row.fields["samples"], row.fields["units"]) == (
        500.0, 5000, ",".join(["uV"] * 12),
    )  # fmt: skip
    assert str(row.fields["leads"]).split(",") == [*EIGHT, "III", "aVR", "aVL", "aVF"]
    assert row.labels == {"sex": "M", "age": 11}
    assert set(row.findings) == {
        "averaged-beat-left-out", "derived-leads", "patient-is-record-name",
    }  # fmt: skip
    truth = dicom.waveform_array(0).T
    names = [
        meant(line.ChannelSourceSequence[0].CodeMeaning, vocabulary()).name
        for line in dicom.WaveformSequence[0].ChannelDefinitionSequence
    ]
    held = dict(zip(names, truth, strict=True))
    assert sorted(held) == sorted(TWELVE)
    ours = dict(zip(str(row.fields["leads"]).split(","), samples_of(tmp_path / "muse", row).samples,
                    strict=True))  # fmt: skip
    for name in TWELVE:  # the other program has whole counts of 4.88 uV: its aVR … are rounded
        rounded = 2.45 if name.startswith("aV") else 1e-3
        np.testing.assert_allclose(ours[name], held[name], rtol=0, atol=rounded)


@pytest.mark.parametrize("version", [1, 2])
def test_a_gdf_file_of_biosig(tmp_path: Path, version: int) -> None:
    """Made by BioSig of MIT-BIH 101, the second channel at a tenth of the rate, as mmHg."""
    shutil.copy(FIXTURES / f"biosig{version}.gdf", tmp_path)
    row = record_of(tmp_path)
    assert row.fields["format"] == f"GDF{version}"
    assert (row.fields["rates"], row.fields["units"]) == ("360,36", "mV,mmHg")
    assert (row.fields["kinds"], row.fields["seconds"]) == ("ECG,pressure", 10.0)
    truth = wfdb.rdrecord(str(FIXTURES / "mitdb101")).p_signal.T
    ecg, pressure = samples_of(tmp_path, row).samples
    np.testing.assert_allclose(ecg, truth[0], atol=2 * 10 / 65535)  # rounded twice to 16 bits
    np.testing.assert_allclose(pressure, truth[1, ::10], atol=2 * 10 / 65535)
    part = samples_of(tmp_path, row, (2.0, 3.0))
    np.testing.assert_array_equal(part.samples[0], ecg[720:1080])
    np.testing.assert_array_equal(part.samples[1], pressure[72:108])


def test_a_file_of_acqknowledge(tmp_path: Path) -> None:
    bioread = pytest.importorskip("bioread")
    file = unpacked("acqknowledge_4.acq.gz", tmp_path / "acq")
    row = record_of(tmp_path / "acq")
    assert (row.fields["format"], row.fields["kinds"]) == ("AcqKnowledge", "ECG,EMG,EDA,ECG")
    assert (row.fields["fs"], row.fields["samples"]) == (1000.0, 7901)
    assert row.fields["units"] == "mV,mV,uS,mV"
    # Of this uncompressed file without other rates, samples are interleaved 16-bit integers.
    held = bioread.read_headers(str(file)).channels
    raw = file.read_bytes()
    scale = np.array([[c.raw_scale_factor] for c in held])
    offset = np.array([[c.raw_offset] for c in held])
    rows = np.stack(samples_of(tmp_path / "acq", row).samples)
    counts = np.rint((rows - offset) / scale).astype("<i2")
    at = raw.find(counts[:, :50].T.tobytes())
    assert at > 0
    whole = np.frombuffer(raw, "<i2", 4 * 7901, at).reshape(7901, 4).T
    np.testing.assert_allclose(whole * scale + offset, rows, rtol=1e-5)
    part = samples_of(tmp_path / "acq", row, (1.0, 2.0))
    np.testing.assert_array_equal(np.stack(part.samples), rows[:, 1000:2000])


@pytest.mark.parametrize("name", ["IM000001", "1.2.840.10008.5.1.4.1", "IM.0001"])
def test_dicom_without_a_suffix(tmp_path: Path, name: str) -> None:
    data = pytest.importorskip("pydicom.data")
    content = Path(data.get_testdata_file("waveform_ecg.dcm")).read_bytes()
    put(tmp_path / "a", name, content)
    put(tmp_path / "b", "a.dcm", content)
    bare, named = rows_of(tmp_path / "a"), rows_of(tmp_path / "b")
    assert len(bare) == len(named) == 2
    for one, other in zip(bare, named, strict=True):
        assert isinstance(one, Record)
        assert isinstance(other, Record)
        assert one.fields == other.fields
        ours, theirs = samples_of(tmp_path / "a", one), samples_of(tmp_path / "b", other)
        np.testing.assert_array_equal(np.stack(ours.samples), np.stack(theirs.samples))
    assert "aVR" in str(bare[0].fields["leads"])  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["a.rec", "A.REC"])
def test_edf_by_the_name_of_a_recorder(tmp_path: Path, name: str) -> None:
    edfio = pytest.importorskip("edfio")
    x = walk_of(0, 1, 1000)[0] / 1000
    tmp_path.joinpath("a").mkdir()
    signal = edfio.EdfSignal(x, 250, label="ECG II", physical_dimension="mV")
    edfio.Edf([signal]).write(tmp_path / "a" / "made.edf")
    (tmp_path / "a/made.edf").rename(tmp_path / "a" / name)
    row = record_of(tmp_path / "a")
    assert (row.fields["format"], row.fields["leads"]) == ("EDF", "II")
    np.testing.assert_allclose(samples_of(tmp_path / "a", row).samples[0], x, atol=1e-3)


@pytest.mark.parametrize("said", ["sign*LN[sign*(at 8Hz)/(0.0001)]/(0.001)", "SIGN * ln [1e-4]"])
def test_edf_of_logarithms_is_refused(tmp_path: Path, said: str) -> None:
    edfio = pytest.importorskip("edfio")
    x = np.sin(np.arange(500) / 20)
    signal = edfio.EdfSignal(x, 250, label="ECG II", physical_dimension="mV", prefiltering=said)
    edfio.Edf([signal]).write(tmp_path / "made.edf")
    with pytest.raises(BadSignal, match="channel 1 holds logarithms of floats"):
        list(edf.headings(tmp_path / "made.edf", Settings()))


@pytest.mark.parametrize(
    ("name", "means", "kind"),
    [
        ("aVR inverted", "-aVR", "ECG"), ("Lead II (inv)", "-II", "ECG"), ("-aVR", "-aVR", "ECG"),
        ("inverted V1", "-V1", "ECG"), ("neg_II", "-II", "ECG"), ("- inverted aVR", "aVR", "ECG"),
        ("aVR, augmented voltage, right", "aVR", "ECG"), ("LA-RA", "I", "ECG"),
        ("RA-LA", "-I", "ECG"), ("E-S", "ES", "ECG"), ("CM5", "CM5", "ECG"), ("V7", "V7", "ECG"),
        ("EDA100C-MRI", "EDA", "EDA"), ("ECG100C", "ECG", "ECG"), ("RSP100C", "RESP", "RESP"),
        ("EKG - ERS100C", "ECG", "ECG"), ("Nehb D", "Nehb D", "ECG"), ("Vx", "Vx", "ECG"),
    ],
)  # fmt: skip
def test_names_of_carts_holters_and_laboratories(name: str, means: str, kind: str) -> None:
    found = meant(name, vocabulary(), unit="mV")
    assert (found.name, found.kind) == (means, kind)


def test_dicom_without_a_suffix_in_an_archive(tmp_path: Path) -> None:
    data = pytest.importorskip("pydicom.data")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.write(data.get_testdata_file("waveform_ecg.dcm"), "CD/IM000001")
        packed.writestr("CD/README", "not a recording")
    found = rows_of(tmp_path)
    assert [row.key[-2:] for row in found] == ["#1", "#2"]
    assert all(isinstance(row, Record) for row in found)


@pytest.mark.parametrize(
    ("name", "content"),
    [("LICENSE", b"some text"), ("RECORDS", b"100\n101\n" * 50), ("core.1234", bytes(500)),
     ("empty", b"")],
)  # fmt: skip
def test_other_files_without_a_suffix_are_left_alone(
    tmp_path: Path, name: str, content: bytes
) -> None:
    assert rows_of(put(tmp_path / "a", name, content)) == []
    with pytest.raises(UsageError, match="none was taken"):
        build(tmp_path / "a", tmp_path / "none", plugin)
    put(tmp_path / "a", name, content)
    (tmp_path / "a/a.ecg").write_bytes(written.ishne(walk_of(0, 1, 1000), ["V1"]))
    summary = build(tmp_path / "a", tmp_path / "index", plugin)
    assert (summary.items, summary.ignored) == (1, 1)


# --- GE MUSE --------------------------------------------------------------------------------------


@many
@given(
    fs=st.sampled_from([125, 240, 250, 500, 1000, 2000]),
    uv=st.sampled_from([4.88, 2.44, 1.0, 0.5, 4.8]),
    leads=st.permutations([*EIGHT, "V3R", "V4R", "V7"]),
    count=st.integers(1, 11),
    length=st.integers(0, 500),
)
def test_muse(
    tmp_path: Path, fs: int, uv: float, leads: list[str], count: int, length: int
) -> None:
    leads = leads[:count]
    x = walk_of(length, count, 2 * fs + length)
    root = put(tmp_path / "a", "a.xml", written.muse(list(x), leads, fs=fs, uv=uv))
    row = record_of(root)
    truth = dict(zip(leads, x * uv, strict=True))
    if {"I", "II"} <= truth.keys():
        one, two = truth["I"], truth["II"]
        truth |= {"III": two - one, "aVR": -(one + two) / 2, "aVL": one - two / 2,
                  "aVF": two - one / 2}  # fmt: skip
    assert ("derived-leads" in row.findings) == (len(truth) > count)
    assert str(row.fields["leads"]).split(",") == list(truth)
    assert (row.fields["fs"], row.fields["samples"]) == (fs, x.shape[1])
    assert set(str(row.fields["units"]).split(",")) == {"uV"}
    same(root, row, np.stack(list(truth.values())))


def test_what_a_muse_export_says_of_the_person_and_of_itself(tmp_path: Path) -> None:
    about = """<PatientDemographics><PatientID>0012345</PatientID><PatientAge>93</PatientAge>
<AgeUnits>YEARS</AgeUnits><Gender>FEMALE</Gender><PatientLastName>Roe</PatientLastName>
</PatientDemographics><TestDemographics><SiteName>St. Anne</SiteName></TestDemographics>"""
    x = walk_of(0, 8, 5000)

    def made(**more: Any) -> Record:
        return record_of(put(tmp_path / "a", "a.xml", written.muse(list(x), EIGHT, **more)))

    row = made(about=about)
    assert (row.patient, row.site) == ("0012345", "St. Anne")
    assert row.labels == {"sex": "F", "age": 90}
    assert "Roe" not in repr((row.fields, row.labels, row.findings))
    assert made(about=about.replace("YEARS", "MONTHS")).labels["age"] == 7
    assert "age" not in made(about=about.replace("93", "0")).labels
    assert made(about=about.replace("0012345", "0000000")).patient == "Roe"
    assert made(exponent=1, fs=50).fields["fs"] == 500.0
    assert "derived-waveform" in made(kind="Median").findings
    assert "bad-checksum" in made(changed=("<LeadDataCRC32>", "<LeadDataCRC32>1")).findings
    assert "lead-off" in made(changed=("<LeadOff>FALSE", "<LeadOff>TRUE")).findings
    assert "unexplained-offset" in made(changed=("<LeadTimeOffset>0", "<LeadTimeOffset>4")).findings
    assert made(changed=("MICROVOLTS", "MILLIVOLTS")).fields["units"] == ",".join(["mV"] * 12)
    assert made(changed=("MICROVOLTS", "")).findings.count("no-unit") == 1
    mixed = made(changed=("MICROVOLTS</LeadAmplitudeUnits><LeadID>II<",
                          "MILLIVOLTS</LeadAmplitudeUnits><LeadID>II<"))  # fmt: skip
    assert "mixed-units" not in mixed.findings or "derived-leads" not in mixed.findings


BOMB = '<!DOCTYPE RestingECG [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]>'


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"top": BOMB}, "unsafe-xml"),
        ({"top": '<!DOCTYPE RestingECG [<!ENTITY x SYSTEM "file:///etc/passwd">]>'}, "unsafe-xml"),
        ({"top": '<!DOCTYPE RestingECG [<!ATTLIST LeadData a CDATA "long">]>'}, "unsafe-xml"),
        ({"about": "<PatientDemographics><PatientID>&name;</PatientID></PatientDemographics>"},
         "unsafe-xml"),
        ({"changed": ("<LeadSampleCountTotal>5000", "<LeadSampleCountTotal>50000")}, "truncated"),
        ({"changed": ("<WaveFormData>\n", "<WaveFormData>\n!")}, "bad-signal"),
        ({"changed": ("<SampleBase>500", "<SampleBase>0")}, "bad-sampling-rate"),
        ({"changed": ("<SampleBase>500", "<SampleBase>inf")}, "bad-header"),
        ({"changed": ("<SampleExponent>0", "<SampleExponent>400")}, "bad-sampling-rate"),
        ({"changed": ("<SampleBase>500</SampleBase>", "")}, "bad-header"),
        ({"changed": ("<LeadSampleSize>2", "<LeadSampleSize>4")}, "bad-header"),
        ({"changed": ("UnitsPerBit>4.88", "UnitsPerBit>0")}, "bad-header"),
        ({"changed": ("<LeadData>", "<Nothing>", )}, "bad-xml"),
    ],
)  # fmt: skip
def test_muse_that_is_not_read(tmp_path: Path, change: dict[str, Any], code: str) -> None:
    content = written.muse(list(walk_of(0, 2, 5000)), ["I", "II"], **change)
    assert reject_of(put(tmp_path / "a", "a.xml", content)).code == code


def test_a_document_type_is_accepted_where_it_belongs_alone(tmp_path: Path) -> None:
    content = b'<!DOCTYPE AnnotatedECG SYSTEM "x.dtd"><AnnotatedECG/>'
    assert reject_of(put(tmp_path / "a", "a.xml", content)).code == "unsafe-xml"
    for top in ("", '<!DOCTYPE RestingECG PUBLIC "-//GE" "restecg.dtd">', "<!DOCTYPE RestingECG>",
                "<!DOCTYPE RestingECG [<!ELEMENT LeadID (#PCDATA)>]>"):  # fmt: skip
        content = written.muse(list(walk_of(0, 2, 1000)), ["I", "II"], top=top)
        assert record_of(put(tmp_path / "a", "a.xml", content)).fields["channels"] == 6


@pytest.mark.parametrize("encoding", ["gb2312", "GB18030", "Shift_JIS", "utf-16", "windows-1252"])
def test_muse_in_any_encoding(tmp_path: Path, encoding: str) -> None:
    x = walk_of(0, 2, 1000)
    text = written.muse(list(x), ["I", "II"], about="<Note>REST</Note>").decode("latin-1")
    note = "é" if encoding == "windows-1252" else "心"
    text = text.replace("ISO-8859-1", encoding).replace("REST", note)
    row = record_of(put(tmp_path / "a", "a.xml", text.encode(encoding)))
    np.testing.assert_allclose(samples_of(tmp_path / "a", row).samples[1], x[1] * 4.88, rtol=1e-6)
    unknown = text.replace(encoding, "klingon-8").replace(note, "").encode("latin-1")
    assert reject_of(put(tmp_path / "a", "a.xml", unknown)).code in ("bad-xml", "not-a-signal")


def test_muse_without_the_last_signs_of_its_base64(tmp_path: Path) -> None:
    x = walk_of(0, 2, 1000)  # 2,000 bytes a lead: one sign is left over
    content = written.muse(list(x), ["I", "II"])
    assert b"=" in content.partition(b"<WaveFormData>")[2].partition(b"</WaveFormData>")[0]
    bare = content.replace(b"=\n</WaveFormData>", b"\n</WaveFormData>")
    assert bare != content
    same(put(tmp_path / "a", "a.xml", bare), record_of(tmp_path / "a"), np.stack(
        [*(x * 4.88), *(np.array([[-1, 1], [-0.5, -0.5], [1, -0.5], [-0.5, 1]]) @ x * 4.88)]
    ))  # fmt: skip


# --- SCP-ECG, Philips XML, MFER -------------------------------------------------------------------


@many
@given(
    interval=st.sampled_from([1000, 2000, 4000, 2500, 3906, 8000]),
    avm=st.sampled_from([1000, 2440, 4880, 5000, 312]),
    leads=st.permutations(TWELVE),
    count=st.integers(1, 12),
    length=st.integers(0, 300),
    step=st.sampled_from([2, 8, 100, 400]),
    huffman=st.booleans(),
    difference=st.integers(0, 2),
)
def test_scp(
    tmp_path: Path, interval: int, avm: int, leads: list[str], count: int, length: int, step: int,
    huffman: bool, difference: int,
) -> None:  # fmt: skip
    pytest.importorskip("ecgdatakit")
    leads = leads[:count]
    x = walk_of(length, count, 1_200_000 // interval + length, step)
    content = written.scp(list(x), leads, interval_us=interval, avm_nv=avm, huffman=huffman,
                          difference=difference)  # fmt: skip
    root = put(tmp_path / "a", "a.scp", content)
    row = record_of(root)
    assert str(row.fields["leads"]).split(",") == leads
    fs = {3906: 256.0}.get(interval, 1e6 / interval)  # whole µs: 256 Hz cannot be written exactly
    assert row.fields["fs"] == fs
    assert set(str(row.fields["units"]).split(",")) == {"uV"}
    same(root, row, x * (avm / 1000))


def test_scp_with_a_reference_beat_taken_off(tmp_path: Path) -> None:
    pytest.importorskip("ecgdatakit")
    x = walk_of(1, 8, 5000)
    beat = np.round(800 * np.exp(-((np.arange(300) - 150) ** 2) / 200)).astype(int)
    content = written.scp(list(x), EIGHT, beat=beat, beats_at=[200, 1100, 3000], difference=1,
                          tags=[(2, b"P77\0"), (8, b"\x02"), (4, b"\x33\0\x01")])  # fmt: skip
    row = record_of(put(tmp_path / "a", "a.SCP", content))
    assert "averaged-beat-left-out" in row.findings
    assert (row.patient, row.labels) == ("P77", {"sex": "F", "age": 51})
    same(tmp_path / "a", row, x * 4.88)


def test_scp_leads_that_follow_each_other(tmp_path: Path) -> None:
    """Three leads at a time, as they are printed: what was not recorded is missing, not early."""
    pytest.importorskip("ecgdatakit")
    x = walk_of(2, 12, 1250)
    starts = [1] * 3 + [1251] * 3 + [2501] * 3 + [3751] * 3
    row = record_of(put(tmp_path / "a", "a.scp", written.scp(list(x), TWELVE, starts=starts)))
    assert {"leads-not-simultaneous", "unequal-lengths"} <= set(row.findings)
    assert row.fields["samples"] == 5000
    truth = np.full((12, 5000), np.nan)
    for lead, start, line in zip(truth, starts, x, strict=True):
        lead[start - 1 : start + 1249] = line * 4.88
    same(tmp_path / "a", row, truth)


@pytest.mark.slow
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    fs=st.sampled_from([250, 500, 1000]),
    uv=st.sampled_from([5.0, 2.5, 1.0]),
    limbs=st.booleans(),
    packed=st.booleans(),
    version=st.sampled_from(["1.03", "1.04"]),
    length=st.integers(1, 3),
    step=st.sampled_from([3, 40, 200]),
)
def test_philips(
    tmp_path: Path, fs: int, uv: float, limbs: bool, packed: bool, version: str, length: int,
    step: int,
) -> None:  # fmt: skip
    pytest.importorskip("ecgdatakit")
    sierraecg = pytest.importorskip("sierraecg")
    leads = TWELVE if limbs else [f"V{n + 1}" for n in range(6)]
    x = walk_of(length, len(leads), length * fs, step).clip(-7000, 7000)
    content = written.philips(x, leads, fs=fs, uv=uv, packed=packed, version=version)
    root = put(tmp_path / "a", "a.xml", content)
    row = record_of(root)
    assert (row.fields["format"], row.fields["fs"]) == ("Philips XML", fs)
    assert (row.patient, row.labels) == ("P123", {"sex": "F", "age": 51})
    assert str(row.fields["leads"]).split(",") == leads
    same(root, row, x * uv)
    if packed and limbs:  # and as another library unpacks it
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it computes with 16 bits
            other = sierraecg.read_file(str(root / "a.xml"))
        theirs = np.stack([lead.samples for lead in other.leads])
        np.testing.assert_array_equal(theirs, x.astype(np.int16))


@many
@given(
    fs=st.sampled_from([125, 250, 500, 1000]),
    uv=st.sampled_from([1, 5, 10]),
    leads=st.permutations(TWELVE),
    count=st.integers(1, 12),
    blocks=st.integers(1, 4),
    little=st.booleans(),
)
def test_mfer(
    tmp_path: Path, fs: int, uv: int, leads: list[str], count: int, blocks: int, little: bool
) -> None:
    pytest.importorskip("ecgdatakit")
    leads = leads[:count]
    x = walk_of(fs, count, blocks * fs)
    content = written.mfer(x, leads, fs=fs, uv=uv, block=fs, little=little)
    root = put(tmp_path / "a", "a.mwf", content)
    if blocks == 1:
        assert record_of(root).fields["seconds"] == 1.0
    row = record_of(root)
    assert str(row.fields["leads"]).split(",") == leads
    assert (row.fields["fs"], row.patient, row.labels) == (fs, "P123", {"sex": "F"})
    same(root, row, x * uv)


# --- ISHNE ----------------------------------------------------------------------------------------


@many
@given(
    fs=st.sampled_from([128, 180, 200, 250, 500, 1000]),
    nv=st.sampled_from([100, 1000, 2500, 5000, 10_000]),
    leads=st.permutations(list(written.ISHNE_LEADS)),
    count=st.integers(1, 12),
    comment=st.binary(max_size=40),
    length=st.integers(0, 300),
)
def test_ishne(
    tmp_path: Path, fs: int, nv: int, leads: list[str], count: int, comment: bytes, length: int
) -> None:
    leads = leads[:count]
    x = walk_of(length, count, 2 * fs + length)
    nvs = [nv + n for n in range(count)]
    root = put(tmp_path / "a", "a.ecg", written.ishne(x, leads, fs=fs, nv=nvs, comment=comment))
    row = record_of(root)
    frank = {"X": "Vx", "Y": "Vy", "Z": "Vz"}
    assert str(row.fields["leads"]).split(",") == [frank.get(name, name) for name in leads]
    assert set(str(row.fields["kinds"]).split(",")) == {"ECG"}
    assert (row.fields["fs"], row.patient) == (fs, "P123")
    assert (row.labels, row.findings) == ({"sex": "F", "age": 59}, ())
    same(root, row, x * (np.array(nvs)[:, None] / 1000))


def test_ishne_agrees_with_ecgdatakit(tmp_path: Path) -> None:
    parsers = pytest.importorskip("ecgdatakit.parsing.parsers.ishne_holter")
    x = walk_of(3, 3, 2000)
    put(tmp_path / "a", "a.ecg", written.ishne(x, ["V1", "V5", "III"], nv=[2500, 1000, 312]))
    theirs = parsers.ISHNEHolterParser().parse(tmp_path / "a/a.ecg")
    ours = samples_of(tmp_path / "a", record_of(tmp_path / "a"))
    assert [lead.label for lead in theirs.leads] == [c.name for c in ours.channels]
    for lead, row in zip(theirs.leads, ours.samples, strict=True):
        np.testing.assert_allclose(row, lead.samples * lead.resolution, rtol=1e-6)


def test_what_an_ishne_header_says_wrong(tmp_path: Path) -> None:
    x = walk_of(4, 2, 2000)
    x[0, 100:200] = -32768  # marked as not valid
    good = written.ishne(x, ["V1", "V5"])

    def made(content: bytes) -> list[Record | Reject]:
        return rows_of(put(tmp_path / "a", "a.ecg", content))

    (row,) = made(good)
    assert isinstance(row, Record)
    lost = np.isnan(samples_of(tmp_path / "a", row).samples[0])
    assert np.flatnonzero(lost).tolist() == list(range(100, 200))
    for content, finding in (
        (good[:-1000], "truncated"),
        (good[:30] + b"Q" + good[31:], "bad-checksum"),
        (written.ishne(x, ["V1", "V5"], nv=0), "uncalibrated-channel"),
        (written.ishne(x, ["V1", "V5"], who="0000000"), "patient"),
    ):
        (row,) = made(content)
        assert isinstance(row, Record)
        assert finding in row.findings or row.patient == "Kowalczyk Anna"
    for content, code in (
        (good[:300], "truncated"),
        (good[:522], "truncated"),
        (b"ISHNE2.0" + good[8:], "not-a-signal"),
        (good[:156] + b"\xff\x7f" + good[158:], "bad-header"),
        (good[:272] + b"\0\0" + good[274:], "bad-sampling-rate"),
        (good[:10] + b"\xff\xff\xff\x7f" + good[14:], "bad-header"),
    ):
        (row,) = made(content)
        assert isinstance(row, Reject)
        assert row.code == code


# --- GDF ------------------------------------------------------------------------------------------


@many
@given(
    version=st.sampled_from([1.25, 2.1, 2.2, 2.51]),
    kind=st.sampled_from(list(written.GDF_TYPES)),
    fs=st.sampled_from([100, 128, 250, 256, 360, 1000]),
    unit=st.sampled_from(["mV", "uV", "V", "mmHg", "%", ""]),
    slow=st.integers(1, 4),
    records=st.integers(2, 5),
)
def test_gdf(
    tmp_path: Path, version: float, kind: str, fs: int, unit: str, slow: int, records: int
) -> None:
    info = np.iinfo(kind) if kind[0] in "iu" and kind[1] != "3" else None
    least = 0 if kind[0] == "u" else -100
    most = min(100, info.max) if info else 100
    rng = np.random.default_rng(records)
    x = [
        rng.integers(least, most + 1, records * fs),
        rng.integers(least, most + 1, records * fs * slow),
    ]
    content = written.gdf(x, ["II", "V1"], [fs, fs * slow], version=version, kind=kind, unit=unit,
                          digital=(least, most), physical=(-1.0, 3.0))  # fmt: skip
    root = put(tmp_path / "a", "a.gdf", content)
    row = record_of(root)
    gain = 4.0 / (most - least)
    held = samples_of(root, row)
    assert [(c.name, c.fs) for c in held.channels] == [("II", fs), ("V1", fs * slow)]
    assert set(str(row.fields["units"]).split(",")) == {unit or "unknown"}
    for line, truth in zip(held.samples, x, strict=True):
        np.testing.assert_allclose(line, (truth - least) * gain - 1.0, rtol=1e-5, atol=1e-6)
    assert (row.patient, row.fields["seconds"]) == ("P123", records)
    if version > 2:
        assert row.labels == {"sex": "F", "age": 60}


@pytest.mark.parametrize(("version", "unit"), [(1.25, "mV"), (2.1, "uV"), (2.1, "mV")])
def test_gdf_agrees_with_mne(tmp_path: Path, version: float, unit: str) -> None:
    mne = pytest.importorskip("mne")
    x = list(walk_of(5, 3, 1000))
    content = written.gdf(x, ["II", "V1", "V2"], [250] * 3, version=version, kind="i2", unit=unit,
                          digital=(-32768, 32767), physical=(-5.0, 5.0))  # fmt: skip
    root = put(tmp_path / "a", "a.gdf", content)
    theirs = mne.io.read_raw_gdf(root / "a.gdf", preload=True, verbose="error")
    ours = np.stack(samples_of(root, record_of(root)).samples)
    scale = {"mV": 1e3, "uV": 1e6}[unit] if version > 2 else 1.0
    assert theirs.info["sfreq"] == 250
    got = theirs.get_data()
    scale = scale if np.abs(got).max() * scale > 1e-2 else {"mV": 1e3, "uV": 1e6}[unit]
    np.testing.assert_allclose(ours, got * scale, rtol=1e-5, atol=1e-5)


# --- FIF ------------------------------------------------------------------------------------------


def test_fif(tmp_path: Path) -> None:
    mne = pytest.importorskip("mne")
    x = np.random.default_rng(0).normal(0, 1e-3, (5, 5000))
    info = mne.create_info(
        ["II", "CH7", "EEG Fz", "STI", "skin"], 250.0, ["ecg", "ecg", "eeg", "stim", "gsr"]
    )
    raw = mne.io.RawArray(x, info, verbose="error")
    raw.info["subject_info"] = {"his_id": "P9", "sex": 2, "last_name": "Roe"}
    raw.save(tmp_path / "a_raw.fif", fmt="double", verbose="error")
    row = record_of(tmp_path)
    assert (row.fields["format"], row.fields["fs"], row.fields["seconds"]) == ("FIF", 250.0, 20.0)
    assert row.fields["kinds"] == "ECG,ECG,EEG,EDA"
    assert (row.fields["units"], row.patient, row.labels) == ("V,V,V,S", "P9", {"sex": "F"})
    assert row.findings == ()
    same(tmp_path, row, x[[0, 1, 2, 4]])


def test_fif_with_pauses_wrong_sizes_and_several_files(tmp_path: Path) -> None:
    mne = pytest.importorskip("mne")
    info = mne.create_info(["II", "V1"], 250.0, "ecg")
    x = np.random.default_rng(0).normal(0, 1e-3, (2, 150_000))
    raw = mne.io.RawArray(x, info, first_samp=500, verbose="error")
    raw.set_annotations(mne.Annotations([4.0], [2.0], ["BAD_ACQ_SKIP"]), verbose="error")
    raw.save(tmp_path / "long_raw.fif", split_size="2MB", fmt="double", verbose="error")
    found = {row.key: row for row in rows_of(tmp_path)}
    assert len(found) > 1
    row = found.pop("long_raw.fif")
    assert isinstance(row, Record)
    assert row.fields["samples"] == 150_000
    assert "gaps" in row.findings
    assert {row.code for row in found.values() if isinstance(row, Reject)} == {"part-of-another"}
    held = samples_of(tmp_path, row).samples[0]
    assert np.flatnonzero(np.isnan(held)).tolist() == list(range(1000, 1500))
    part = samples_of(tmp_path, row, (5.0, 7.0)).samples[0]
    np.testing.assert_array_equal(part, held[1250:1750])

    as_mv = mne.io.RawArray(x[:, :5000] * 1e3, info, verbose="error")  # mV taken for V
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    as_mv.save(tmp_path / "mv_raw.fif", verbose="error")
    assert "implausible-amplitude" in record_of(tmp_path).findings
    epochs = mne.make_fixed_length_epochs(as_mv, 1.0, preload=True, verbose="error")
    (tmp_path / "mv_raw.fif").unlink()
    epochs.save(tmp_path / "a-epo.fif", verbose="error")
    assert reject_of(tmp_path).code == "not-a-signal"


# --- hostile and damaged files, one reject each ---------------------------------------------------

WHOLE: dict[str, Callable[[], bytes]] = {
    "a.xml": lambda: written.philips(walk_of(0, 12, 1000), TWELVE),
    "m.xml": lambda: written.muse(list(walk_of(0, 8, 1000)), EIGHT),
    "a.scp": lambda: written.scp(list(walk_of(0, 8, 1000)), EIGHT),
    "a.mwf": lambda: written.mfer(walk_of(0, 8, 1000), EIGHT),
    "a.ecg": lambda: written.ishne(walk_of(0, 3, 1000), ["V1", "V2", "V3"]),
    "a.gdf": (FIXTURES / "biosig2.gdf").read_bytes,
    "a.acq": lambda: gzip.decompress((FIXTURES / "acqknowledge_4.acq.gz").read_bytes()),
}


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("share", [0.0005, 0.01, 0.3, 0.9])
def test_a_file_that_is_cut_off(tmp_path: Path, name: str, share: float) -> None:
    """A reject, or what is there with a finding that it is not all."""
    whole = WHOLE[name]()
    root = put(tmp_path / "a", name, whole[: max(int(share * len(whole)), 8)])
    for row in rows_of(root):
        if isinstance(row, Record):
            assert "truncated" in row.findings or name == "a.acq"
        else:
            assert row.code != "unreadable"


@pytest.mark.parametrize("name", WHOLE)
def test_damaged_bytes_cost_one_file_at_most(tmp_path: Path, name: str) -> None:
    """No crash, no exception but a reject, no memory without end."""
    whole, rng = WHOLE[name](), np.random.default_rng(0)
    for _ in range(25):
        content = bytearray(whole)
        for at in rng.integers(0, min(len(content), 4000), 6):
            content[at] = int(rng.integers(0, 256))
        root = put(tmp_path / "a", name, bytes(content))
        for row in rows_of(root):
            if isinstance(row, Record):
                with suppress(BadSignal):
                    samples_of(root, row, (0.0, 2.0))


def test_claims_that_would_fill_the_memory(tmp_path: Path) -> None:
    pytest.importorskip("ecgdatakit")
    mfer = written.mfer(walk_of(0, 2, 1000), ["I", "II"])
    claims = mfer.replace(bytes([0x05, 1, 2]), bytes([0x05, 4, 0, 0, 0, 4]))
    assert reject_of(put(tmp_path / "a", "a.mwf", claims)).code == "bad-header"
    philips = written.philips(walk_of(0, 12, 1000), TWELVE).decode()
    start = philips.index(">\n", philips.index("<parsedwaveforms")) + 2
    end = philips.index("</parsedwaveforms>")
    import base64

    lies = base64.b64encode(struct.pack("<iHh", 1 << 20, 0, 0) + bytes(1 << 20)).decode()
    content = (philips[:start] + lies + philips[end:]).encode()
    assert reject_of(put(tmp_path / "a", "a.xml", content)).code == "too-large"
    scp = written.scp(list(walk_of(0, 1, 1000)), ["I"])
    claims = scp.replace(struct.pack("<IIB", 1, 1000, 1), struct.pack("<IIB", 1, 4_000_000_000, 1))
    assert reject_of(put(tmp_path / "a", "a.scp", claims)).code == "bad-signal"


@pytest.mark.parametrize(
    ("name", "module"), [("a.scp", "ecgdatakit"), ("a.acq", "bioread"), ("a_raw.fif", "mne")]
)
def test_a_missing_package_is_named(
    tmp_path: Path, name: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    for loaded in [n for n in sys.modules if n.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, module, None)
    row = reject_of(put(tmp_path / "a", name, b"anything"))
    assert row.code == "needs-a-package"
    assert "medcl[signals]" in row.reason
