"""JSON from strangers: within a limit, and with one clear error for what cannot be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from medcl_biosignals.readers.contract import BadSignal

_MOST_BYTES = 512 << 20


def loaded(path: Path) -> Any:
    """What a file holds; of JSON Lines, the list of its lines.

    Raises:
        BadSignal: if it is too large, or no JSON.
    """
    if path.stat().st_size > _MOST_BYTES:
        raise BadSignal("too-large", f"a JSON file of over {_MOST_BYTES >> 20} MB is not read")
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    except (ValueError, RecursionError):
        raise BadSignal("bad-signal", "the JSON is cut off or damaged") from None


def number(value: object) -> float:
    """A number of JSON, or text that is one; NaN for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return float("nan")
    try:
        return float(value)
    except (ValueError, OverflowError):
        return float("nan")
