"""Which reader reads a file: by its name, and by its first bytes where names say too little."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import cast

from medcl.plugin import MEMBER
from medcl_biosignals.readers.contract import BadSignal, Reader, Recording, Settings, Span

TABLES = (".csv", ".tsv")
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
}
SUFFIXES = (*_MODULES, *TABLES, ".mat")
"""What `units` takes as a recording in one file (``.hea``, and ``.mat`` beside one, are WFDB)."""
_HDF5 = b"\x89HDF\r\n\x1a\n"


def reader(path: Path) -> Reader:
    """The reader of a file.

    Raises:
        BadSignal: if the file is empty, or of no format that is read.
    """
    suffix = PurePosixPath(path.name.lower()).suffix
    if suffix not in SUFFIXES:
        raise BadSignal("unknown-format", "no reader for files of this name")
    with path.open("rb") as handle:
        head = handle.read(4096)
    if not head.strip():
        raise BadSignal("empty-file", "the file is empty")
    if suffix in TABLES:
        from medcl_biosignals.readers.apple import is_apple

        name = "apple" if is_apple(head) else "table"
    elif suffix == ".mat":  # version 7.3 is HDF5 with a block of 512 bytes before it
        name = "hdf5" if _HDF5 in head else "matlab"
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
