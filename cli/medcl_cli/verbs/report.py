"""medcl report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medcl_cli import options, show


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(help="A run, or a folder of medcl finetune; several side by side."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="The HTML file; RUN/report.html by default, of several ./report.html.",
        ),
    ] = None,
    probe: Annotated[
        Path | None, typer.Option(help="Another probe's folder, such as that of all folds.")
    ] = None,
    private: Annotated[
        bool,
        typer.Option(
            "--private", help="Of a study: name sites; STUDY/private/report.html by default."
        ),
    ] = False,
    data: show.Data = None,
    archive: show.Archive = None,
    dry_run: options.DryRun = False,
    json: show.Json = False,
) -> None:
    """Write one self-contained HTML page about a run, a training with labels, or several.

    Examples: medcl report run · medcl report study other --out both.html
    """
    from medcl.errors import UsageError

    run = runs[0]
    if private and (len(runs) > 1 or not (run / "finetune.json").is_file()):
        raise UsageError("--private is for the report of one study (medcl finetune).")
    if dry_run:
        page = Path("report.html") if len(runs) > 1 else run / "report.html"
        options.dry({"runs": ", ".join(map(str, runs))}, out or page, json=json)
        return
    if len(runs) > 1:
        from medcl.report import comparison_page

        path = comparison_page.write(runs, out or Path("report.html"))
    elif (run / "dense.json").is_file():
        from medcl.report import dense_page

        path = dense_page.write(run, out or run / "report.html")
    elif (run / "finetune.json").is_file():
        from medcl.report import study_page

        usual = run / "private" / "report.html" if private else run / "report.html"
        path = study_page.write(run, out or usual, private=private)
    else:
        from medcl.report.report import write
        from medcl.run import Run

        path = write(Run.open(run), out or run / "report.html", probe=probe)
    if json:
        show.as_json({"report": path})
    else:
        typer.echo(f"Report: {path}")
