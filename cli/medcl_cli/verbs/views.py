"""medcl views."""

from __future__ import annotations

from typing import Annotated

import typer

from medcl_cli import show


def views(
    plugin: Annotated[str, typer.Argument(help="A modality; see medcl plugins.")],
    name: Annotated[str | None, typer.Argument(help="An augmentation to show.")] = None,
    json: show.Json = False,
) -> None:
    """List the augmentations that a recipe may put in its own order (views.steps).

    Examples: medcl views biosignals · medcl views ct elastic
    """
    from medcl.augmentations import listed
    from medcl.errors import UsageError
    from medcl.plugin import get
    from medcl.registry import did_you_mean

    known = listed(get(plugin))
    if name is not None:
        if name not in known:
            raise UsageError(f"Unknown augmentation '{name}'. {did_you_mean(name, known)}")
        known = {name: known[name]}
    rows = [{"name": key, **vars(found)} for key, found in known.items()]
    if json:
        show.as_json(rows)
        return
    settings = {
        key: [f"{s}={found.defaults[s]!r}: {text}" for s, text in found.settings.items()]
        for key, found in known.items()
    }
    show.table(
        f"Augmentations of {plugin}",
        ("name", "about", "settings"),
        [(key, found.about, " · ".join(settings[key]) or "–") for key, found in known.items()],
    )
    if name is None:
        typer.echo(
            "In a recipe: views: {steps: [{name: NAME, p: PROBABILITY, …}, …]}, in any order, "
            "with module:function of an installed package between them."
        )
