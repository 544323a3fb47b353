"""medcl report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medcl_cli import show


def report(
    run: Annotated[
        Path, typer.Argument(help="A run, or a folder of medcl finetune.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="The HTML file; RUN/report.html by default.")
    ] = None,
    probe: Annotated[
        Path | None, typer.Option(help="Another probe's folder: that of all folds, say.")
    ] = None,
    json: show.Json = False,
) -> None:
    """Write one self-contained HTML page about a run, or a training with labels.

    Example: medcl report run
    """
    out = out or run / "report.html"
    if (run / "finetune.json").is_file():
        from medcl.report import finetuned

        path = finetuned.write(run, out)
    else:
        from medcl.report.report import write
        from medcl.run import Run

        path = write(Run.open(run), out, probe=probe)
    if json:
        show.as_json({"report": path})
    else:
        typer.echo(f"Report: {path}")
