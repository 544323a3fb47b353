"""Splits with a column for each part, as CLAM writes them: one row an item, with its part.

``splits_0.csv`` lists the items of each part below its name; ``splits_0_bool.csv`` has a row for
each item, and a flag under its part.
"""

from __future__ import annotations

import polars as pl

PARTS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
KEY, SPLIT = "key", "split"
_FLAGS = {"true": True, "1": True, "false": False, "0": False, "1.0": True, "0.0": False}


def long(frame: pl.DataFrame, text: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """A table, parsed and as text, with columns ``key`` and ``split`` if it has one for each part.

    Any other table stays as it is.
    """
    parts = {name: PARTS[low] for name in text.columns if (low := name.strip().lower()) in PARTS}
    rest = [name for name in text.columns if name not in parts]
    named = set(parts.values())
    if not {"train", "test"} <= named or len(named) < len(parts) or SPLIT in text.columns:
        return frame, text
    if rest:
        flags = [[_FLAGS.get((v or "").strip().lower()) for v in text[name]] for name in parts]
        rows = list(zip(*flags, strict=True))
        if any(None in row or sum(map(bool, row)) > 1 for row in rows):
            return frame, text
        of_row = [next((p for p, yes in zip(parts.values(), r, strict=True) if yes), None)
                  for r in rows]  # fmt: skip
        split = pl.Series(SPLIT, of_row, dtype=pl.String)
        return tuple(t.select(rest).with_columns(split) for t in (frame, text))  # type: ignore[return-value]
    held = [(v.strip(), part) for name, part in parts.items() for v in text[name]
            if v is not None and v.strip()]  # fmt: skip
    made = pl.DataFrame(held, schema=[KEY, SPLIT], orient="row")
    return made, made
