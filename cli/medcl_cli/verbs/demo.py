"""medcl demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medcl_cli import options, show


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="The output folder.")] = Path(
        "medcl-demo"
    ),
    plugin: Annotated[str, typer.Option(help="The plugin of the sample.")] = "biosignals",
    archive: Annotated[
        Path | None,
        typer.Option("--data", "--archive", help="Your own archive instead of the sample."),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option("--recipe", "-r", help="The recipe for that archive.")
    ] = None,
    settings: options.Settings = None,
    released: Annotated[
        bool, typer.Option(help="Measure the released encoder too: a minute or two.")
    ] = True,
    dry_run: options.DryRun = False,
    json: show.Json = False,
) -> None:
    """Run all steps on a small real sample: index, pretrain, embed, probe, report; and a released
    encoder on people whom it has not seen.

    About five minutes on two cores. Examples: medcl demo · medcl demo --plugin ct ·
    medcl demo --data FOLDER --recipe ct/organsmnist, where FOLDER holds a benchmark's file
    """
    if dry_run:
        source = archive or f"the sample of {plugin}"
        options.dry({"data": source, "recipe": recipe}, out, json=json)
        return
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
