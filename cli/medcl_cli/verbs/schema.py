"""medcl schema."""

from __future__ import annotations

from typing import Annotated

import typer

from medcl_cli import show


def schema(
    name: Annotated[
        str | None, typer.Argument(help="recipe, or a verb such as probe; none: list all.")
    ] = None,
    json: show.Json = False,
) -> None:
    """Print the JSON schema of recipes, or of what a verb prints with --json.

    Examples: medcl schema · medcl schema recipe > recipe.schema.json · medcl schema finetune
    """
    from medcl.schema import names
    from medcl.schema import schema as of

    if name is not None:
        show.as_json(of(name))
    elif json:
        show.as_json(names())
    else:
        show.table("JSON schemas", ("name",), [(known,) for known in names()])
