"""Where recorded folders lie now, after they were moved, renamed or opened on another machine.

In this order: ``$MEDCL_ROOTS`` maps folders (``/old=/new``, several with ``:`` between them; the
longest that fits counts). A folder that is still where it was recorded is taken. Else it is the one
given by ``--archive`` or ``--data`` (``$MEDCL_ARCHIVE``, ``$MEDCL_DATA``; of a study's run
``$MEDCL_RUN``), and else the one at the same place relative to the folder that recorded it: a tree
that moved as a whole needs no option.
"""

from __future__ import annotations

import os
from pathlib import Path

from medcl.errors import UsageError
from medcl.io import storage

ROOTS = "MEDCL_ROOTS"
ARCHIVE, DATA, RUN = "MEDCL_ARCHIVE", "MEDCL_DATA", "MEDCL_RUN"


def moved(path: Path) -> Path:
    """The path with what ``$MEDCL_ROOTS`` says of its folders.

    Raises:
        UsageError: if the variable is no list of ``/old=/new``.
    """
    known = {}
    for pair in filter(None, os.environ.get(ROOTS, "").split(os.pathsep)):
        old, equals, new = pair.partition("=")
        if not (equals and old and new):
            raise UsageError(f"${ROOTS} holds '{pair}': give /old=/new, several with ':' between.")
        known[Path(old)] = Path(new)
    for root in sorted(known, key=lambda folder: -len(folder.parts)):
        if path.is_relative_to(root):
            return known[root] / path.relative_to(root)
    return path


def found(recorded: Path, variable: str, beside: Path | None = None) -> Path:
    """The folder that was recorded as ``recorded``: see the module's docstring.

    Args:
        recorded: its absolute path, as it was.
        variable: `ARCHIVE`, `DATA` or `RUN`.
        beside: where it would lie if it had moved together with the folder that recorded it.
    """
    path = moved(recorded)
    if is_there(path):
        return path
    given = os.environ.get(variable)
    if given:
        return Path(given) if storage.address(given) else Path(given).absolute()
    return beside if beside is not None and is_there(beside) else path


def is_there(folder: Path) -> bool:
    """Whether a folder exists and holds anything: where a disk is not mounted it is empty.

    Of an address of object storage it is known once it is read.
    """
    if storage.address(folder) is not None:
        return True
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is not None
    except OSError:
        return False
