"""medcl recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medcl_cli import show


def recipes(
    name: Annotated[
        str | None,
        typer.Argument(help="A recipe to show; or a word, such as ct or simclr, to list by."),
    ] = None,
    copy: Annotated[
        Path | None, typer.Option(help="Write its annotated YAML here, to edit.")
    ] = None,
    full: Annotated[
        bool,
        typer.Option(help="Show it with all defaults and the description of each setting."),
    ] = False,
    json: show.Json = False,
) -> None:
    """List the recipes, show one, or copy one out to edit.

    Examples: medcl recipes · medcl recipes ct · medcl recipes biosignals/demo ·
    medcl recipes biosignals/demo --copy mine.yaml
    """
    from medcl import recipe as library
    from medcl.errors import UsageError
    from medcl.io.atomic import write_text

    described = library.describe()
    word = "" if name is None else name.lower()
    of_plugin = [key for key in described if key.startswith(f"{word}/")]
    alike = of_plugin or [key for key in described if word in key.lower()]
    exact = [key for key in described if name in (key, key.split("/")[-1])]
    listing = name is None or (alike and not exact and not Path(name).is_file())
    if name is None or listing:
        if copy is not None:
            raise UsageError("Say which recipe to copy: medcl recipes NAME --copy FILE.")
        listed = [
            {"name": key, "about": described[key].about, "paper": described[key].paper}
            for key in alike
        ]
        if json:
            show.as_json(listed)
        else:
            show.table("Recipes", ("name", "about", "paper"), [tuple(r.values()) for r in listed])
        return
    text = library.text(library.find(name))
    if copy is not None:
        if copy.exists():
            raise UsageError(f"{copy} exists already; choose another name.")
        if copy.parent.is_file():
            raise UsageError(f"{copy.parent} is not a folder; choose another path.")
        write_text(copy, text)
        typer.echo(f"Wrote {copy}. Run it with: medcl pretrain {copy} --data IDX --out RUN")
    elif json:
        show.as_json(library.load(name).model_dump(mode="json"))
    else:
        typer.echo(library.annotated(library.load(name)) if full else text, nl=False)
