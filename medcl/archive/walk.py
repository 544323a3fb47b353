"""The files of an archive, by name, size and time only: nothing is opened."""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from medcl import manifest
from medcl.errors import MedclError, UsageError
from medcl.io import storage
from medcl.plugin import FileStat, Reject

_TEMPORARY = (".tmp", ".temp", ".part", ".partial", ".crdownload", "~")
_SYSTEM = {"thumbs.db", "desktop.ini"}
_OUTPUT = (
    "The folder is an index, a run or a study of medcl; its files are left out. Keep it outside of "
    "the archive."
)
_OUTSIDE = (
    "The link leads out of the archive and is not followed. Index the folder that it leads to, "
    "copy it here, or follow such links: --follow-links."
)
_NOT_DATA = ("/proc", "/sys", "/dev", "/run")


@dataclass
class Walked:
    """The files of an archive in the order of their paths, and those that could not be listed."""

    files: list[FileStat] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)


def walk(root: Path, skip: Path | None = None, *, follow: bool = False) -> Walked:
    """List the regular files below ``root``, without hidden and temporary ones.

    A folder reached twice (a link to its own parent, two links to one folder) is listed once, under
    its real path if that is in the archive. A link that leads out of the archive is a reject:
    what it leads to may be another's, or change without the archive.

    Args:
        root: the archive; an address of object storage is listed instead.
        skip: a folder to leave out, such as the index when it lies inside the archive.
        follow: also take what links outside of the archive lead to, except the system's folders.

    Raises:
        UsageError: if the archive is missing, not a folder, unreadable or without a file.
    """
    if storage.address(root) is not None:
        return _listed(root)
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise UsageError(f"The archive {root} {what}. Give the folder that holds the recordings.")
    if not os.access(root, os.R_OK | os.X_OK):
        raise UsageError(f"The archive {root} may not be read by this user. Ask for access.")
    walked = Walked()
    visited = {_identity(os.stat(skip))} if skip is not None and skip.is_dir() else set()
    visited.discard(_identity(os.stat(root)))
    inside = _Inside(root, follow)
    folders, links = deque([""]), deque[str]()  # links come last: real paths have precedence
    while folders or links:
        folder = folders.popleft() if folders else links.popleft()
        try:
            identity = _identity(os.stat(root / folder))
            if identity in visited:
                continue
            visited.add(identity)
            entries = sorted(_visible(root / folder), key=lambda e: e.name)
            if folder and _is_output(root / folder, entries):
                walked.rejects.append(Reject(folder, "medcl-output", _OUTPUT))
                continue
            for entry in entries:
                path = f"{folder}{entry.name}"
                if entry.is_symlink() and not inside.leads_in(entry.path):
                    walked.rejects.append(Reject(path, "link-outside", _OUTSIDE))
                    continue
                _file_or_folder(entry, path, walked, folders, links)
        except OSError as error:
            reason = f"The folder could not be listed ({error.strerror}); its files are missing."
            walked.rejects.append(Reject(folder, "unreadable-folder", reason))
    walked.files.sort(key=lambda file: file.path)
    if not walked.files and not walked.rejects:
        raise UsageError(f"The archive {root} holds no file. Give the folder with the recordings.")
    return walked


def _listed(root: Path) -> Walked:
    """The files of an archive on object storage."""
    files = [FileStat(*each) for each in storage.listed(root)]
    shown = [file for file in files if not any(map(hidden, file.path.split("/")))]
    if not shown:
        raise UsageError(f"The archive {storage.address(root)} holds no file. Check the address.")
    return Walked(shown)


@dataclass(frozen=True)
class _Inside:
    """Which links are followed."""

    root: Path
    follow: bool

    def leads_in(self, link: str) -> bool:
        """Whether a link leads to a place that may be read, or nowhere."""
        target = Path(os.path.realpath(link))
        if target.is_relative_to(os.path.realpath(self.root)):
            return True
        if any(target.is_relative_to(system) for system in _NOT_DATA):
            return False
        return self.follow or not target.exists()  # one that leads nowhere has its own reject


def _is_output(folder: Path, entries: list[os.DirEntry[str]]) -> bool:
    """Whether a folder is an index, a run or a study: its private tables are no recordings."""
    if not {manifest.FILE, "private"} <= {entry.name for entry in entries}:
        return False
    try:
        return manifest.load(folder) is not None
    except manifest.DamagedError:  # another program's
        return False
    except MedclError:  # of a later version
        return True


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _visible(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if not hidden(entry.name):
                yield entry


def hidden(name: str) -> bool:
    """Whether a file or folder of this name is hidden, temporary or the system's: not looked at."""
    low = name.lower()
    return low.startswith((".", "~$")) or low.endswith(_TEMPORARY) or low in _SYSTEM


def _file_or_folder(
    entry: os.DirEntry[str], path: str, walked: Walked, folders: deque[str], links: deque[str]
) -> None:
    """Add one entry to the files, folders, links or rejects; skip pipes, sockets and devices."""
    try:
        if entry.is_dir():
            (links if entry.is_symlink() else folders).append(f"{path}/")
            return
        status = entry.stat()
    except FileNotFoundError:
        if entry.is_symlink():  # otherwise it was deleted meanwhile
            reason = "The link leads nowhere; fetch the file it stands for."
            walked.rejects.append(Reject(path, "broken-link", reason))
        return
    except OSError as error:  # a link to itself, an entry of a broken file system
        reason = f"The file could not be looked at ({error.strerror})."
        walked.rejects.append(Reject(path, "unreadable", reason))
        return
    if stat.S_ISREG(status.st_mode):
        walked.files.append(FileStat(path, status.st_size, status.st_mtime_ns))
