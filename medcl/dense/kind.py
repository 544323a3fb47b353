"""How a study of masks is told from other folders, without what it takes to open one."""

from __future__ import annotations

from pathlib import Path

FILE = "dense.json"


def is_dense(path: Path) -> bool:
    """Whether a folder is a finished study of masks."""
    return (path / FILE).is_file()
