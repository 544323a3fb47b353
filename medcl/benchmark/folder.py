"""Finding the files of a public set in the folder that a user gives."""

from __future__ import annotations

from pathlib import Path

from medcl.errors import UsageError


def inside(folder: Path, name: str, what: str) -> Path:
    """A file or folder of that name, in ``folder`` or one of its subfolders, the nearest first.

    Raises:
        UsageError: if there is none; says ``what`` to unpack.
    """
    if (folder / name).exists():
        return folder / name
    found = sorted(folder.glob(f"*/{name}")) or sorted(folder.glob(f"*/*/{name}"))
    if not found:
        raise UsageError(f"{folder} holds no {name}: give the folder into which {what} unpacks.")
    return found[0]
