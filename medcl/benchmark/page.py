"""The scoreboard as one self-contained HTML page."""

from __future__ import annotations

import time
from pathlib import Path

from medcl import version
from medcl.benchmark.scoreboard import Scoreboard
from medcl.io.atomic import write_text
from medcl.report.report import environment


def write(found: Scoreboard, out: Path) -> Path:
    """Write the page.

    Args:
        found: the scoreboard.
        out: the file.
    """
    page = (
        environment()
        .get_template("benchmark.html.j2")
        .render(
            found=found,
            tables=[
                (p, found.table(p["name"]), found.ranked(p), found.gains(p["name"]))
                for p in found.problems
            ],
            version=version.__version__,
            written=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        )
    )
    write_text(out, page)
    return out
