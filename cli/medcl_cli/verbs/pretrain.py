"""medcl pretrain."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from medcl_cli import show

Settings = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", help="Override one setting of the recipe: section.key=value."),
]


def pretrain(
    recipe: Annotated[str, typer.Argument(help="A recipe's name, or a YAML file.")],
    data: Annotated[Path, typer.Option(help="The index: see medcl index.")],
    out: Annotated[Path, typer.Option(help="The run's folder. The same command resumes it.")],
    settings: Settings = None,
    archive: show.Archive = None,
    json: show.Json = False,
) -> None:
    """Pretrain an encoder without labels, on the training patients alone.

    Example: medcl pretrain biosignals/demo --data idx --out run -s optimizer.lr=1e-3
    """
    import medcl

    run = medcl.pretrain(recipe, data, out, settings=settings or (), command=show.command())
    if json:
        show.as_json({"run": run.path, **run.facts})
        return
    facts = dict(run.facts)
    show.outcomes(facts.pop("outcomes", []))
    if not sys.stderr.isatty():  # on a terminal the engine has shown its summary
        show.facts(f"Run {run.path}", facts)
    typer.echo(f"Next: medcl probe {run.path} && medcl report {run.path}")
