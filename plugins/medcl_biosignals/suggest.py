"""Which recipe to begin with, by the kinds of channels in an index."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl


def suggest(items: pl.DataFrame, gpu: bool) -> str:
    """The recipe for most recordings: of annotated beats, ECG (several leads, one), PPG, both."""
    kinds = [set(str(text).split(",")) for text in items["kinds"].drop_nulls()]
    ecg = sum("ECG" in kind for kind in kinds)
    ppg = sum("PPG" in kind for kind in kinds)
    both = sum({"ECG", "PPG"} <= kind for kind in kinds)
    if 2 * both > ecg + ppg - both:  # most of those that have either
        return "biosignals/cross-modal"
    if ecg >= ppg and ecg:
        beats = [name for name in items.columns if name.startswith("label.beats_")]
        marked = items.select(beats).sum_horizontal().fill_null(0) > 0 if beats else None
        if marked is not None and 2 * int(marked.sum()) > items.height:
            return "biosignals/mitbih"
        several = sum(str(text).split(",").count("ECG") > 1 for text in items["kinds"].drop_nulls())
        return "biosignals/ecg-small" if 2 * several >= ecg else "biosignals/ecg-handheld"
    if not ppg:
        return "biosignals/lsm2"
    return "biosignals/wearable-ppg" if gpu else "biosignals/ppg-demo"
