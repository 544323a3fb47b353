"""Readers of one-file formats: real samples in, the same samples out; broken files one reject each.

The DICOM ECG is a real file (pydicom's); the other containers are written for the test around real
samples (MIT-BIH 101), EDF and BDF by an independent library (edfio).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import polars as pl
import pytest
import wfdb

from medcl.archive.index import Index, build
from medcl.archive.store import prepare as prepare_all
from medcl.plugin import FileStat, Record, Reject
from medcl_biosignals.plugin import plugin
from medcl_biosignals.prepare import prepare
from medcl_biosignals.readers.choose import read
from medcl_biosignals.readers.contract import Recording
from medcl_biosignals.scan import settings_of

FS = 360.0


@pytest.fixture(scope="session")
def ecg101() -> np.ndarray:
    """Twenty seconds of MIT-BIH 101 in mV, (2, 7200)."""
    sample = Path(__file__).parents[2] / "plugins/medcl_biosignals/sample/101"
    record = wfdb.rdrecord(str(sample), sampto=7200)
    return np.ascontiguousarray(np.round(record.p_signal.T, 3))


def rows_of(root: Path, **said: Any) -> list[Record | Reject]:
    files = [
        FileStat(path.relative_to(root).as_posix(), path.stat().st_size, 0)
        for path in sorted(root.rglob("*"))
        if path.is_file()
    ]
    return [row for unit in plugin.units(files) for row in plugin.scan(root, unit, **said)]  # type: ignore[call-arg]


def record_of(root: Path, **said: Any) -> Record:
    (row,) = rows_of(root, **said)
    assert isinstance(row, Record), row
    return row


def code_of(root: Path, **said: Any) -> str:
    (row,) = rows_of(root, **said)
    assert isinstance(row, Reject), row
    return row.code


def samples_of(root: Path, row: Record, span: Any = None, **said: Any) -> Recording:
    return read(root, row.files[0], settings_of(said), span)


def same(root: Path, row: Record, truth: np.ndarray, atol: float = 0.0, **said: Any) -> None:
    """The samples are these, and a span of them is that part."""
    whole = np.stack(samples_of(root, row, **said).samples)
    np.testing.assert_allclose(whole, truth.astype(np.float32), rtol=0, atol=atol)
    fs = float(row.fields["fs"])  # type: ignore[arg-type]
    part = np.stack(samples_of(root, row, (3.0, 5.0), **said).samples)
    np.testing.assert_array_equal(part, whole[:, round(3 * fs) : round(5 * fs)])


# --- EDF and BDF ----------------------------------------------------------------------------------


def edf(root: Path, ecg101: np.ndarray, kind: str = "Edf", person: Any = None) -> Path:
    import edfio

    line = getattr(edfio, f"{kind}Signal")
    signals = [
        line(ecg101[0], FS, label="ECG MLII", physical_dimension="mV"),
        line(ecg101[1, ::4], FS / 4, label="Pleth", physical_dimension=""),
    ]
    patient = person or edfio.Patient()
    path = root / f"night.{kind.lower()}"
    made = getattr(edfio, kind)(
        signals,
        patient=patient,
        recording=edfio.Recording(),
        annotations=[edfio.EdfAnnotation(2.0, None, "Roe, Anna moved")],
    )
    made.write(path)
    return path


@pytest.mark.parametrize("kind", ["Edf", "Bdf"])
def test_edf_agrees_with_edfio(tmp_path: Path, ecg101: np.ndarray, kind: str) -> None:
    import edfio

    path = edf(tmp_path, ecg101, kind)
    row = record_of(tmp_path)
    assert row.fields["format"] == f"{kind.upper()}+C"
    assert (row.fields["leads"], row.fields["kinds"]) == ("MLII,PLETH", "ECG,PPG")
    assert (row.fields["fs"], row.fields["rates"]) == (360, "360,90")
    assert row.fields["seconds"] == 20
    truth = getattr(edfio, f"read_{kind.lower()}")(path)
    ours = samples_of(tmp_path, row)
    for line, signal, original in zip(
        ours.samples, truth.signals, (ecg101[0], ecg101[1, ::4]), strict=True
    ):
        np.testing.assert_allclose(line, signal.data, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(line, original, atol=1e-3)
    part = samples_of(tmp_path, row, (3.5, 7.25))
    np.testing.assert_array_equal(part.samples[0], ours.samples[0][1260:2610])
    np.testing.assert_array_equal(part.samples[1], ours.samples[1][315:652])
    arrays = prepare(tmp_path, row.files, row.fields, fs=100.0)
    assert arrays["x"].shape == (2, 2000)
    assert len(arrays["beats"]) == pytest.approx(20 * 72 / 60, abs=4)


def test_pauses_of_edf_d(tmp_path: Path, ecg101: np.ndarray) -> None:
    path = edf(tmp_path, ecg101)
    data = bytearray(path.read_bytes())
    start = int(data[184:192])
    records = int(data[236:244])
    per_record = (len(data) - start) // records
    duration = 20 / records
    data[192:236] = b"EDF+D".ljust(44)
    for n in range(records // 2, records):  # the second half comes seven seconds later
        at = data.index(b"+", start + (n + 1) * per_record - _note_bytes(data, per_record))
        stamp = f"+{n * duration + 7:g}".encode() + b"\x14\x14\0"
        data[at : at + len(stamp)] = stamp
    path.write_bytes(data)
    row = record_of(tmp_path)
    assert row.fields["format"] == "EDF+D"
    assert row.fields["seconds"] == 27
    assert "gaps" in row.findings
    line = samples_of(tmp_path, row).samples[0]
    half = records // 2 * round(duration * FS)
    np.testing.assert_allclose(line[:half], ecg101[0, :half], atol=1e-3)
    assert np.isnan(line[half : half + 7 * 360]).all()
    np.testing.assert_allclose(line[half + 7 * 360 :], ecg101[0, half:], atol=1e-3)
    part = samples_of(tmp_path, row, (5.0, 20.0))
    np.testing.assert_array_equal(part.samples[0], line[1800:7200])


def _note_bytes(data: bytearray, per_record: int) -> int:
    signals = int(data[252:256])
    counts = 256 + signals * 216
    return 2 * int(data[counts + 8 * (signals - 1) : counts + 8 * signals])


def test_an_edf_whose_header_lies_or_that_is_cut_off(tmp_path: Path, ecg101: np.ndarray) -> None:
    path = edf(tmp_path, ecg101)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    row = record_of(tmp_path)
    assert "truncated" in row.findings
    assert 12 <= float(row.fields["seconds"]) <= 14  # type: ignore[arg-type]
    n = int(float(row.fields["seconds"]) * 360)  # type: ignore[arg-type]
    np.testing.assert_allclose(samples_of(tmp_path, row).samples[0], ecg101[0, :n], atol=1e-3)
    for content, code in (
        (whole[:700], "truncated"),
        (whole[: int(whole[184:192])], "truncated"),
        (whole[:100], "not-edf"),
        (b"0       " + b"x" * 5000, "bad-header"),
        (whole[:252] + b"9999" + whole[256:], "bad-header"),
        (b"", "empty-file"),
    ):
        path.write_bytes(content)
        assert code_of(tmp_path) == code
    path.write_bytes(whole[:236] + b"99999999" + whole[244:])
    assert "truncated" in record_of(tmp_path).findings


def test_the_name_in_an_edf_header_is_nowhere(tmp_path: Path, ecg101: np.ndarray) -> None:
    import datetime

    import edfio

    person = edfio.Patient(
        code="MRN-4711", sex="F", birthdate=datetime.date(1951, 5, 2), name="Kowalczyk_Jadwiga"
    )
    archive = tmp_path / "archive"
    archive.mkdir()
    edf(archive, ecg101, person=person)
    broken = archive / "broken.edf"
    broken.write_bytes((archive / "night.edf").read_bytes()[:900])
    summary = build(archive, tmp_path / "idx", plugin)
    assert (summary.items, summary.rejected) == (1, 1)
    index = Index.open(tmp_path / "idx")
    prepare_all(index, plugin, {"fs": 100.0})
    (row,) = [r for r in rows_of(archive) if isinstance(r, Record)]
    assert row.patient == "MRN-4711"
    private = tmp_path / "idx/private"
    for path in (tmp_path / "idx").rglob("*"):
        if path.is_file() and not path.is_relative_to(private):
            content = path.read_bytes()
            for secret in (b"4711", b"Kowalczyk", b"Jadwiga", b"1951", b"Roe"):
                assert secret not in content, path.name
    for path in private.rglob("*"):  # the name is not even there
        assert not path.is_file() or b"Kowalczyk" not in path.read_bytes()


# --- DICOM ----------------------------------------------------------------------------------------


@pytest.fixture
def dicom(tmp_path: Path) -> Path:
    from pydicom.data import get_testdata_file

    source = get_testdata_file("waveform_ecg.dcm")
    assert isinstance(source, str)
    (tmp_path / "ecg.dcm").write_bytes(Path(source).read_bytes())
    return tmp_path


def test_a_real_dicom_ecg(dicom: Path) -> None:
    from pydicom import dcmread

    rhythm, median = rows_of(dicom)
    assert isinstance(rhythm, Record)
    assert isinstance(median, Record)
    assert rhythm.fields["leads"] == "I,II,III,aVR,aVL,aVF,V1,V2,V3,V4,V5,V6"
    assert (rhythm.fields["fs"], rhythm.fields["samples"]) == (1000, 10_000)
    assert set(str(rhythm.fields["units"]).split(",")) == {"uV"}
    assert "derived-waveform" in median.findings
    file = dcmread(dicom / "ecg.dcm")
    assert rhythm.patient == file.PatientID
    truth = file.waveform_array(0).T
    same(dicom, rhythm, truth, atol=1e-3)
    arrays = prepare(dicom, rhythm.files, rhythm.fields, fs=100.0, band=None, leads=("II",))
    assert np.abs(arrays["x"]).max() == pytest.approx(np.abs(truth[1]).max() / 1000, rel=0.1)  # mV


@pytest.mark.parametrize(
    ("tags", "labels"),
    [
        ({}, {"sex": "F", "age": 42}),
        ({"PatientAge": "018M", "PatientSex": "O"}, {"age": 1}),
        ({"PatientAge": "097Y"}, {"sex": "F", "age": 90}),
        ({"PatientAge": "", "PatientBirthDate": "19710126"}, {"sex": "F", "age": 41}),
        ({"PatientAge": "", "PatientBirthDate": "19000101"}, {"sex": "F"}),
        ({"PatientAge": "", "PatientBirthDate": "", "PatientSex": ""}, {}),
        (
            {"PatientAge": "", "AcquisitionDateTime": "", "StudyDate": ""},
            {"sex": "F"},
        ),
    ],
)
def test_dicom_says_sex_and_age(
    dicom: Path, tags: dict[str, str], labels: dict[str, object]
) -> None:
    from pydicom import dcmread

    file = dcmread(dicom / "ecg.dcm")
    for name, value in tags.items():
        setattr(file, name, value)
    file.save_as(dicom / "ecg.dcm")
    for row in rows_of(dicom):
        assert isinstance(row, Record)
        assert row.labels == labels


def test_broken_dicom(dicom: Path) -> None:
    from pydicom import dcmread
    from pydicom.data import get_testdata_file

    file = dcmread(dicom / "ecg.dcm")
    file.WaveformSequence[0].WaveformData = file.WaveformSequence[0].WaveformData[:1000]
    file.save_as(dicom / "ecg.dcm")
    short, median = rows_of(dicom)
    assert isinstance(short, Reject)
    assert short.code == "truncated"
    assert isinstance(median, Record)
    ct = get_testdata_file("CT_small.dcm")
    assert isinstance(ct, str)
    (dicom / "ecg.dcm").write_bytes(Path(ct).read_bytes())
    assert code_of(dicom) == "not-a-signal"
    (dicom / "ecg.dcm").write_bytes(b"no DICOM at all" * 100)
    assert code_of(dicom) == "not-dicom"


# --- HL7 aECG and Apple Health --------------------------------------------------------------------


ABOUT = (
    '<subjectDemographicPerson><administrativeGenderCode code="M"/><birthTime value="19530508"/>'
    "</subjectDemographicPerson>"
)


def aecg(x: np.ndarray, person: str = "S-0042", about: str = ABOUT) -> str:
    """Two leads in steps of 5 µV, as FDA's example has them (synthetic container)."""
    leads = "".join(
        f'<component><sequence><code code="MDC_ECG_LEAD_{lead}"/><value xsi:type="SLIST_PQ">'
        f'<origin value="0" unit="uV"/><scale value="5" unit="uV"/>'
        f"<digits>{' '.join(str(v) for v in np.rint(row * 200).astype(int))}</digits>"
        "</value></sequence></component>"
        for lead, row in zip(("II", "V1"), x, strict=True)
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<AnnotatedECG xmlns="urn:hl7-org:v3" '
        'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
        '<effectiveTime><low value="20021122091000"/></effectiveTime>'
        "<componentOf><timepointEvent><componentOf><subjectAssignment><subject><trialSubject>"
        f'<id root="1.2.3" extension="{person}"/>{about}</trialSubject></subject>'
        "</subjectAssignment></componentOf></timepointEvent></componentOf>"
        "<component><series><component><sequenceSet><component><sequence>"
        '<code code="TIME_ABSOLUTE"/><value xsi:type="GLIST_TS"><head value="20020101"/>'
        '<increment value="0.00277777777777778" unit="s"/></value></sequence></component>'
        f"{leads}</sequenceSet></component></series></component></AnnotatedECG>"
    )


