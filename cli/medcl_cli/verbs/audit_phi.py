"""medcl audit-phi."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from medcl_cli import show


def audit_phi(
    out: Annotated[Path, typer.Argument(help="What to search: an index, run, study, table, all.")],
    against: Annotated[Path, typer.Option(help="The archive whose identifying values count.")],
    plugin: Annotated[
        list[str] | None, typer.Option(help="A modality that reads it; all by default.")
    ] = None,
    values: Annotated[
        Path | None, typer.Option(help="A text file of further values, one a line.")
    ] = None,
    json: show.Json = False,
) -> None:
    """Search outputs for names, numbers, dates and identifiers of the recordings they are made of.

    As they are, in UTF-16, hexadecimal, base64, zlib, and as unkeyed hashes. What is found is
    named by file and kind, never shown. Exit code 1 if anything is found.

    Example: medcl audit-phi run --against ARCHIVE
    """
    from medcl import plugin as plugins
    from medcl.audit.phi import search
    from medcl.errors import UsageError

    known = plugins.discover()
    names = plugin or [n for n, found in known.items() if isinstance(found, plugins.Plugin)]
    try:
        given = values.read_text(encoding="utf-8").splitlines() if values is not None else []
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{values} cannot be read as text ({type(error).__name__}).") from None
    found = search(out, against, [plugins.get(name) for name in names], given)
    if json:
        show.as_json(asdict(found))
    else:
        show.table("Searched for", ("kind of value", "values"), list(found.values.items()))
        show.facts(
            f"Searched {out}",
            {
                "files": found.files,
                "files in private folders, not searched": found.private,
                "files too large to be unpacked": found.large,
                "values too short to be searched for": found.short,
                "found": len(found.leaks),
            },
        )
        if found.leaks:
            rows = [(leak.file, leak.kind, leak.how, leak.values) for leak in found.leaks]
            show.table("Found", ("file", "kind of value", "how", "values"), rows)
    if found.leaks:
        raise typer.Exit(1)
