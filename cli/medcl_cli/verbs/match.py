"""medcl match."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medcl_cli import options, show


def match(
    table: Annotated[Path, typer.Option(help="The clinical table.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder of the proposals.")],
    index: Annotated[
        Path | None, typer.Argument(metavar="[IDX]", help="The index: or as --data.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="The index.")] = None,
    confirmed: Annotated[
        Path | None,
        typer.Option(help="Proposals with yes in the column 'confirmed': write the table of them."),
    ] = None,
    archive: show.Archive = None,
    json: show.Json = False,
) -> None:
    """Propose which row of a table each item belongs to, where no key says so.

    By the likeness of the row's cells with the item's path and labels. Nothing is joined: confirm
    the proposals in OUT/private/proposals.csv, and run it again with --confirmed.

    Example: medcl match --data idx --table clinic.csv --out matched
    """
    from medcl.archive import labtable, matching
    from medcl.archive.index import Index

    opened = Index.open(options.index(index, data))
    of_clinic = labtable.read(table)
    if confirmed is not None:
        made = matching.write_confirmed(opened, of_clinic, confirmed, out)
        if json:
            show.as_json({"items": len(made)})
            return
        place = out / "private" / matching.CONFIRMED
        typer.echo(f"{len(made):,} items with the row that was confirmed: {place}")
        typer.echo(
            f"Next: medcl index ARCHIVE --table {place} …, or medcl finetune … --labels {place}"
        )
        return
    proposals = matching.write_proposals(opened, of_clinic, out)
    mutual = int(proposals["mutual"].sum())
    if json:
        show.as_json({"items": len(proposals), "rows": len(of_clinic.frame), "mutual": mutual})
        return
    place = out / "private" / matching.PROPOSALS
    typer.echo(
        f"{len(proposals):,} items, {len(of_clinic.frame):,} rows; {mutual:,} items and their row "
        "are each other's likeliest. Nothing is joined."
    )
    typer.echo(f"Write yes under 'confirmed' where it is right, surest first: {place}")
