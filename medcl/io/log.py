"""What medcl says on standard error while it works: lines for people, or JSON for machines.

``medcl --log-format json`` (or ``$MEDCL_LOG_FORMAT``) makes every line one JSON object::

    {"time": "2026-01-01T00:00:00Z", "event": "progress", "message": "…", "label": "Indexing", …}

``event`` is "warning", "error", "stopped" or "progress". No line holds a path of a recording or a
patient's identifier. Where ``$MEDCL_METRICS`` names a file, it holds the newest progress of each
label as Prometheus's text format has it, for the textfile collector of its node exporter.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Literal

from medcl.io.atomic import write_text

FORMAT, METRICS = "MEDCL_LOG_FORMAT", "MEDCL_METRICS"
Event = Literal["warning", "error", "stopped", "progress"]
_gauges: dict[tuple[str, str], float] = {}


def as_json() -> bool:
    """Whether lines are JSON."""
    return os.environ.get(FORMAT) == "json"


def say(event: Event, message: str, **facts: str | float | None) -> None:
    """Write one line.

    Args:
        event: its kind.
        message: a sentence for people.
        facts: the same for machines.
    """
    if as_json():
        line = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "event": event}
        print(json.dumps({**line, "message": message, **facts}), file=sys.stderr, flush=True)
    else:
        print(f"medcl: {message}", file=sys.stderr, flush=True)
    path = os.environ.get(METRICS)
    if event == "progress" and path:
        _export(Path(path), facts)


def _export(path: Path, facts: dict[str, str | float | None]) -> None:
    label = str(facts.get("label", ""))
    for name in ("done", "total", "rate"):
        value = facts.get(name)
        if isinstance(value, int | float):
            _gauges[name, label] = value
    lines = []
    for name, about in (
        ("done", "Items done."),
        ("total", "Items in all."),
        ("rate", "Items per second."),
    ):
        lines += [f"# HELP medcl_progress_{name} {about}", f"# TYPE medcl_progress_{name} gauge"]
        lines += [
            f'medcl_progress_{name}{{label="{label}"}} {value:g}'
            for (gauge, label), value in _gauges.items()
            if gauge == name
        ]
    write_text(path, "\n".join(lines) + "\n")
