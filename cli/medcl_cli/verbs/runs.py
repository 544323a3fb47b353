"""medcl runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medcl_cli import show


def runs(
    folder: Annotated[Path, typer.Argument(help="The folder to search.")] = Path(),
    json: show.Json = False,
) -> None:
    """List the runs and studies below a folder, each with its main figure and interval.

    Several on one page: medcl report RUN OTHER --out both.html. Example: medcl runs experiments
    """
    from medcl.errors import UsageError
    from medcl.report.overview import overview

    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder.")
    rows = overview(folder)
    if json:
        show.as_json([row.as_dict() for row in rows])
        return
    if not rows:
        typer.echo(f"No run or study in {folder}. Make one: medcl pretrain")
        return
    columns = list(rows[0].as_dict())
    cells = [["" if v is None else v for v in row.as_dict().values()] for row in rows]
    show.table(f"Runs and studies in {folder}", columns, cells)
