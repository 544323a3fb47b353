"""Which reader reads a file: by its name, and by its first bytes where names say too little."""

from __future__ import annotations

import zipfile
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import cast

from medcl.plugin import MEMBER
from medcl_biosignals.readers.contract import BadSignal, Reader, Recording, Settings, Span

TABLES = (".csv", ".tsv")
TEXT, JSON = ".txt", ".json"
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
    ".fit": "fit",
}
_XML = {
    "RestingECG": "muse",
    "CardiologyXML": "cardiosoft",
    "restingecgdata": "carts",
    "HealthData": "apple_export",
}
"""By the element that an XML file begins with; others are tried as HL7 aECG, and refused there."""
PACKED = (".gz", ".xz", ".bz2", ".zip")
PICKLED = (".pkl", ".pickle", ".joblib")
SUFFIXES = (*_MODULES, *TABLES, ".mat", ".zip", *PICKLED)
"""What `units` takes as a recording in one file (``.hea``, and ``.mat`` beside one, are WFDB)."""
_HDF5 = b"\x89HDF\r\n\x1a\n"


def is_read(name: str) -> bool:
    """Whether a file of this name may be a recording; a packed one by the name of what is in it."""
    lower = PurePosixPath(name.lower())
    if lower.suffix in (".gz", ".xz", ".bz2"):
        inner = PurePosixPath(lower.stem).suffix
        return inner in (*SUFFIXES, TEXT, JSON) and inner not in (".hea", ".zip", *PICKLED)
    return lower.suffix in (*SUFFIXES, TEXT, JSON) or is_bare(name)


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


def is_recorders(path: Path) -> bool:
    """Whether a file is a recorder's, where its name may be that of anything: notes, licences,
    settings. What is none is no failure either."""
    suffix = path.suffix.lower()
    if suffix == TEXT:
        from medcl_biosignals.readers.text import is_recorders as is_table

        return is_table(path)
    if is_bare(path.name):
        return is_dicom(path)
    return suffix != JSON or _json(path.name, _head(path)) is not None


def reader(path: Path) -> Reader:
    """The reader of a file.

    Raises:
        BadSignal: if the file is empty, or of no format that is read.
    """
    suffix = PurePosixPath(path.name.lower()).suffix
    if suffix in PICKLED:
        raise BadSignal(
            "pickled-objects",
            "a pickle holds Python objects, which could run any code when they are loaded: it is "
            "not read. Save plain arrays (.npz) or a table (.parquet)",
        )
    bare = is_bare(path.name) and is_dicom(path)
    if suffix not in (*SUFFIXES, *PACKED, TEXT, JSON) and not bare:
        raise BadSignal("unknown-format", "no reader for files of this name")
    head = _head(path)
    if not head.strip():
        raise BadSignal("empty-file", "the file is empty")
    if bare:
        name = "dicom"
    elif suffix in PACKED:
        name = "packed"
    elif suffix in (*TABLES, TEXT):
        from medcl_biosignals.readers.apple import is_apple
        from medcl_biosignals.readers.samsung import is_samsung

        name = "apple" if is_apple(head) else "samsung" if is_samsung(path.name, head) else "table"
    elif suffix == JSON:
        found = _json(path.name, head)
        if found is None:
            raise BadSignal("not-a-signal", "a JSON file that is not of a recorder")
        name = found
    elif suffix == ".mat":  # version 7.3 is HDF5 with a block of 512 bytes before it
        name = "hdf5" if _HDF5 in head else "matlab"
    elif suffix == ".xml":
        from medcl_biosignals.readers.xml_tree import root_of

        name = _XML.get(root_of(path), "aecg")
    else:
        name = _MODULES[suffix]
    return cast(Reader, import_module(f"medcl_biosignals.readers.{name}"))


def _head(path: Path) -> bytes:
    """The first bytes of a file."""
    with path.open("rb") as handle:
        return handle.read(4096)


def _json(name: str, head: bytes) -> str | None:
    """The module that reads a JSON file, by its name and beginning; None for any other."""
    from medcl_biosignals.readers.fitbit import is_fitbit
    from medcl_biosignals.readers.movesense import is_movesense
    from medcl_biosignals.readers.samsung import is_samsung

    if is_fitbit(name, head):
        return "fitbit"
    if is_samsung(name, head):
        return "samsung"
    return "movesense" if is_movesense(head) else None


def read(root: Path, file: str, settings: Settings, span: Span | None = None) -> Recording:
    """The samples of an item by the first of its files, as `Record.files` names it.

    Raises:
        BadSignal: if they cannot be read.
    """
    name, _, part = file.partition(MEMBER)
    return reader(root / name).read(root / name, part, settings, span)