def test_aecg(tmp_path: Path, ecg101: np.ndarray) -> None:
    (tmp_path / "a.xml").write_text(aecg(ecg101))
    row = record_of(tmp_path)
    assert (row.fields["leads"], row.fields["units"]) == ("II,V1", "uV,uV")
    assert row.fields["fs"] == 360
    assert row.patient == "S-0042"
    assert row.labels == {"sex": "M", "age": 49}
    (tmp_path / "a.xml").write_text(aecg(ecg101, about=""))
    assert record_of(tmp_path).labels == {}
    (tmp_path / "a.xml").write_text(aecg(ecg101))
    same(tmp_path, row, ecg101 * 1000, atol=2.6)  # µV: half a step


def bomb() -> str:
    lines = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10 if n else "ha" * 10}">' for n in range(12))
    return (
        f"<?xml version='1.0'?><!DOCTYPE AnnotatedECG [{lines}]><AnnotatedECG>&l11;</AnnotatedECG>"
    )


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (bomb(), "unsafe-xml"),
        (
            '<!DOCTYPE AnnotatedECG [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
            "<AnnotatedECG>&x;</AnnotatedECG>",
            "unsafe-xml",
        ),
        ('<!DOCTYPE AnnotatedECG SYSTEM "http://example.org/x.dtd"><AnnotatedECG/>', "unsafe-xml"),
        ("<AnnotatedECG>" + "<a>" * 100 + "</a>" * 100 + "</AnnotatedECG>", "unsafe-xml"),
        ("<AnnotatedECG><component>", "bad-xml"),
        ("<AnnotatedECG/>", "no-signals"),
        ("<PatientList><name>Anna Roe</name></PatientList>", "not-a-signal"),
        (
            "<!DOCTYPE HealthData [<!ELEMENT HealthData (Me)>]><HealthData><Me/></HealthData>",
            "no-signals",
        ),
        ("no XML", "bad-xml"),
    ],
)
def test_xml_that_is_not_read(tmp_path: Path, content: str, code: str) -> None:
    (tmp_path / "a.xml").write_text(content)
    assert code_of(tmp_path) == code


