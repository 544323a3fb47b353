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
            help="Another index. With other patients: external validation on all of them. With the "
            "same patients: it replaces the run's own."
        ),
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="The labelled problem; the recipe's own by default.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The folder; RUN/probe, or next to the runs if there are several."),
    ] = None,
    places: Annotated[
        bool,
        typer.Option(
            "--places",
            help="Without labels: localisation of the same position in the body or recording.",
        ),
    ] = False,
    json: show.Json = False,
) -> None:
    """Compare frozen features on test patients: pretrained, random encoder, hand-crafted.

    Examples: medcl probe run · medcl probe fold0 fold1 fold2 fold3 fold4 · medcl probe run --places
    """
    import medcl
    from medcl.dense.probe import probe as of_masks
    from medcl.dense.result import DenseResult
    from medcl.probe.localisation import Places
    from medcl.probe.localisation import places as by_place
    from medcl.probe.result import ProbeResult
    from medcl.run import Run

    result: ProbeResult | Places | DenseResult
    run = Run.open(runs[0])
    name = task or run.recipe.probe.task
    if name and name in run.plugin.tasks and run.plugin.tasks[name].kind == "mask":
        if data is not None or places or len(runs) > 1:
            raise UsageError(
                "A task of masks is probed on one run's own index: give the run alone."
            )
        result = of_masks(run, name, out=out, command=show.command())
    elif places:
        if task is not None or out is not None or len(runs) > 1:
            raise UsageError("--places is about one run, and takes neither --task nor --out.")
        result = by_place(run, data=data)
    else:
        result = medcl.probe(runs, data=data, task=task, out=out, command=show.command())
    if json:
        show.as_json(result.as_dict())
    else:
        show.table(result.title, *result.table())
        typer.echo(result.verdict())
