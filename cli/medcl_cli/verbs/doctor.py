"""medcl doctor."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from medcl_cli import show


def doctor(
    licences: Annotated[
        bool,
        typer.Option("--licences", help="List what is installed, with licences; GPL parts last."),
    ] = False,
    json: show.Json = False,
) -> None:
    """Print versions, devices and backends, with advice for those that do not work.

    Exit code 1 if something that medcl needs is broken. With --licences --json: a bill of materials
    (CycloneDX). Examples: medcl doctor · medcl doctor --licences
    """
    if licences:
        _licences(json)
        return
    from medcl.doctor import examine

    checks = examine()
    if json:
        show.as_json([asdict(check) for check in checks])
    else:
        rows = [(c.name, c.status, c.detail, c.advice) for c in checks]
        show.table("medcl doctor", ("what", "status", "found", "what to do"), rows)
    if any(check.status == "broken" for check in checks):
        raise typer.Exit(1)


def _licences(json: bool) -> None:
    from medcl.licences import cyclonedx, installed

    parts = installed()
    if json:
        show.as_json(cyclonedx(parts))
        return
    order = ("permissive", "unknown", "weak copyleft", "copyleft")
    rows = [
        (p.name, p.version, p.licence, p.terms, f"medcl[{p.extra}]" if p.extra else "medcl")
        for p in sorted(parts, key=lambda part: order.index(part.terms))
    ]
    show.table("What is installed", ("part", "version", "licence", "terms", "comes with"), rows)
    gpl = [f"{p.name} (medcl[{p.extra}])" for p in parts if p.terms == "copyleft"]
    typer.echo(
        f"Under the GPL or AGPL: {', '.join(gpl)}." if gpl else "Nothing is under the GPL or AGPL."
    )
    if other := [p.name for p in parts if p.terms == "unknown"]:
        typer.echo(f"Their metadata name no licence that is known here: {', '.join(other)}.")
