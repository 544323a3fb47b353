"""Printing of results: JSON for programs, tables for users."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medcl.io import roots, storage

if TYPE_CHECKING:
    import polars as pl

    from medcl.plugin import Plugin


def _lies(variable: str) -> Callable[[Path | None], Path | None]:
    def remember(path: Path | None) -> Path | None:
        if path is not None:  # worker processes see it too
            os.environ[variable] = storage.address(path) or str(path.absolute())
        return path

    return remember


lies_data = _lies(roots.DATA)
Archive = Annotated[
    Path | None,
    typer.Option(
        callback=_lies(roots.ARCHIVE),
        help="The recordings' folder, if it is not where it was when indexed.",
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(callback=lies_data, help="Its index, if it is not where it was in training."),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else.")]


Rejects = Annotated[
    Path | None,
    typer.Option("--rejects", help="List every reject with its reason in this CSV or Parquet."),
]


def rejects(rows: pl.DataFrame, path: Path) -> None:
    """Write rejects to a table; its suffix says of which kind.

    Raises:
        UsageError: if it says neither.
    """
    from medcl.errors import UsageError
    from medcl.io.atomic import replacing
    from medcl.io.cells import safe_frame

    if path.suffix not in (".csv", ".parquet"):
        raise UsageError(f"--rejects {path}: give the file the suffix .csv or .parquet.")
    with replacing(path) as temporary:
        if path.suffix == ".parquet":
            rows.write_parquet(temporary)
        else:
            safe_frame(rows).write_csv(temporary)


def as_json(value: object) -> None:
    """One JSON document on standard output."""
    typer.echo(json.dumps(value, indent=2, default=str, ensure_ascii=False))


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table: drawn on a terminal, tab-separated if the output is piped."""
    if not sys.stdout.isatty():
        for row in [columns, *rows]:
            typer.echo("\t".join(str(cell) for cell in row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(*columns, title=title, title_justify="left", header_style="bold")
    for row in rows:
        drawn.add_row(*(Text(str(cell)) for cell in row))  # Text: data may hold [markup]
    Console().print(drawn)


def facts(title: str, values: Mapping[str, object]) -> None:
    """A few named values, one per line; what is empty is left out."""
    rows = [(name, _told(value)) for name, value in values.items() if value not in (None, [], {})]
    table(title, ("what", "value"), rows)


def _told(value: object) -> object:
    """A value in words: yes and no, and the entries of a mapping."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {entry}" for name, entry in value.items())
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value


def outcomes(rows: Sequence[Mapping[str, object]]) -> None:
    """What became of an archive; see `medcl.archive.outcomes`."""
    if rows:
        names = ("done", "name", "count", "about")
        cells = [[row[name] for name in names] for row in rows]
        table("What became of the archive", ("done", "what", "count", "about"), cells)


def findings(items: str, counted: Mapping[str, int], plugin: Plugin) -> None:
    """What was noticed, in words, and what is done about each unless a recipe says otherwise.

    Args:
        items: what is counted, in the plural.
        counted: finding → how many.
        plugin: of the items.
    """
    from medcl.archive import outcomes

    if counted:
        noticed = outcomes.noticed(dict(sorted(counted.items())), plugin, {})
        rows = [(row.name, row.count, row.done, row.about) for row in noticed]
        table("Noticed", ("finding", items, "done", "it …"), rows)


def indexed(path: Path, *, err: bool) -> None:
    """What an index holds, in one line."""
    from medcl import plugin as plugins
    from medcl.archive.index import Index

    index = Index.open(path)
    items = f"{len(index.items):,} {plugins.get(index.plugin_name).item}s"
    typer.echo(f"Index {path}: {items}, {len(index.rejects):,} rejected.", err=err)


def command() -> str:
    """The command line as it was typed, for a run's record."""
    return shlex.join(["medcl", *sys.argv[1:]])
