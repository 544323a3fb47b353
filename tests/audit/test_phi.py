"""Planted identifiers are found however they are written; what medcl writes itself holds none."""

from __future__ import annotations

import base64
import bz2
import gzip
import hashlib
import json
import lzma
import sys
import zipfile
import zlib
from collections.abc import Callable
from datetime import date, time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from medcl.archive.index import build
from medcl.audit import headers
from medcl.audit.phi import Searched, search
from medcl.errors import UsageError

sys.path.append(str(Path(__file__).parents[1] / "archive"))
from synthetic_plugin import plugin, recording

NAME, BIRTH, MRN = "Zimmermann", "1948-03-17", "MRN-0047113"


def dicom(path: Path) -> str:
    """A header without pixels; returns its series' identifier."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = generate_uid()
    file = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    file.SOPClassUID, file.SeriesInstanceUID = CTImageStorage, generate_uid()
    file.PatientName, file.PatientID, file.PatientBirthDate = f"{NAME}^Ida", MRN, "19480317"
    file.StudyDate, file.StudyTime, file.InstitutionName = "20240229", "131415", "Haus am See"
    inner = Dataset()
    inner.ReferencedSOPInstanceUID = generate_uid()
    file.ReferencedImageSequence = [inner]
    file.save_as(path, enforce_file_format=True)
    return str(file.SeriesInstanceUID)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phi") / "archive"
    recording(folder / "Wegener_Otto", "night", "Otto_Wegener", "Klinik_Nordwest")
    dicom(folder / "ct.dcm")
    edf = b"0       " + b"NP-551 F 02-MAY-1951 Kr\xe4mer_Ute".ljust(80)
    edf += b"Startdate 02-MAR-2002 EEG-77 Dr_Vogelsang".ljust(80) + b"02.03.0221.43.05"
    (folder / "sleep.edf").write_bytes(edf.ljust(256))
    (folder / "a.hea").write_text("a 1 100 1000 08:15:42 03/04/2011\n# Name: Paula Sommerfeld\n")
    with zipfile.ZipFile(folder / "packed.zip", "w") as packed:
        packed.writestr("s.xml", "<subject><familyName>Osterkamp</familyName></subject>")
    (folder / "who.csv").write_text("name;age\nGrünewald;61\n李小龍;32\n", encoding="utf-8")
    nifti = bytearray(352)
    nifti[148:160], nifti[344:348] = b"Bruno Kessel", b"n+1\0"
    (folder / "mask.nii.gz").write_bytes(gzip.compress(bytes(nifti)))
    (folder / "v.nrrd").write_bytes(b"NRRD0005\nPatientName:=Thea Lindqvist\n\n" + bytes(99))
    bare = Dataset()  # as before part 10 of DICOM
    bare.Modality, bare.PatientName = "CT", "Rosa Achterberg"
    bare.save_as(folder / "old", implicit_vr=True, little_endian=True, enforce_file_format=False)
    return folder


def found(out: Path, archive: Path) -> Searched:
    return search(out, archive, [plugin])


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("Otto_Wegener", "patient"),
        ("Klinik_Nordwest", "site"),
        ("Wegener_Otto", "folder name"),
        (NAME, "PatientName"),
        (f"{NAME.upper()}^IDA", "PatientName"),
        (MRN, "PatientID"),
        ("17.03.1948", "PatientBirthDate"),
        (BIRTH, "PatientBirthDate"),
        ("29 February 2024", "StudyDate"),
        ("13:14:15", "StudyTime"),
        ("Haus am See", "InstitutionName"),
        ("Krämer Ute", "EDF patient"),
        ("2002-03-02T21:43:05", "EDF start"),
        ("1015105385", "EDF start"),  # seconds since 1970
        ("Dr_Vogelsang", "EDF recording"),
        ("08:15:42", "WFDB time"),
        ("2011-04-03", "WFDB date"),
        ("Paula Sommerfeld", "Name"),
        ("Osterkamp", "familyName"),
        ("17.3.1948", "PatientBirthDate"),
        ("March 17, 1948", "PatientBirthDate"),
        ("17.03.48", "PatientBirthDate"),
        ("Gr\\u00fcnewald", "name"),  # as JSON has it
        ("Gr&uuml;newald", "name"),
        ("Gr%C3%BCnewald", "name"),
        ("GRÜNEWALD", "name"),
        ("Gru\u0308newald", "name"),
        ("李小龍", "name"),
        ("Thea Lindqvist", "PatientName"),
        ("Bruno Kessel", "NIfTI descrip"),
        ("Rosa Achterberg", "PatientName"),
    ],
)
def test_identifying_values_are_known(archive: Path, tmp_path: Path, value: str, kind: str) -> None:
    (tmp_path / "notes.txt").write_text(f"seen: {value}.")
    assert kind in {leak.kind for leak in found(tmp_path, archive).leaks}


def in_a_table(path: Path, value: str) -> Path:
    frame = pl.DataFrame({"n": [1.5, 2.5], "list": [["nothing"], ["more", value]]})
    frame.write_parquet(path.with_suffix(".parquet"))
    return path


def in_columns(path: Path, value: str) -> Path:
    number = int(value) if value.isdigit() else None
    frame = pl.DataFrame(
        {"bytes": [value.encode(), b"\xff"], "whole": [number and float(number), None]}
    ).with_columns(pl.lit(date(2026, 2, 3)).alias("day"), pl.lit(time(1, 2)).alias("clock"))
    frame.write_parquet(path.with_suffix(".parquet"))
    return path


def in_a_zip(path: Path, value: str) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("inner.json", json.dumps({"a": value}))
    return path


WAYS: dict[str, Callable[[Path, str], object]] = {
    "as it is": lambda p, v: p.write_bytes(b"\0\1" + v.encode() + b"\xff"),
    "UTF-16": lambda p, v: p.write_bytes(b"\0" + f"x {v} y".encode("utf-16-le")),
    "hexadecimal": lambda p, v: p.write_text(v.encode().hex().upper()),
    "base64": lambda p, v: p.write_bytes(base64.b64encode(f"a{v} and more".encode())),
    "sha256": lambda p, v: p.write_text(hashlib.sha256(v.encode()).hexdigest()[:16]),
    "md5": lambda p, v: p.write_bytes(b"\0" + hashlib.md5(v.encode()).digest()),
    "sha1": lambda p, v: p.write_bytes(base64.b64encode(hashlib.sha1(v.encode()).digest())),
    "as it is, in zlib": lambda p, v: p.write_bytes(b"junk" + zlib.compress(f"{v} {v}".encode())),
    "as it is, in gzip": lambda p, v: p.write_bytes(gzip.compress(v.encode())),
    "as it is, in a zip": in_a_zip,
    "as it is, in a table": in_a_table,
    "as it is, in bzip2": lambda p, v: p.write_bytes(bz2.compress(v.encode())),
    "as it is, in xz": lambda p, v: p.write_bytes(lzma.compress(v.encode())),
    "as it is, in a table ": in_columns,
    "UTF-32": lambda p, v: np.save(p, np.array(["x", v])),
    "as it is, in its name": lambda p, v: p.with_name(f"of {v}.txt").write_text("x"),
}


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("value", [MRN, "Otto_Wegener", "20240229"])
def test_a_planted_value_is_found(archive: Path, tmp_path: Path, how: str, value: str) -> None:
    for n in range(3):
        (tmp_path / f"clean{n}.bin").write_bytes(hashlib.sha256(bytes([n])).digest() * 100)
    assert not found(tmp_path, archive).leaks
    WAYS[how](tmp_path / "planted", value)
    leaks = found(tmp_path, archive).leaks
    assert how.strip() in {leak.how for leak in leaks}
    assert all("clean" not in leak.file for leak in leaks)
    assert value not in str(leaks) or "in its name" in how


def test_of_what_medcl_writes_only_the_private_folder_identifies(
    archive: Path, tmp_path: Path
) -> None:
    build(archive, tmp_path / "idx", plugin)
    result = found(tmp_path / "idx", archive)
    assert result.leaks == ()
    assert result.private > 3
    moved = tmp_path / "idx" / "private"
    moved.rename(tmp_path / "idx" / "public")
    assert {"patient", "folder name"} <= {leak.kind for leak in found(tmp_path, archive).leaks}


def test_numbers_and_short_words_count_as_whole_words_only(tmp_path: Path) -> None:
    recording(tmp_path / "archive", "r", "4711", "s")
    out = tmp_path / "out"
    out.mkdir()
    (out / "numbers.csv").write_text("0.4711,14711,47112,x4711y,-4711,4711.5\n")
    result = search(out, tmp_path / "archive", [plugin])
    assert result.leaks == ()
    assert result.short  # "r" and "s"
    (out / "numbers.csv").write_text("patient,4711,1\n")
    assert [leak.kind for leak in search(out, tmp_path / "archive", [plugin]).leaks] == ["patient"]


def test_broken_and_hostile_files_are_passed_over(tmp_path: Path) -> None:
    files = {
        "a.dcm": bytes(128) + b"DICM" + b"\xff" * 900,
        "b.zip": b"PK\x03\x04" + b"\0" * 40,
        "c.tar.gz": b"\x1f\x8b" + b"\1" * 60,
        "d.tif": b"II*\0\xff\xff\xff\xff",
        "e.edf": b"0       ",
        "f.txt": b"\xff\xfename",
        "g": b"",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        list(headers.identifying(tmp_path / name))  # nothing is raised
    assert list(headers.identifying(tmp_path / "nothing")) == []


def test_further_values_and_bad_requests(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("Quirin Abendroth")
    (leak,) = search(tmp_path, archive, [plugin], ["Quirin Abendroth"]).leaks
    assert (leak.file, leak.kind, leak.how, leak.values) == ("t.txt", "given", "as it is", 1)
    with pytest.raises(UsageError, match="does not exist"):
        found(tmp_path / "nowhere", archive)
