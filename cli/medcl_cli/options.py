"""The grammar of the verbs: options that mean the same wherever they stand.

    medcl VERB [what does the work] --data [what it works on] --out [where the result goes]

What does the work is a recipe, a run, a study or an encoder. ``--workers`` are the processes that
read and prepare data, ``--parallel`` the trainings or bags that run at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from medcl_cli import show

ALL_CORES = "all cores"
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", help="Override one setting of the recipe: section.key=value."),
]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, or auto.")]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers", min=1, help="Processes that read and prepare.", show_default=ALL_CORES
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be read and written, and stop.")
]


def dry(reads: Mapping[str, object], out: Path | None, *, json: bool) -> None:
    """Print what a verb would read and write. The verb has checked its recipe and folders before.

    Args:
        reads: name → recipe, folder or file; None and empty ones are left out.
        out: the folder or file of the result; None for the terminal.
        json: print JSON.
    """
    state = "nothing: the result is printed"
    if out is not None:
        state = f"{out} ({'exists: resumed or refused' if out.exists() else 'new'})"
    rows = {name: str(value) for name, value in reads.items() if value not in (None, "", (), [])}
    rows = {**{f"reads {name}": value for name, value in rows.items()}, "writes": state}
    if json:
        show.as_json({"dry_run": True, **rows})
    else:
        show.facts("Dry run: nothing was written", rows)


def old(spelling: str, new: str) -> None:
    """Say that an old spelling still works, and what it is called now."""
    typer.echo(f"medcl: {spelling} is the old spelling, which still works: {new}", err=True)


def index(argument: Path | None, option: Path | None) -> Path:
    """The index of a verb that takes it as ``--data``, or as its first argument as before.

    Raises:
        UsageError: if neither is given.
    """
    from medcl.errors import UsageError

    if option is None and argument is None:
        raise UsageError("Give the index: --data IDX.")
    return option or argument or Path()
