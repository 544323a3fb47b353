"""The binding of an index to one archive, one plugin and one key."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from medcl import manifest, version
from medcl.archive import pseudonym
from medcl.archive.pseudonym import Pseudonyms
from medcl.errors import UsageError
from medcl.io import roots, storage
from medcl.plugin import GROUP, Plugin
from medcl.reading import read_json

FORMAT = 1

RESTORE = "Restore it from a copy, or index the archive into another --out."


def private_folder(out: Path) -> Path:
    """Create the folder for patient identifiers and paths, accessible to its owner only.

    Raises:
        UsageError: if ``out`` is a file, or an index without its private folder: a new key would
            silently change the pseudonyms of its patients.
    """
    private = out / "private"
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file: an index is a folder. Choose another --out.")
    if (out / "index.json").exists() and not (private / "archive.json").exists():
        raise UsageError(
            f"{out} is an index without its private folder ({private / 'archive.json'} is missing)."
            " Restore that folder, or choose another --out."
        )
    private.mkdir(parents=True, exist_ok=True)
    private.chmod(0o700)
    (private / "scan").mkdir(mode=0o700, exist_ok=True)
    return private


def claim(
    private: Path,
    archive: Path,
    plugin: Plugin,
    from_key_file: Pseudonyms | None,
    reader: Mapping[str, Any] | None = None,
    reader_files: Mapping[str, str] | None = None,
) -> Pseudonyms:
    """Bind a new index, or open the pseudonyms of an existing one.

    ``from_key_file`` are the pseudonyms of a key file. An archive that moved (its old path no
    longer exists) stays the same archive. ``reader`` replaces the reader settings of the index, and
    ``reader_files`` are the hashes of the files among them: see `digests`.

    Raises:
        UsageError: if the index is bound to another archive, plugin or key, or its key is lost.
        MedclError: if the file of the binding is damaged.
    """
    path, index = private / "archive.json", private.parent
    bound = read_json(path, RESTORE) if path.exists() else {}
    if bound.get("curated"):
        raise UsageError(
            f"{index} is a curated index: index the archive into the index it was made of, and "
            "curate again."
        )
    if bound and bound["plugin"] != plugin.name:
        raise UsageError(
            f"{index} is an index of plugin '{bound['plugin']}', not '{plugin.name}'. "
            "Choose another --out."
        )
    before = roots.moved(Path(bound["archive"])) if bound else archive
    if archive != before and (storage.address(before) or before.is_dir()):
        raise UsageError(
            f"{index} is the index of {bound['archive']}, not of {archive}. Choose another --out."
        )
    if bound and bound["own_key"] and not (private / "key").exists():
        raise UsageError(
            f"The key of {index} is gone: {private / 'key'} is missing. Restore it, or index into "
            "another --out."
        )
    pseudonyms = from_key_file or pseudonym.own(private, may_create=not bound)
    if bound and bound["key_check"] != pseudonyms.check:
        key_origin = "its own key" if bound["own_key"] else "another key file"
        raise UsageError(
            f"{index} was made with {key_origin}: the patients' pseudonyms would change. Give the "
            f"same key (--key-file or ${pseudonym.KEY_VARIABLE}), or choose another --out."
        )
    binding = {
        "archive": str(archive),
        "beside": os.path.relpath(archive, index),
        "plugin": plugin.name,
        "key_check": pseudonyms.check,
        "own_key": (private / "key").exists(),
        "reader": bound.get("reader", {}) if reader is None else dict(reader),
        "reader_files": dict(reader_files or {}),
    }
    manifest.write_text(path, json.dumps(binding, indent=2) + "\n")
    return pseudonyms


def reader_settings(private: Path, *, moved: bool = False) -> dict[str, Any]:
    """The reader settings of an index. Private: they may name columns.

    ``moved``: with the paths of files where they lie now (`medcl.io.roots`).
    """
    settings: dict[str, Any] = read_json(private / "archive.json", RESTORE).get("reader", {})
    if not moved:
        return settings
    return {
        name: str(roots.moved(Path(value)))
        if isinstance(value, str) and os.path.isabs(value)
        else value
        for name, value in settings.items()
    }


def reader_mark(private: Path) -> dict[str, Any]:
    """`reader_settings` with a hash for each file: a difference means that items are read anew."""
    files: dict[str, str] = read_json(private / "archive.json", RESTORE).get("reader_files", {})
    return reader_settings(private) | files


def digests(settings: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 of the files among settings (values of type `Path`): setting → hash.

    Raises:
        UsageError: if one cannot be read.
    """
    hashes = {}
    for name, value in settings.items():
        if isinstance(value, Path):
            try:
                hashes[name] = manifest.of_file(value)
            except OSError as error:
                raise UsageError(
                    f"reader.{name}: {value} cannot be read ({error.strerror}). Give the file that "
                    f"is meant: medcl index … -s reader.{name}=FILE"
                ) from None
    return hashes


def made_by(plugin: Plugin) -> dict[str, Any]:
    """The versions that determine how files are read: a change makes all be read again."""
    versions = [
        entry.dist.version
        for entry in entry_points(group=GROUP)
        if entry.name == plugin.name and entry.dist is not None
    ]
    return {
        "format": FORMAT,
        "medcl": version.__version__,
        "plugin": plugin.name,
        "plugin_version": versions[0] if versions else None,
        "contract": plugin.contract,
    }
