"""medcl plugins: list them, check one, create one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medcl_cli import show

app = typer.Typer(invoke_without_command=True)


@app.callback()
def plugins(context: typer.Context, json: show.Json = False) -> None:
    """List the installed modalities, with the reason if one cannot be used.

    ``plugins check`` tests the contract of one, ``plugins new`` creates one.
    Example: medcl plugins
    """
    if context.invoked_subcommand is not None:
        return
    from medcl.plugin import Plugin, discover

    rows = [
        {
            "name": name,
            "status": "ok",
            "about": plugin.summary,
            "encoders": sorted(plugin.encoders),
            "tasks": sorted(plugin.tasks),
        }
        if isinstance(plugin, Plugin)
        else {"name": name, "status": "broken", "about": plugin.reason, "encoders": [], "tasks": []}
        for name, plugin in discover().items()
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
        Path | None, typer.Option(help="A small folder of its files, instead of its sample.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option("--recipe", "-r", help="Use the settings of this recipe.")
    ] = None,
    items: Annotated[int, typer.Option(min=1, help="Number of items to prepare.")] = 3,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show passed checks too.")
    ] = False,
    json: show.Json = False,
) -> None:
    """Test the whole contract of a plugin on three items of its sample.

    Prints one line for each fault. Exit code 1 if there is any.
    Example: medcl plugins check biosignals
    """
    from medcl.plugin_check import check as run

    checked = run(name, archive=archive, recipe=recipe, items=items)
    if json:
        show.as_json(checked.as_dict())
    else:
        for finding in checked.findings:
            if verbose or finding.level != "ok":
                typer.echo(f"{finding.level:>5}  {finding}")
        right = sum(finding.level == "ok" for finding in checked.findings)
        scope = f"on {checked.items} items" + (f" with {checked.recipe}" if checked.recipe else "")
        typer.echo(f"{name}: {right} checks hold and {len(checked.wrong)} do not, {scope}.")
    if checked.wrong:
        raise typer.Exit(1)


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Of the plugin: lower-case, such as 'thermo'.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The folder to create; medcl-NAME by default."),
    ] = None,
) -> None:
    """Write a working plugin skeleton: a package that reads CSV signals.

    Example: medcl plugins new thermo
    """
    from medcl.skeleton import new as write

    folder = write(name, out)
    typer.echo(f"Made {folder}. Install it, and check it after every change:")
    typer.echo(f"  pip install -e {folder}")
    typer.echo(f"  medcl plugins check {name}")
