"""Files that are only looked at once: an index of them for as long as a command runs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from medcl.archive.index import Index, build
from medcl.errors import UsageError
from medcl.plugin import Plugin


@contextmanager
def visiting(paths: Sequence[Path], plugin: Plugin, *, home: Index | None = None) -> Iterator[Path]:
    """A temporary index of a folder, or of some files, removed at the end.

    Files that share a file's stem come along (a header and its signal). Under the key of ``home``
    the people of both have the same pseudonyms.

    Raises:
        UsageError: if nothing is there, or none of it is for this plugin (with the first reason).
    """
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path} does not exist.")
    with TemporaryDirectory(prefix="medcl-") as folder:
        archive = Path(folder) / "archive"
        if len(paths) == 1 and paths[0].is_dir():
            archive = paths[0]
        else:
            _gather(paths, archive)
        out = Path(folder) / "index"
        key = home.path / "private" / "key" if home is not None else None
        build(archive, out, plugin, key_file=key if key is not None and key.is_file() else None)
        index = Index.open(out)
        if not len(index.items):
            reason = index.rejects["reason"][0] if len(index.rejects) else "it holds no such file"
            raise UsageError(f"Nothing there can be used by the plugin '{plugin.name}': {reason}")
        yield out


def _gather(paths: Sequence[Path], archive: Path) -> None:
    for number, path in enumerate(paths):
        place = archive / (str(number) if len(paths) > 1 else "")
        if path.is_dir():
            shutil.copytree(path, place, copy_function=_link, dirs_exist_ok=True)
            continue
        place.mkdir(parents=True, exist_ok=True)
        for file in path.parent.iterdir():
            if file.is_file() and file.name.split(".")[0] == path.name.split(".")[0]:
                _link(str(file), str(place / file.name))


def _link(source: str, target: str) -> str:
    """A hard link costs nothing; across file systems it has to be a copy."""
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copy2(source, target)
    return target
