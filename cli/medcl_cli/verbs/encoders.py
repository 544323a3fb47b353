"""medcl encoders."""

from __future__ import annotations

from typing import Annotated

import typer

from medcl.errors import UsageError
from medcl.registry import did_you_mean
from medcl_cli import show


def encoders(
    name: Annotated[str | None, typer.Argument(help="One whose card to show.")] = None,
    json: show.Json = False,
) -> None:
    """List the released encoders, or show the card of one: data, licence, figures, limits.

    Examples: medcl encoders · medcl encoders ecg-small
    """
    import medcl
    from medcl.released import folders

    cards = {card.name: card for card in medcl.encoders()}
    if name is not None:
        if name not in cards:
            raise UsageError(f"No released encoder '{name}'. {did_you_mean(name, cards)}")
        if json:
            show.as_json(cards[name].as_dict())
        else:
            typer.echo((folders()[name] / "README.md").read_text(encoding="utf-8"), nl=False)
        return
    if json:
        show.as_json([card.as_dict() for card in cards.values()])
        return
    rows = [
        (
            card.name,
            card.plugin,
            f"{card.parameters:,} weights, {card.bytes / 1e6:.1f} MB",
            card.licence,
            "; ".join(f"{of['name']} ({of['licence']})" for of in card.data),
            _figure(card.figures, card.name),
        )
        for card in cards.values()
    ]
    show.table("Encoders", ("name", "plugin", "size", "licence", "data", "measured"), rows)


def _figure(figures: list[dict[str, object]], name: str) -> str:
    """The first figure of the encoder itself."""
    mine = [f for f in figures if str(f["row"]).startswith(name)]
    first = mine[0] if mine else None
    return f"{first['benchmark']} {first['problem']}: {first['value']:.3f}" if first else "-"
