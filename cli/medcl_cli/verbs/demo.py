"""medcl demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medcl_cli import show
from medcl_cli.verbs.pretrain import Settings


def demo(
    out: Annotated[Path, typer.Option(help="The output folder.")] = Path("medcl-demo"),
    plugin: Annotated[str, typer.Option(help="The plugin of the sample.")] = "biosignals",
    archive: Annotated[
        Path | None, typer.Option(help="Your own archive instead of the sample.")
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="The recipe for that archive.")] = None,
    settings: Settings = None,
    json: show.Json = False,
) -> None:
    """Run all steps on a small real sample: index, pretrain, embed, probe, report.

    About five minutes on two cores. Examples: medcl demo · medcl demo --plugin ct · medcl demo
    --archive FOLDER --recipe ct/organsmnist, where FOLDER holds a benchmark's file
    """
    from medcl.demo import demo as run_demo

    result = run_demo(
        plugin,
        out,
        settings or (),
        archive=archive,
        recipe_name=recipe,
        command=show.command(),
        quiet=json,
    )
    if json:
        show.as_json(result.as_dict())
        return
    show.table(result.probe.title, *result.probe.table())
    typer.echo(result.probe.verdict())
    typer.echo(f"Report: {result.report.resolve()}")
