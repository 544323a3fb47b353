"""medcl pretrain."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from medcl_cli import next_steps, options, show


def pretrain(
    recipe: Annotated[str, typer.Argument(help="A recipe's name, or a YAML file.")],
    data: Annotated[Path, typer.Option(help="The index: see medcl index.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The run's folder. The same command resumes it.")
    ],
    settings: options.Settings = None,
    device: options.Device = "auto",
    archive: show.Archive = None,
    dry_run: options.DryRun = False,
    json: show.Json = False,
) -> None:
    """Pretrain an encoder without labels, on the training patients alone.

    Example: medcl pretrain biosignals/demo --data idx --out run -s optimizer.lr=1e-3
    """
    import medcl
    from medcl import recipe as recipes
    from medcl.archive.index import Index

    given = list(settings or ())
    if device != "auto":
        given.append(f"trainer.accelerator={'gpu' if device.startswith('cuda') else device}")
    if dry_run:
        items = len(Index.open(data).items)
        steps = recipes.load(recipe, given).trainer.steps
        reads = {"recipe": f"{recipe}, {steps:,} steps", "data": f"{data}, {items:,} items"}
        options.dry(reads, out, json=json)
        return
    run = medcl.pretrain(recipe, data, out, settings=given, command=show.command())
    if json:
        show.as_json({"run": run.path, **run.facts})
        return
    facts = dict(run.facts)
    show.outcomes(facts.pop("outcomes", []))
    if not sys.stderr.isatty():  # on a terminal the engine has shown its summary
        show.facts(f"Pretrained {run.path}", facts)
    typer.echo(f"Next: {next_steps.after_pretrain(run)}")
