"""Which recipe to begin with, by what most items of an index are."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl


def suggest(items: pl.DataFrame, gpu: bool) -> str:
    """Of bags of features a classifier by attention; of tiles with known tissue, their recipe."""
    kinds = items["kind"].value_counts(sort=True)["kind"].to_list()
    if kinds[0] == "bag":
        return "pathology/abmil"
    channels = items["channels"].drop_nulls() if "channels" in items.columns else items["id"][:0]
    if len(channels):
        return "pathology/simclr-multiplex"
    if not gpu:
        return "pathology/demo"
    known = "label.tissue" in items.columns and items["label.tissue"].drop_nulls().len() > 0
    return "pathology/kather-tiles" if kinds[0] == "tile" and known else "pathology/simclr-tiles"