def apple(x: np.ndarray, german: bool = False) -> str:
    names = (
        ("Name", "Geburtsdatum", "Aufzeichnungsdatum", "Messrate", "Ableitung", "Einheit")
        if german
        else ("Name", "Date of Birth", "Recorded Date", "Sample Rate", "Lead", "Unit")
    )
    facts = (
        '"Roe, Anna"',
        '"May 2, 1951"',
        "2021-03-04 05:06:07 +0100",
        "360 hertz",
        "Lead I",
        "µV",
    )
    values = [f"{v:.3f}" for v in x * 1000]
    if german:
        values = [v.replace(".", ",") for v in values]
        facts = (*facts[:3], "360 Hertz", "Ableitung I", "µV")
    head = [f"{n},{f}" for n, f in zip(names, facts, strict=True)]
    return "\n".join([*head[:4], "", "", *head[4:], "", *values]) + "\n"


@pytest.mark.parametrize("german", [False, True])
def test_apple_health(tmp_path: Path, ecg101: np.ndarray, german: bool) -> None:
    (tmp_path / "ecg_2021-03-04.csv").write_text(apple(ecg101[0], german))
    row = record_of(tmp_path)
    assert (row.fields["format"], row.fields["fs"]) == ("Apple Health", 360)
    assert (row.fields["leads"], row.fields["units"]) == ("I", "uV")
    same(tmp_path, row, ecg101[:1] * 1000, atol=1e-3)
    shown = repr((row.fields, row.labels, row.findings))
    assert not [secret for secret in ("Roe", "Anna", "1951", "2021") if secret in shown]
    assert "Roe" in row.patient  # raw here: the index hashes it


