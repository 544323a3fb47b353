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

    augmentations = listed(get(plugin))
    if name is not None:
        if name not in augmentations:
            raise UsageError(f"Unknown augmentation '{name}'. {did_you_mean(name, augmentations)}")
        augmentations = {name: augmentations[name]}
    rows = [{"name": key, **vars(entry)} for key, entry in augmentations.items()]
    if json:
        show.as_json(rows)
        return
    settings = {
        key: [f"{s}={entry.defaults[s]!r}: {text}" for s, text in entry.settings.items()]
        for key, entry in augmentations.items()
    }
    show.table(
        f"Augmentations of {plugin}",
        ("name", "about", "settings"),
        [
            (key, entry.about, " · ".join(settings[key]) or "–")
            for key, entry in augmentations.items()
        ],
    )
    if name is None:
        typer.echo(
            "In a recipe: views: {steps: [{name: NAME, p: PROBABILITY, …}, …]}, in any order, "
            "with module:function of an installed package between them."
        )
