"""medcl plugins: list them, check one, begin one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medcl_cli import show

app = typer.Typer(invoke_without_command=True)


@app.callback()
def plugins(context: typer.Context, json: show.Json = False) -> None:
    """List the installed modalities, and say why one cannot be used.

    ``plugins check`` runs the contract of one, ``plugins new`` begins one.
    Example: medcl plugins
    """
    if context.invoked_subcommand is not None:
        return
    from medcl.plugin import Plugin, discover

    rows = [
        {
            "name": name,
            "status": "ok",
            "about": found.summary,
            "encoders": sorted(found.encoders),
            "tasks": sorted(found.tasks),
        }
        if isinstance(found, Plugin)
        else {"name": name, "status": "broken", "about": found.reason, "encoders": [], "tasks": []}
        for name, found in discover().items()
    ]
    if json:
        show.as_json(rows)
        return
    columns = ("name", "status", "about", "encoders", "tasks")
    cells = [[r[c] if isinstance(r[c], str) else ", ".join(r[c]) for c in columns] for r in rows]
    show.table("Plugins", columns, cells)


@app.command()
def check(
    name: Annotated[str, typer.Argument(help="An installed plugin.")],
    archive: Annotated[
        Path | None, typer.Option(help="A small folder of its files, in place of its sample.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option("--recipe", "-r", help="Whose settings to take.")
    ] = None,
    items: Annotated[int, typer.Option(min=1, help="How many items to prepare.")] = 3,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Name what is right, too.")
    ] = False,
    json: show.Json = False,
) -> None:
    """Run the whole contract of a plugin on three items of its sample.

    Says in one line each what is wrong. Exit code 1 if anything is.
    Example: medcl plugins check biosignals
    """
    from medcl.plugin_check import check as run

    found = run(name, archive=archive, recipe=recipe, items=items)
    if json:
        show.as_json(found.as_dict())
    else:
        for finding in found.findings:
            if verbose or finding.level != "ok":
                typer.echo(f"{finding.level:>5}  {finding}")
        right = sum(finding.level == "ok" for finding in found.findings)
        how = f"on {found.items} items" + (f" with {found.recipe}" if found.recipe else "")
        typer.echo(f"{name}: {right} checks hold and {len(found.wrong)} do not, {how}.")
    if found.wrong:
        raise typer.Exit(1)


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Of the plugin: lower-case, such as 'thermo'.")],
    out: Annotated[
        Path | None, typer.Option(help="The folder to make; medcl-NAME if left out.")
    ] = None,
) -> None:
    """Write a working plugin to begin with: a package that reads CSV signals.

    Example: medcl plugins new thermo
    """
    from medcl.skeleton import new as write

    folder = write(name, out)
    typer.echo(f"Made {folder}. Install it, and check it after every change:")
    typer.echo(f"  pip install -e {folder}")
    typer.echo(f"  medcl plugins check {name}")
