"""Archives that mean ill or are broken: nothing crashes or leaks, everything gets a reason."""

from __future__ import annotations

import gzip
import io
import logging
import tarfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pydicom
import pytest
from ct_synthetic import ct_series, ct_slice
from pydicom.data import get_testdata_files

import medcl_ct.archives
from medcl.archive.index import Index, build
from medcl.archive.store import prepare
from medcl_ct.plugin import plugin


def index(archive: Path, out: Path, **settings: Any) -> Index:
    build(archive, out, plugin, **settings)
    return Index.open(out)


def codes(found: Index) -> list[str]:
    return sorted(found.rejects["code"])


# --- pydicom's own test files ---------------------------------------------------------------------


@pytest.fixture(scope="session")
def pydicom_files() -> Path:
    return next(Path(f).parent for f in get_testdata_files() if Path(f).name == "CT_small.dcm")


def identifying(root: Path) -> set[str]:
    """Names, ids, dates, times and UIDs in the files below ``root``, wherever they are nested."""
    secrets: set[str] = set()
    for path in root.rglob("*"):
        if not path.is_file():
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                elements = list(pydicom.dcmread(path, force=True).iterall())
        except Exception:
            continue
        for element in elements:
            personal = element.VR in ("PN", "DA", "DT", "UI") or element.keyword in (
                *("PatientID", "AccessionNumber", "StudyID", "InstitutionName", "StationName"),
                *("OtherPatientIDs", "PatientAddress", "DeviceSerialNumber"),
            )
            if personal and element.value:
                values = element.value if element.VM > 1 else [element.value]
                secrets |= {str(value).strip() for value in values}
    # Class and syntax UIDs name no one; very short values ("1") stand everywhere.
    return {s for s in secrets if len(s) >= 5 and not s.startswith("1.2.840.10008.")}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_pydicoms_files(
    pydicom_files: Path,
    tmp_path: Path,
    workers: int,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    secrets = identifying(pydicom_files)
    assert len(secrets) > 100
    caplog.clear()
    caplog.set_level(logging.DEBUG)
    found = index(pydicom_files, tmp_path / "idx", workers=workers)
    prepared = prepare(found, plugin, {"policy": {"single-slice": "accept"}}, workers=workers)

    # Every file that may be DICOM was accepted, or refused with a reason.
    every = {str(p.relative_to(pydicom_files)) for p in pydicom_files.rglob("*") if p.is_file()}
    used = {file for item in found.items["id"] for file in found.files(item)}
    refused = {found.locate(item) for item in found.rejects["id"]}
    other = {name for name in every if name.endswith((".txt", ".json")) or "README" in name}
    assert every == used | refused | other
    assert all(found.rejects["reason"])
    assert found.items["modality"].value_counts().sort("modality")["count"].to_list() == [5, 15]
    assert len(prepared.items) + len(prepared.rejects) == 20
    others = set(found.items.filter(pl.col("modality") == "mr")["id"])
    assert others <= set(prepared.rejects["id"]), "a recipe of CT takes no MR"

    # Nothing that identifies a person is in any output, a log, or on the screen.
    written = b"".join(p.read_bytes() for p in found.path.glob("*") if p.is_file())
    written += b"".join(p.read_bytes() for p in (found.path / "store").rglob("*") if p.is_file())
    for frame in (found.items, found.rejects, prepared.items, prepared.rejects):
        written += frame.write_ndjson().encode()
    shown = capfd.readouterr()
    written += (caplog.text + shown.out + shown.err).encode()
    assert sorted(s for s in secrets if s.encode() in written) == []


# --- zip and tar ----------------------------------------------------------------------------------


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


@pytest.fixture
def good(tmp_path: Path) -> bytes:
    return ct_slice(tmp_path / "good" / "1.dcm", 0.0).read_bytes()


@pytest.mark.parametrize("name", ["../../etc/slice.dcm", "/etc/slice.dcm", "a/../../b.dcm"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_paths_that_climb_out(tmp_path: Path, good: bytes, name: str, kind: str) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    if kind == "zip":
        with zipfile.ZipFile(folder / "x.zip", "w") as packed:
            packed.writestr("good.dcm", good)
            packed.writestr(name, good)
    else:
        with tarfile.open(folder / "x.tar", "w") as archive:
            add(archive, "good.dcm", good)
            add(archive, name, good)
    before = set(tmp_path.rglob("*"))
    found = index(folder, tmp_path / "idx")
    assert (len(found.items), codes(found)) == (0, ["unsafe-archive"])
    assert {p for p in tmp_path.rglob("*") if "idx" not in p.parts} == before


def test_tar_links_that_climb_out(tmp_path: Path, good: bytes) -> None:
    (tmp_path / "a").mkdir()
    with tarfile.open(tmp_path / "a" / "x.tar", "w") as archive:
        link = tarfile.TarInfo("slice.dcm")
        link.type, link.linkname = tarfile.SYMTYPE, "../../../etc/passwd"
        archive.addfile(link)
        add(archive, "good.dcm", good)
    assert codes(index(tmp_path / "a", tmp_path / "idx")) == ["unsafe-archive"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.bz2", "tar.xz"])
def test_bombs(tmp_path: Path, good: bytes, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some kilobytes that unpack to many megabytes (the bounds made small for the test)."""
    monkeypatch.setattr(medcl_ct.archives, "_FREE", 1024 * 1024)
    (tmp_path / "a").mkdir()
    path, zeros = tmp_path / "a" / f"x.{kind}", b"\0" * (40 * 1024 * 1024)
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            packed.writestr("good.dcm", good)
            packed.writestr("big.dcm", zeros)
    else:
        with tarfile.open(path, f"w:{kind[4:]}") as archive:  # type: ignore[call-overload]
            add(archive, "good.dcm", good)
            add(archive, "big.dcm", zeros)
    found = index(tmp_path / "a", tmp_path / "idx")
    assert (len(found.items), codes(found)) == (0, ["unsafe-archive"])


def test_a_zip_whose_directory_lies_about_sizes(tmp_path: Path, good: bytes) -> None:
    """A member that claims to be small and is not ends at what it claims."""
    (tmp_path / "a").mkdir()
    path = tmp_path / "a" / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("big.dcm", good + b"\0" * 10_000_000)
    data = path.read_bytes()
    size = (len(good) + 10_000_000).to_bytes(4, "little")
    path.write_bytes(data.replace(size, (1000).to_bytes(4, "little")))
    found = index(tmp_path / "a", tmp_path / "idx")
    assert len(found.rejects) == 1


@pytest.mark.parametrize("cut", [0.3, 0.9])
@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.xz", "tar"])
def test_archives_that_end_early(tmp_path: Path, good: bytes, kind: str, cut: float) -> None:
    (tmp_path / "a").mkdir()
    path = tmp_path / "a" / f"x.{kind}"
    noise = np.random.default_rng(0).bytes(200_000)
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as packed:
            packed.writestr("good.dcm", good)
            packed.writestr("noise.dcm", noise)
    else:
        with tarfile.open(path, f"w:{kind[4:]}") as archive:  # type: ignore[call-overload]
            add(archive, "good.dcm", good)
            add(archive, "noise.dcm", noise)
    data = path.read_bytes()
    path.write_bytes(data[: int(cut * len(data))])
    found = index(tmp_path / "a", tmp_path / "idx")
    assert (len(found.items), codes(found)) == (0, ["broken-archive"])


def test_encrypted_and_nested_archives(tmp_path: Path, good: bytes) -> None:
    (tmp_path / "a").mkdir()
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as packed:
        packed.writestr("good.dcm", good)
    with zipfile.ZipFile(tmp_path / "a" / "outer.zip", "w") as packed:
        packed.writestr("inner.zip", inner.getvalue())
    locked = bytearray(inner.getvalue())
    for mark in (b"PK\x03\x04", b"PK\x01\x02"):  # set the flag of encryption in both headers
        locked[locked.index(mark) + (6 if mark[2] == 3 else 8)] |= 1
    (tmp_path / "a" / "locked.zip").write_bytes(bytes(locked))
    assert codes(index(tmp_path / "a", tmp_path / "idx")) == ["encrypted", "nested-archive"]


def test_things_named_like_what_they_are_not(tmp_path: Path, good: bytes) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    for name in ("x.zip", "x.tar.gz", "x.nii.gz", "x.nrrd", "x.npz", "x.dcm", "DICOMDIR"):
        (folder / name).write_bytes(b"this is none of them" * 50)
    (folder / "empty.dcm").write_bytes(b"")
    (folder / "slice.dcm.gz").write_bytes(gzip.compress(good))
    found = index(folder, tmp_path / "idx")
    assert len(found.items) == 0
    assert len(found.rejects) == 9
    assert {"empty", "compressed", "not-dicom", "broken-archive", "unreadable"} <= set(codes(found))


# --- pixels ---------------------------------------------------------------------------------------


def reasons(found: Index, **spec: Any) -> list[str]:
    return prepare(found, plugin, spec).rejects["reason"].to_list()


def test_truncated_pixels_cost_the_series_not_the_run(siemens: Path, tmp_path: Path) -> None:
    """A JPEG 2000 stream cut in half: its header is fine, so it is found when it is decoded."""
    ct_series(tmp_path / "a" / "good", [0, 2, 4])
    (tmp_path / "a" / "bad").mkdir()
    for n, path in enumerate(sorted(siemens.iterdir())):
        data = path.read_bytes()
        (tmp_path / "a" / "bad" / path.name).write_bytes(data[: len(data) // 2] if n == 3 else data)
    found = index(tmp_path / "a", tmp_path / "idx")
    assert len(found.items) == 2
    prepared = prepare(found, plugin, {})
    assert len(prepared.items) == 1
    (reason,) = prepared.rejects["reason"]
    assert reason.startswith("undecodable: ")


def test_a_transfer_syntax_that_is_not_what_was_written(tmp_path: Path) -> None:
    """Plain pixels under the name of JPEG 2000."""
    folder = ct_series(tmp_path / "a", [0, 2, 4])
    for path in folder.iterdir():
        data = path.read_bytes()
        old, new = b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.4.90"
        length = (len(new)).to_bytes(2, "little")
        at = data.index(old)
        data = data[: at - 2] + length + new + data[at + len(old) :]
        path.write_bytes(data)
    found = index(folder, tmp_path / "idx")
    assert len(found.items) + len(found.rejects) > 0
    told = reasons(found) + found.rejects["reason"].to_list()
    assert any("JPEG 2000" in reason or "cannot be read" in reason for reason in told)


def test_a_missing_codec_is_named(siemens: Path, tmp_path: Path, monkeypatch: Any) -> None:
    from pydicom.pixels.decoders import base

    found = index(siemens, tmp_path / "idx")
    monkeypatch.setattr(base.Decoder, "is_available", property(lambda self: False))
    (reason,) = reasons(found)
    assert "pip install pylibjpeg-openjpeg" in reason
    assert "JPEG 2000" in reason


def test_an_unknown_transfer_syntax(tmp_path: Path) -> None:
    found = index(
        ct_series(tmp_path / "a", [0, 2], TransferSyntaxUID="1.2.840.10008.1.2.1"), tmp_path / "i"
    )
    assert reasons(found) == []


def test_a_nifti_that_claims_more_than_it_holds(tmp_path: Path) -> None:
    import nibabel as nib

    (tmp_path / "a").mkdir()
    image = nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4))
    image.header.set_data_shape((30000, 30000, 30000))
    with (tmp_path / "a" / "x.nii").open("wb") as handle:
        image.header.write_to(handle)
        handle.write(b"\0" * 1000)
    assert codes(index(tmp_path / "a", tmp_path / "idx")) == ["implausible-size"]


def test_an_npz_with_pickles_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    bad = np.array([{"a": 1}], dtype=object)
    np.savez(tmp_path / "a" / "organsmnist.npz", train_images=bad)
    assert codes(index(tmp_path / "a", tmp_path / "idx")) == ["not-a-benchmark"]
