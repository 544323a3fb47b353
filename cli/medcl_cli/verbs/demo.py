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
    released: Annotated[
        bool, typer.Option(help="Measure the released encoder too: a minute or two.")
    ] = True,
    settings: Settings = None,
    json: show.Json = False,
) -> None:
    """Run all steps on a small real sample: index, pretrain, embed, probe, report; and a released
    encoder on people whom it has not seen.

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
        released=released,
        command=show.command(),
        quiet=json,
    )
    if json:
        show.as_json(result.as_dict())
        return
    show.table(result.probe.title, *result.probe.table())
    typer.echo(result.probe.verdict())
    typer.echo(f"Report: {result.report.resolve()}")
    if result.board is not None:
        for asked in result.board.problems:
            show.table(f"{asked['name']}: {asked['metric']}", *result.board.table(asked["name"]))
            for sentence in result.board.verdict(asked["name"]):
                typer.echo(sentence)
        typer.echo(f"Page: {(out / 'released' / 'benchmark.html').resolve()}")
