"""DICOMDIR: a CD's table of contents. Its files are found by walking; here they are counted."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

from medcl.plugin import Reject
from medcl_ct.quiet import quiet


def check(root: Path, path: str) -> Reject:
    """What a DICOMDIR promises and what of it is there. It is never an item itself."""
    import pydicom

    try:
        with quiet():
            dataset = pydicom.dcmread(root / path, force=True)
            names = [
                parts
                for entry in dataset.get("DirectoryRecordSequence") or []
                if (parts := _parts(entry.get("ReferencedFileID")))
            ]
    except Exception as error:
        return Reject(path, "unreadable", f"The DICOMDIR cannot be read ({type(error).__name__}).")
    folder = (root / path).parent
    missing = sum(not _there(folder, parts) for parts in names)
    if missing:
        reason = f"The DICOMDIR lists {len(names)} files; {missing} of them are not here."
        return Reject(path, "missing-files", reason)
    reason = f"A DICOMDIR: the {len(names)} files it lists are indexed themselves."
    return Reject(path, "directory", reason)


def _parts(value: Any) -> tuple[str, ...]:
    if not value:
        return ()
    return (value,) if isinstance(value, str) else tuple(str(part) for part in value)


def _there(folder: Path, parts: tuple[str, ...]) -> bool:
    """Whether the file is there, under its own name or in small letters, as mounts show it."""
    if any(part in ("..", ".") or "/" in part for part in parts):
        return False
    return any(
        (folder / PurePosixPath(*names)).is_file()
        for names in (parts, tuple(part.lower() for part in parts))
    )
