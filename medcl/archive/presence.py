"""Whether an archive is where it was: not mounted at all, or away in parts.

Neither is a change of the archive: nothing is to be indexed again. As a whole it stops the verb. A
part of it is left out and counted as ``away``; above `limit` it stops the verb too.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import polars as pl

from medcl.errors import MedclError, UsageError
from medcl.io import roots, storage
from medcl.plugin import MEMBER, FileStat, file_of
from medcl.reading import read_table
from medcl.strings import storable

LIMIT = 0.1
VARIABLE = "MEDCL_AWAY"
_FEW = 5
"""So many items may be away of however small an archive."""


def limit() -> float:
    """The share of an archive that may be away: ``$MEDCL_AWAY``, or `LIMIT`.

    Raises:
        UsageError: if the variable is no number from 0 to 1.
    """
    text = os.environ.get(VARIABLE, str(LIMIT))
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise UsageError(f"${VARIABLE} is '{text}': give a share from 0 to 1.")
    return share


def away(
    archive: Path, index: Path, wanted: Mapping[str, tuple[FileStat, ...]], of: int
) -> dict[str, str]:
    """The wanted items of which a file is not in the archive now, each with the reason.

    Args:
        archive: the folder.
        index: of it, for the message.
        wanted: item → its files.
        of: how many items the index holds.

    Raises:
        MedclError: if the archive is not there as a whole, or a larger share than `limit`.
    """
    if storage.address(archive) is not None:  # what is missing there is said when it is read
        return {}
    if not roots.is_there(archive):
        raise MedclError(gone(archive, index))
    lacking = [
        item
        for item, files in wanted.items()
        if not all(os.path.exists(archive / name) for name in {file_of(f.path) for f in files})
    ]
    share = len(lacking) / max(of, 1)
    _check(share, len(lacking), f"of the items of {index}", archive)
    reason = (
        f"Its files are not in the archive now, as those of {share:.1%} of all items: mount or "
        "restore them and run this again; of files removed on purpose, make the index anew."
    )
    return dict.fromkeys(lacking, reason)


def check_index(archive: Path, index: Path) -> None:
    """Before an archive is indexed again: whether it is there at all.

    Raises:
        MedclError: if it is not there, and the index knows that it was.
    """
    if (index / "index.json").is_file() and not roots.is_there(archive):
        raise MedclError(gone(archive, index))


def check_walked(index: Path, files: Iterable[FileStat]) -> str | None:
    """Before an index is made anew: whether the files that it knows are still there.

    Returns:
        a sentence on those that are not, in the index no more from now on.

    Raises:
        MedclError: if it is a larger share than `limit`.
    """
    table = index / "private" / "paths.parquet"
    if not (index / "index.json").is_file() or not table.is_file():
        return None
    paths = read_table(table, "Remove index.json and run the same medcl index again.")
    names = paths["files"].explode().drop_nulls().str.splitn(MEMBER, 2).struct.field("field_0")
    known = names.unique()
    there = pl.Series([storable(file.path) for file in files], dtype=pl.String)
    gone_now = int((~known.is_in(there.implode())).sum())
    share = gone_now / max(len(known), 1)
    _check(share, gone_now, f"of the files that {index} knows", None)
    return None if not gone_now else f"{gone_now:,} files ({share:.1%}) are no more in the archive."


def gone(archive: Path, index: Path) -> str:
    """The sentence on an archive that is not there."""
    how = "is empty" if archive.is_dir() else "is not there"
    return (
        f"The archive of {index} {how}: {archive}. Mount it, or say where it lies now "
        f"(--archive DIR, or ${roots.ROOTS}=old=new). The index is as it was."
    )


def _check(share: float, count: int, of: str, archive: Path | None) -> None:
    if count > _FEW and share > limit():
        where = f"in {archive} " if archive else "in the archive "
        raise MedclError(
            f"{count:,} ({share:.1%}) {of} are not {where}now: is all of it mounted? If they were "
            f"removed on purpose: {VARIABLE}={min(1.0, share + 0.01):.2f}, the share that may be "
            "away."
        )
