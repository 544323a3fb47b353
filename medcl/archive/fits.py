"""Which plugin an archive is for, where the one that was named takes nothing of it."""

from __future__ import annotations

from pathlib import Path

from medcl import plugin as plugins
from medcl.archive import scanning
from medcl.archive.walk import walk
from medcl.plugin import Plugin

LOOKED_AT = 20
"""Units of an archive that each plugin tries."""


def fitting(archive: Path, *, but: str) -> dict[str, int]:
    """Plugin → how many of the first units it reads, most first. Those that read none are absent.

    Args:
        archive: the folder.
        but: the plugin that was tried already.
    """
    files = walk(archive).files
    read = {}
    for name, plugin in plugins.discover().items():
        if name == but or not isinstance(plugin, Plugin):
            continue
        units = list(plugin.units(files))[:LOOKED_AT]
        done = [scanning.scan_unit(plugin.scan, archive, unit) for unit in units]
        if count := sum(bool(entry.records) for entry in done):
            read[name] = count
    return dict(sorted(read.items(), key=lambda entry: -entry[1]))
