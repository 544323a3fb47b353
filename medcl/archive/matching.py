"""Which row of a clinical table an item may belong to, where no key says so: a person confirms it.

The pairwise judgement of Ji 2024 (arXiv 2412.00324), without its encoder that is trained by
contrast: on synthetic names with typing errors character n-grams as they are found more of the
people than such an encoder (docs/results.md). Nothing is joined by a likeness, as a wrong match
would put one patient's label on another's recording without a sign. `propose` lists each item's
likeliest row; `confirmed` takes what a person has confirmed, and makes a table with keys, which
every verb takes.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medcl import manifest
from medcl.archive import labtable
from medcl.archive.index import Index
from medcl.archive.labtable import LabTable
from medcl.archive.scanning import LABEL
from medcl.errors import UsageError
from medcl.io.cells import safe_frame

PROPOSALS, CONFIRMED = "proposals.csv", "confirmed.csv"
COLUMNS = ("confirmed", "item", "row", "score", "margin", "mutual", "path")
_AT_ONCE = 1024  # items compared with all rows
YES = frozenset({"yes", "y", "true", "1", "x", "ja", "oui"})


def propose(index: Index, table: LabTable) -> pl.DataFrame:
    """Each item with its likeliest row, surest first. Private: it holds paths.

    Args:
        index: of the archive.
        table: of the clinic.

    Returns:
        `COLUMNS`: ``confirmed`` (empty), ``item``, ``row`` (from 1), ``score`` (cosine), ``margin``
        over the second row, ``mutual`` (the item is also the row's likeliest), ``path``.

    Raises:
        UsageError: if the index has no item, or the table no second row.
    """
    items = index.items.sort("id")
    keys = [index.locate(item) for item in items["id"]]
    rows = _of_table(table)
    if not keys or len(rows) < 2:
        raise UsageError("Matching needs an item, and a table of two rows or more.")
    best, score, second, of_row = likeliest(_of_items(items, keys), rows)
    return pl.DataFrame(
        {
            "confirmed": [""] * len(keys),
            "item": items["id"],
            "row": best + 1,
            "score": score.round(4),
            "margin": (score - second).round(4),
            "mutual": of_row[best] == np.arange(len(keys)),
            "path": keys,
        }
    ).sort("margin", "item", descending=[True, False])


def confirmed(index: Index, table: LabTable, proposals: pl.DataFrame) -> pl.DataFrame:
    """The table's rows with the ``key`` of the items that a person confirmed.

    Args:
        index, table: as of `propose`.
        proposals: what it gave, with a word for yes in ``confirmed``.

    Raises:
        UsageError: if nothing is confirmed, an item twice, or for other items or rows.
    """
    if missing := {"confirmed", "item", "row"} - set(proposals.columns):
        raise UsageError(f"These are no proposals of medcl match: no column {sorted(missing)}.")
    word = pl.col("confirmed").cast(pl.String).str.strip_chars().str.to_lowercase()
    yes = proposals.filter(word.is_in(list(YES)))
    if not len(yes):
        raise UsageError("Nothing is confirmed. Write yes in the column 'confirmed'.")
    given = [re.fullmatch(r"\s*(\d+)(?:[.,]0+)?\s*", str(row)) for row in yes["row"]]
    if None in given:
        raise UsageError(
            "A confirmed line names no row of the table: leave its column 'row' as is."
        )
    rows = [int(row[1]) for row in given if row is not None]
    if bad := [r for r in rows if not 1 <= r <= len(table.frame)]:
        raise UsageError(f"The table has no row {bad[0]}: the proposals are of another table.")
    if yes["item"].n_unique() < len(yes):
        raise UsageError("An item is confirmed twice: leave one row of each.")
    strangers = set(yes["item"]) - set(index.items["id"])
    if strangers:
        raise UsageError(f"{len(strangers)} items are not in the index: it was made anew since.")
    keys = [index.locate(item) for item in yes["item"]]
    chosen = table.frame[[row - 1 for row in rows]]
    rest = [name for name in chosen.columns if name not in ("key", table.key)]
    return pl.DataFrame({"key": keys}).hstack(chosen.select(rest))


def write_proposals(index: Index, table: LabTable, out: Path) -> pl.DataFrame:
    """`propose`, and write it beside the row's cells to ``OUT/private/proposals.csv``."""
    found = propose(index, table)
    beside = pl.DataFrame(dict(table.text))[(found["row"] - 1).to_list()]
    taken = set(found.columns)
    beside = beside.rename({n: f"table.{n}" for n in beside.columns if n in taken})
    place = _private(out) / PROPOSALS
    with manifest.replacing(place) as temporary:
        safe_frame(found.hstack(beside)).write_csv(temporary)
    return found


def write_confirmed(index: Index, table: LabTable, proposals: Path, out: Path) -> pl.DataFrame:
    """`confirmed`, and write it to ``OUT/private/confirmed.csv``.

    Raises:
        UsageError: as `confirmed`, or if the proposals cannot be read.
    """
    read = labtable.read(proposals, key="item")
    made = confirmed(index, table, pl.DataFrame(dict(read.text)))
    with manifest.replacing(_private(out) / CONFIRMED) as temporary:
        safe_frame(made).write_csv(temporary)
    return made


def likeliest(
    items: Sequence[str], rows: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """By the cosine of character n-grams, each weighed by how few texts have it.

    Returns:
        each item's likeliest row (I,), their cosine (I,) and that of its second row (I,); and each
        row's likeliest item (R,).
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    grams = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True)
    try:
        grams.fit([*items, *rows])
    except ValueError:  # an empty vocabulary
        raise UsageError("Neither paths nor cells hold letters or digits to match by.") from None
    of_rows = grams.transform(rows).T
    best, score, second = [], [], []
    most, of_row = np.full(len(rows), -1.0, np.float32), np.zeros(len(rows), np.int64)
    for start in range(0, len(items), _AT_ONCE):
        cosine = grams.transform(items[start : start + _AT_ONCE]) @ of_rows
        x = np.asarray(cosine.todense(), np.float32)  # (items at once, R)
        best.append(x.argmax(axis=1))
        score.append(x.max(axis=1))
        second.append(np.partition(x, -2, axis=1)[:, -2])
        closer = x.max(axis=0) > most
        of_row[closer], most[closer] = start + x.argmax(axis=0)[closer], x.max(axis=0)[closer]
    return np.concatenate(best), np.concatenate(score), np.concatenate(second), of_row


def words(text: str) -> str:
    """A text in small letters of any script, without accents and punctuation; numbers apart."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    bare = "".join(letter for letter in decomposed if not unicodedata.combining(letter))
    return " ".join(re.findall(r"[^\W\d_]+|\d+", bare))


def _of_items(items: pl.DataFrame, keys: Sequence[str]) -> list[str]:
    labels = [name for name in items.columns if name.startswith(LABEL)]
    told = items.select(labels).cast(pl.String, strict=False).rows() if labels else [()] * len(keys)
    return [
        words(" ".join([key, *(cell for cell in cells if cell)]))
        for key, cells in zip(keys, told, strict=True)
    ]


def _of_table(table: LabTable) -> list[str]:
    return [
        words(" ".join(cell for cell in cells if cell))
        for cells in zip(*table.text.values(), strict=True)
    ]


def _private(out: Path) -> Path:
    """``OUT/private``, for its owner alone."""
    private = out / "private"
    private.mkdir(parents=True, exist_ok=True)
    private.chmod(0o700)
    return private
