"""Which reader reads a file: by its name, and by its first bytes where names say too little."""

from __future__ import annotations

import re
import zipfile
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import cast

from medcl.plugin import MEMBER
from medcl_biosignals.readers.contract import BadSignal, Reader, Recording, Settings, Span

TABLES = (".csv", ".tsv")
TEXT = ".txt"
"""Read only where what stands in it says that it is a recorder's: any text may have this suffix."""
_MODULES = {
    ".hea": "wfdb_record",
    ".edf": "edf",
    ".bdf": "edf",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".dcm": "dicom",
    ".xml": "aecg",
    ".npy": "numpy_file",
    ".npz": "numpy_file",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".rec": "edf",
    ".feather": "frame",
    ".arrow": "frame",
    ".ipc": "frame",
    ".xlsx": "frame",
    ".xls": "frame",
    ".xlsm": "frame",
    ".avro": "embrace",
    ".scp": "carts",
    ".mwf": "carts",
    ".mfer": "carts",
    ".ecg": "ishne",
    ".gdf": "gdf",
    ".acq": "acq",
    ".fif": "fif",
}
_XML = {"RestingECG": "muse", "restingecgdata": "carts"}
"""By the element that an XML file begins with; others are tried as HL7 aECG, and refused there."""
PACKED = (".gz", ".xz", ".bz2", ".zip")
PICKLED = (".pkl", ".pickle", ".joblib")
SUFFIXES = (*_MODULES, *TABLES, ".mat", ".zip", *PICKLED)
"""What `units` takes as a recording in one file (``.hea``, and ``.mat`` beside one, are WFDB)."""
_FITBIT = re.compile(r"heart_rate-\d{4}-\d{2}-\d{2}\.json")
_HDF5 = b"\x89HDF\r\n\x1a\n"


def is_read(name: str) -> bool:
    """Whether a file of this name may be a recording; a packed one by the name of what is in it."""
    lower = PurePosixPath(name.lower())
    if lower.suffix in (".gz", ".xz", ".bz2"):
        inner = PurePosixPath(lower.stem).suffix
        return inner in SUFFIXES and inner not in (".hea", ".zip", *PICKLED)
    if lower.suffix in (*SUFFIXES, TEXT) or _FITBIT.fullmatch(lower.name) is not None:
        return True
    return is_bare(name)


def is_bare(name: str) -> bool:
    """Whether a name says nothing of the format, as DICOM's do: ``IM000001``, ``1.2.840.10008.7``.

    Such a file is read if it begins like DICOM, and left alone if not.
    """
    suffix = PurePosixPath(name).suffix
    return suffix == "" or suffix[1:].isdigit()


def is_dicom(path: Path | zipfile.Path) -> bool:
    """Whether a file begins like one of DICOM's: 128 bytes of anything, then its letters."""
    with path.open("rb") as handle:
        return handle.read(132)[128:] == b"DICM"


def reader(path: Path) -> Reader:
    """The reader of a file.

    Raises:
        BadSignal: if the file is empty, or of no format that is read.
    """
    suffix = PurePosixPath(path.name.lower()).suffix
    if _FITBIT.fullmatch(path.name.lower()):
        raise BadSignal(
            "not-a-signal", "heart rates as Fitbit exports them, in beats a minute: no waveform"
        )
    if suffix in PICKLED:
        raise BadSignal(
            "pickled-objects",
            "a pickle holds Python objects, which could run any code when they are loaded: it is "
            "not read. Save plain arrays (.npz) or a table (.parquet)",
        )
    bare = is_bare(path.name) and is_dicom(path)
    if suffix not in (*SUFFIXES, *PACKED, TEXT) and not bare:
        raise BadSignal("unknown-format", "no reader for files of this name")
    with path.open("rb") as handle:
        head = handle.read(4096)
    if not head.strip():
        raise BadSignal("empty-file", "the file is empty")
    if bare:
        name = "dicom"
    elif suffix in PACKED:
        name = "packed"
    elif suffix in (*TABLES, TEXT):
        from medcl_biosignals.readers.apple import is_apple

        name = "apple" if is_apple(head) else "table"
    elif suffix == ".mat":  # version 7.3 is HDF5 with a block of 512 bytes before it
        name = "hdf5" if _HDF5 in head else "matlab"
    elif suffix == ".xml":
        from medcl_biosignals.readers.xml_tree import root_of

        name = _XML.get(root_of(path), "aecg")
    else:
        name = _MODULES[suffix]
    return cast(Reader, import_module(f"medcl_biosignals.readers.{name}"))


def read(root: Path, file: str, settings: Settings, span: Span | None = None) -> Recording:
    """The samples of an item by the first of its files, as `Record.files` names it.

    Raises:
        BadSignal: if they cannot be read.
    """
    name, _, part = file.partition(MEMBER)
    return reader(root / name).read(root / name, part, settings, span)