# --- NumPy, MATLAB, HDF5 --------------------------------------------------------------------------


def test_npy(tmp_path: Path, ecg101: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", ecg101.T)
    assert code_of(tmp_path) == "no-sampling-rate"
    said: dict[str, Any] = {"fs": FS, "columns": {"1": "MLII", "2": "V1"}, "units": "mV"}
    row = record_of(tmp_path, **said)
    assert (row.fields["leads"], row.fields["units"]) == ("MLII,V1", "mV,mV")
    same(tmp_path, row, ecg101, **said)
    np.save(tmp_path / "a.npy", np.zeros((4, 12, 500)))
    assert code_of(tmp_path, fs=FS) == "not-a-signal"


def test_npz(tmp_path: Path, ecg101: np.ndarray) -> None:
    np.savez_compressed(tmp_path / "a.npz", II=ecg101[0], V1=ecg101[1], fs=FS, peaks=np.arange(30))
    row = record_of(tmp_path)
    assert (row.fields["leads"], row.fields["fs"]) == ("II,V1", 360)
    same(tmp_path, row, ecg101)
    time = np.arange(7200) / FS
    np.savez(tmp_path / "a.npz", signal=ecg101, channels=["II", "V1"], time=time, units="mV")
    row = record_of(tmp_path)
    assert (row.fields["leads"], row.fields["fs"], row.fields["units"]) == ("II,V1", 360, "mV,mV")
    same(tmp_path, row, ecg101)
    assert "fs-mismatch" in record_of(tmp_path, fs=100.0).findings


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return (Path.touch, (str(tmp_path / "sprung"),))  # type: ignore[return-value]

    trap = np.array([Trap(), 1], dtype=object)
    np.save(tmp_path / "a.npy", trap, allow_pickle=True)
    assert code_of(tmp_path, fs=FS) == "pickled-objects"
    (tmp_path / "a.npy").unlink()
    np.savez(tmp_path / "a.npz", x=trap)
    assert code_of(tmp_path, fs=FS) == "pickled-objects"
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.h5", "a.mat", "a.parquet"])
def test_a_cut_off_file_is_one_reject(tmp_path: Path, ecg101: np.ndarray, name: str) -> None:
    path = tmp_path / name
    if name.endswith("npy"):
        np.save(path, ecg101)
    elif name.endswith("npz"):
        np.savez(path, II=ecg101[0], fs=FS)
    elif name.endswith("h5"):
        with h5py.File(path, "w") as file:
            file["II"] = ecg101[0]
    elif name.endswith("mat"):
        from scipy.io import savemat

        savemat(path, {"II": ecg101[0], "fs": FS})
    else:
        pl.DataFrame({"time": np.arange(7200) / FS, "II": ecg101[0]}).write_parquet(path)
    whole = path.read_bytes()
    for keep in (10, len(whole) // 2):
        path.write_bytes(whole[:keep])
        assert code_of(tmp_path, fs=FS) in ("bad-signal", "truncated")


@pytest.mark.parametrize("compressed", [False, True])
def test_matlab(tmp_path: Path, ecg101: np.ndarray, compressed: bool) -> None:
    from scipy.io import savemat

    names = np.array(["II", "V1"], dtype=object)
    content = {"val": ecg101, "Fs": FS, "leads": names}
    savemat(tmp_path / "a.mat", content, do_compression=compressed)
    row = record_of(tmp_path)
    assert (row.fields["format"], row.fields["leads"]) == ("MATLAB", "II,V1")
    same(tmp_path, row, ecg101)
    structure = {"data": {"ppg": ecg101[0], "fs": FS, "subject": "S7"}}
    savemat(tmp_path / "a.mat", structure, do_compression=compressed)
    row = record_of(tmp_path)
    assert (row.fields["leads"], row.fields["fs"], row.patient) == ("PPG", 360, "S7")
    same(tmp_path, row, ecg101[:1])


def test_matlab_without_a_header_beside_wfdb(tmp_path: Path, ecg101: np.ndarray) -> None:
    """A .mat with a .hea is WFDB, one without is MATLAB; both in one folder."""
    from scipy.io import savemat

    for suffix in (".hea", ".dat", ".atr"):
        sample = Path(__file__).parents[2] / f"plugins/medcl_biosignals/sample/101{suffix}"
        (tmp_path / f"101{suffix}").write_bytes(sample.read_bytes())
    savemat(tmp_path / "other.mat", {"II": ecg101[0], "fs": FS})
    (tmp_path / "lone.hea").write_text("lone 1 360 3600\nlone.x 16 200/mV 16 0 0 0 0 II\n")
    rows = {row.key: row for row in rows_of(tmp_path)}
    assert isinstance(rows["101"], Record)
    assert isinstance(rows["other.mat"], Record)
    assert isinstance(rows["lone"], Reject)


def test_matlab_7_3_is_hdf5(tmp_path: Path, ecg101: np.ndarray) -> None:
    with h5py.File(tmp_path / "a.mat", "w", userblock_size=512) as file:
        file["val"] = ecg101.T  # MATLAB stores columns first
        file["Fs"] = np.array([[FS]])
        file["subject"] = np.array([[ord(c)] for c in "S9"], dtype=np.uint16)
        file["subject"].attrs["MATLAB_class"] = np.bytes_("char")
    with (tmp_path / "a.mat").open("r+b") as handle:
        handle.write(b"MATLAB 7.3 MAT-file".ljust(512))
    row = record_of(tmp_path)
    assert (row.fields["channels"], row.fields["fs"], row.patient) == (2, 360, "S9")
    same(tmp_path, row, ecg101)


def test_hdf5_groups_are_recordings(tmp_path: Path, ecg101: np.ndarray) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs["fs"] = FS
        for n in (1, 2):
            group = file.create_group(f"study/subject0{n}")
            group["ECG"] = ecg101[n - 1]
            group["ECG"].attrs["units"] = "mV"
            group["PPG"] = ecg101[0, ::2]
            group["PPG"].attrs["fs"] = FS / 2
        file["secret"] = h5py.ExternalLink("/etc/passwd", "/")
    first, second = rows_of(tmp_path)
    assert isinstance(first, Record)
    assert isinstance(second, Record)
    assert [first.patient, second.patient] == ["subject01", "subject02"]
    assert (second.fields["leads"], second.fields["rates"]) == ("ECG,PPG", "360,180")
    lines = samples_of(tmp_path, second).samples
    np.testing.assert_array_equal(lines[0], ecg101[1].astype(np.float32))
    np.testing.assert_array_equal(lines[1], ecg101[0, ::2].astype(np.float32))


# --- Parquet --------------------------------------------------------------------------------------


def test_wide_parquet_in_folders_by_subject(tmp_path: Path, ecg101: np.ndarray) -> None:
    for n in (0, 1):
        folder = tmp_path / f"subject={n + 7}"
        folder.mkdir()
        stamps = pl.datetime_range(
            pl.datetime(2024, 1, 1), pl.datetime(2024, 1, 2), interval="4ms", eager=True
        )[:7200]
        frame = pl.DataFrame({"timestamp": stamps, "ppg_green": ecg101[n], "acc_x": ecg101[0]})
        frame.write_parquet(folder / "part-0.parquet")
    rows = rows_of(tmp_path)
    assert [row.patient for row in rows if isinstance(row, Record)] == ["7", "8"]
    (second,) = [row for row in rows if isinstance(row, Record) and row.patient == "8"]
    assert (second.fields["leads"], second.fields["fs"]) == ("PPG-green,ACC-x", 250)
    same(tmp_path, second, ecg101[::-1])


def test_long_parquet_keeps_rates(tmp_path: Path, ecg101: np.ndarray) -> None:
    fast = pl.DataFrame(
        {"t": np.arange(7200) / 100, "channel": "PPG-green", "value": ecg101[0], "unit": "a.u."}
    )
    slow = pl.DataFrame(
        {"t": 2 + np.arange(1800) / 25, "channel": "ACC-x", "value": ecg101[1, ::4], "unit": "g"}
    )
    both = pl.concat([fast, slow]).sort("t").with_columns(subject_id=pl.lit("P3"))
    both.write_parquet(tmp_path / "a.parquet")
    row = record_of(tmp_path, time_unit="s")
    assert (row.patient, row.fields["rates"], row.fields["units"]) == ("P3", "100,25", "a.u.,g")
    lines = samples_of(tmp_path, row, time_unit="s").samples
    np.testing.assert_array_equal(lines[0], ecg101[0].astype(np.float32))
    assert np.isnan(lines[1][:50]).all()
    np.testing.assert_array_equal(lines[1][50:], ecg101[1, ::4].astype(np.float32))


def test_parquet_of_a_recording_a_row(tmp_path: Path, ecg101: np.ndarray) -> None:
    frame = pl.DataFrame(
        {
            "patient_id": ["a1", "a2"],
            "fs": [FS, FS],
            "ppg": [ecg101[0].tolist(), ecg101[1].tolist()],
        }
    )
    frame.write_parquet(tmp_path / "a.parquet")
    rows = rows_of(tmp_path)
    assert [row.patient for row in rows if isinstance(row, Record)] == ["a1", "a2"]
    assert isinstance(rows[1], Record)
    same(tmp_path, rows[1], ecg101[1:])


# --- units ----------------------------------------------------------------------------------------


def test_units_are_kept_and_converted_where_they_are_known(
    tmp_path: Path, ecg101: np.ndarray
) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs["fs"] = FS
        for name, unit, by in (("II", "mV", 1), ("V1", "uV", 1000), ("V5", "adu", 200)):
            file[name] = ecg101[0] * by
            file[name].attrs["units"] = unit
        file["ACC-x"], file["ACC-x"].attrs["units"] = ecg101[0] * 9.80665, "m/s2"
    row = record_of(tmp_path)
    units = dict(
        zip(str(row.fields["leads"]).split(","), str(row.fields["units"]).split(","), strict=True)
    )
    assert units == {"II": "mV", "V1": "uV", "V5": "adu", "ACC-x": "m/s2"}
    assert "mixed-units" in row.findings
    leads = ("II", "V1", "V5", "ACC-x")
    x = prepare(tmp_path, row.files, row.fields, fs=FS, band=None, leads=leads, dtype="float32")[
        "x"
    ]
    np.testing.assert_allclose(x[1], x[0], atol=1e-5)
    np.testing.assert_allclose(x[3], x[0], atol=1e-5)  # in g
    np.testing.assert_allclose(x[2], x[0] * 200, atol=1e-3)  # arbitrary units stay


def test_people_in_one_parquet(tmp_path: Path, ecg101: np.ndarray) -> None:
    frame = pl.DataFrame(
        {
            "user": [7] * 4000 + [8] * 3200,
            "t_ms": np.concatenate([np.arange(4000), np.arange(3200)]) * 4.0,
            "ppg": ecg101[0],
        }
    )
    frame.write_parquet(tmp_path / "a.parquet", row_group_size=1000)
    first, second = rows_of(tmp_path)
    assert isinstance(first, Record)
    assert isinstance(second, Record)
    assert (first.patient, second.patient) == ("7", "8")
    same(tmp_path, second, ecg101[:1, 4000:])
    long = frame.rename({"ppg": "value"}).with_columns(channel=pl.lit("PPG"))
    long.write_parquet(tmp_path / "a.parquet")
    first, second = rows_of(tmp_path)
    assert isinstance(second, Record)
    same(tmp_path, second, ecg101[:1, 4000:])


def test_kinds_of_numbered_and_of_unknown_channels(tmp_path: Path, ecg101: np.ndarray) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs["fs"] = FS
        for name, unit in (("ECG2", "mV"), ("left", "mV"), ("wrist", "g"), ("thing", "adu")):
            file[name] = ecg101[0]
            file[name].attrs["units"] = unit
    said: dict[str, Any] = {"columns": {n: n for n in ("ECG2", "left", "wrist", "thing")}}
    row = record_of(tmp_path, **said)
    assert row.fields["leads"] == "ECG2,other,other,other"
    assert row.fields["kinds"] == "ECG,ECG,other,ACC"
