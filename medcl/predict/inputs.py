"""New recordings as a temporary index: links to what was named, under the run's own key."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from medcl.archive import index as indexing
from medcl.archive.claim import reader_settings
from medcl.archive.index import Index
from medcl.archive.reading import read_json
from medcl.errors import UsageError
from medcl.run import Run


@contextmanager
def indexed(
    run: Run, records: Sequence[Path], *, key_file: Path | None = None, workers: int = 1
) -> Iterator[Index]:
    """Index files and folders for as long as this lasts; nothing is copied or written beside them.

    A file brings those of its stem along (``100.hea`` needs ``100.dat``), and a record may be named
    without suffix. Paths keep their place below the archive of the run's index, or else below the
    folder that all of them lie in, so that one person is the same patient here as there.

    Args:
        run: whose plugin reads the files, and whose index lends its key.
        records: files, stems of files, and folders.
        key_file: the secret of the pseudonyms, if the run's index was made with a key file.
        workers: processes that read headers.

    Raises:
        UsageError: if a path does not exist, or holds nothing for this plugin.
    """
    wanted = [path for record in records for path in _files(record.absolute())]
    base = _base(run, wanted)
    own = run.data / "private" / "key"
    if key_file is None and own.is_file():
        key_file = own
    with TemporaryDirectory(prefix="medcl-predict-") as scratch:  # its owner's alone
        archive = Path(scratch) / "archive"
        for path in wanted:
            link = archive / path.relative_to(base)
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.is_symlink():
                link.symlink_to(path, target_is_directory=path.is_dir())
        out = Path(scratch) / "index"
        indexing.build(
            archive, out, run.plugin, workers=workers, key_file=key_file, reader=_reader(run)
        )
        yield Index.open(out)


def _reader(run: Run) -> dict[str, Any] | None:
    """What the run's own files did not say (``medcl index --set reader.…``) holds for new ones."""
    private = run.data / "private"
    return reader_settings(private) if (private / "archive.json").is_file() else None


def _files(record: Path) -> list[Path]:
    if record.is_dir():
        return [record]
    beside = (
        sorted(record.parent.glob(f"{_escaped(record.stem)}.*")) if record.parent.is_dir() else []
    )
    if not record.is_file():  # a record's name, without suffix
        beside = [
            p for p in sorted(record.parent.glob(f"{_escaped(record.name)}.*")) if p.is_file()
        ]
        if not beside:
            raise UsageError(f"{record} does not exist. Give recordings, or folders of them.")
    return [path for path in beside if path.is_file()]


def _escaped(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _base(run: Run, paths: Sequence[Path]) -> Path:
    """Where keys of records begin: the run's archive if all lie in it, else what they share."""
    facts = run.data / "private" / "archive.json"
    if facts.is_file():
        archive = Path(str(read_json(facts, "Index it again.").get("archive", "")))
        if archive.is_absolute() and all(path.is_relative_to(archive) for path in paths):
            return archive
    return Path(os.path.commonpath([path.parent for path in paths]))
