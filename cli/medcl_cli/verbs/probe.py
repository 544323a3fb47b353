"""medcl probe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medcl.errors import UsageError
from medcl_cli import show


def probe(
    runs: Annotated[
        list[Path], typer.Argument(help="A run, or the runs of all folds of one recipe.")
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            help="Another index: of other people, all of them test the run (external validation); "
            "of the same people, it takes the place of the run's own."
        ),
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="The labelled problem; the recipe's own by default.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The folder; RUN/probe, or beside the runs if there are several."),
    ] = None,
    places: Annotated[
        bool,
        typer.Option(
            "--places", help="Without labels: is the same place of the body (or recording) found?"
        ),
    ] = False,
    json: show.Json = False,
) -> None:
    """Compare frozen features: pretrained, random encoder, hand-crafted, on unseen patients.

    Examples: medcl probe run · medcl probe fold0 fold1 fold2 fold3 fold4 · medcl probe run --places
    """
    from medcl.probe.localisation import Places
    from medcl.probe.localisation import places as by_place
    from medcl.probe.probe import probe as evaluate
    from medcl.probe.result import ProbeResult
    from medcl.run import Run

    opened = [Run.open(path) for path in runs]
    result: ProbeResult | Places
    if places:
        if task is not None or out is not None or len(opened) > 1:
            raise UsageError("--places is about one run, and takes neither --task nor --out.")
        result = by_place(opened[0], data=data)
    else:
        result = evaluate(opened, data=data, task=task, out=out, command=show.command())
    if json:
        show.as_json(result.as_dict())
    else:
        show.table(result.title, *result.table())
        typer.echo(result.verdict())
