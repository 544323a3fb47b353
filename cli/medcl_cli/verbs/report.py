"""medcl report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medcl_cli import show


def report(
    run: Annotated[Path, typer.Argument(help="A run; probe it first for the comparison.")],
    out: Annotated[
        Path | None, typer.Option(help="The HTML file; RUN/report.html by default.")
    ] = None,
    probe: Annotated[
        Path | None, typer.Option(help="Another probe's folder: that of all folds, say.")
    ] = None,
    json: show.Json = False,
) -> None:
    """Write one self-contained HTML page about a run.

    Example: medcl report run
    """
    from medcl.report.report import write
    from medcl.run import Run

    path = write(Run.open(run), out or run / "report.html", probe=probe)
    if json:
        show.as_json({"report": path})
    else:
        typer.echo(f"Report: {path}")
