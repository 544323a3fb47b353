"""The walk over a header gives what pydicom gives, on every file at hand."""

from __future__ import annotations

import struct
from io import BytesIO
from pathlib import Path

import pytest
from ct_synthetic import ct_slice
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_files
from pydicom.uid import ImplicitVRLittleEndian

from medcl_ct import tags

PYDICOM = sorted({Path(f) for f in get_testdata_files() if Path(f).is_file()})


def compare(path: Path) -> bool:
    """Whether the walk read the file itself; that it agrees with pydicom is asserted."""
    data = path.read_bytes()
    try:
        found, end = tags.walk(data, complete=True)
    except tags.Odd:
        return False
    assert found == tags.by_pydicom(BytesIO(data)), path.name
    assert 0 < end <= len(data)
    return True


def test_agrees_with_pydicom_on_its_own_files() -> None:
    dicom = [path for path in PYDICOM if tags.looks_like_dicom(path.read_bytes()[:200])]
    walked = sum(compare(path) for path in dicom)
    assert walked > 120  # the rest is big-endian, deflated, without meta header, or broken


@pytest.mark.slow
def test_agrees_with_pydicom_on_real_series(unpacked: Path, siemens: Path) -> None:
    files = [*unpacked.rglob("*.dcm"), *siemens.iterdir()]
    assert len(files) > 100
    assert all(compare(path) for path in files)


def test_agrees_with_pydicom_on_the_bundled_series(siemens: Path) -> None:
    assert all(compare(path) for path in siemens.iterdir())


@pytest.mark.parametrize("path", PYDICOM, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_reads_little(path: Path) -> None:
    """Whether by walk or by pydicom: the same tags from the front as from the whole file."""
    data = path.read_bytes()

    def front() -> BytesIO:
        return BytesIO(data)

    try:
        found, _ = tags.read(front, len(data))
    except tags.NotDicom:
        return
    assert found == tags.by_pydicom(BytesIO(data))


def test_a_header_longer_than_the_first_read(siemens: Path, tmp_path: Path) -> None:
    import pydicom

    dataset = pydicom.dcmread(next(siemens.iterdir()))
    dataset.add_new(0x00091001, "OB", b"\0" * 100_000)
    dataset.private_block(0x0009, "SIEMENS CT VA1 DUMMY", create=True)
    path = tmp_path / "long.dcm"
    dataset.save_as(path)
    size = path.stat().st_size
    assert tags.read(tags.open_path(path), size)[0] == tags.by_pydicom(path.open("rb"))


CT = next(path for path in PYDICOM if path.name == "CT_small.dcm").read_bytes()


@settings(max_examples=300)
@given(st.integers(0, 6000), st.binary(min_size=1, max_size=8))
def test_damaged_headers_end_in_words(at: int, noise: bytes) -> None:
    """Any few bytes overwritten: tags, or an exception; never a hang."""
    data = CT[:at] + noise + CT[at + len(noise) :]
    try:
        found, _ = tags.read(lambda: BytesIO(data), len(data))
    except Exception:
        return
    assert all(isinstance(value, str | tuple | int) for value in found.values())


@settings(max_examples=100)
@given(st.integers(0, len(CT)))
def test_truncated_headers_end_in_words(length: int) -> None:
    try:
        tags.read(lambda: BytesIO(CT[:length]), length)
    except Exception:
        return


def test_deep_nesting_does_not_exhaust_the_stack() -> None:
    start = b"\0" * 128 + b"DICM" + struct.pack("<HH2sH", 2, 0x10, b"UI", 20)
    start += b"1.2.840.10008.1.2.1\0"
    sequence = struct.pack("<HH2sHI", 8, 0x1140, b"SQ", 0, 0xFFFFFFFF)
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    with pytest.raises(tags.Odd):
        tags.walk(start + (sequence + item) * 5000, complete=True)


@pytest.mark.parametrize("implicit", [False, True])
def test_binary_numbers_are_read_as_such(tmp_path: Path, implicit: bool) -> None:
    """FL and FD are binary: 30.0 as text would be nothing, and phases of a heart one volume."""
    syntax = {"TransferSyntaxUID": ImplicitVRLittleEndian} if implicit else {}
    own = {"NominalPercentageOfCardiacPhase": 30.0, "DiffusionBValue": 800.0, **syntax}
    path = ct_slice(tmp_path / "x", 0.0, **own)
    found, end = tags.read(tags.open_path(path), path.stat().st_size)
    assert end, "pydicom was needed"
    assert found["NominalPercentageOfCardiacPhase"] == (30.0,)
    assert found["DiffusionBValue"] == (800.0,)
    with path.open("rb") as handle:
        by_pydicom = tags.by_pydicom(handle)
    assert by_pydicom["NominalPercentageOfCardiacPhase"] == (30.0,)
