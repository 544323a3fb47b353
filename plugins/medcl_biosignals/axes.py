"""What pictures of signals say of their axes: channels by name, units, seconds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from medcl.plugin import Arrays, Axes

_SCALED = {"window": "SD", "robust": "robust SD", "record": "SD of recording"}
"""Unit of windows by `dataset.scale`: each channel divided by a deviation of its own."""


def names(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Of each channel: its own, where known, else its kind and number."""
    kinds = _kinds(arrays)
    held = arrays.get("channels")
    own = ["" for _ in kinds] if held is None else [bytes(n).decode() for n in np.asarray(held)]
    return [
        name or f"{kind or 'channel'} {n + 1}"
        for n, (name, kind) in enumerate(zip(own, kinds, strict=True))
    ]


def units(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Of each channel's stored values, "a.u." where that is not known."""
    return [bytes(unit).decode() or "a.u." for unit in np.asarray(arrays["units"])]


def axes(
    position: int, *, arrays: Arrays, items: tuple[str, ...], item: np.ndarray, scale: str
) -> Axes:
    """Those of the window at ``position``; a channel that its recording lacks is "absent"."""
    record = arrays(items[int(item[position])])
    present = np.asarray(record["present"])
    labels = [
        name if here else f"absent {n + 1}"
        for n, (name, here) in enumerate(zip(names(record), present, strict=True))
    ]
    unit = units(record) if scale == "none" else [_SCALED[scale]] * len(labels)
    return Axes(tuple(labels), tuple(unit), float(record["fs"][0]))


def _kinds(arrays: Mapping[str, np.ndarray]) -> list[str]:
    return [bytes(kind).decode() for kind in np.asarray(arrays["kinds"])]
