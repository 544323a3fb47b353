"""medcl probe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medcl.errors import UsageError
from medcl_cli import options, show


def probe(
    runs: Annotated[
        list[Path], typer.Argument(help="A run, or the runs of all folds of one recipe.")
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            callback=show.lies_data,
            help="Another index. With other patients: external validation on all of them; with "
            "--labels, fitted and tested on them. With the same patients: it replaces the run's "
            "own.",
        ),
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="The labelled problem; the recipe's own by default.")
    ] = None,
    labels: Annotated[
        list[Path] | None,
        typer.Option(
            "--labels",
            "--table",
            help="Your own labels, CSV or Parquet: by window (sample; or key, start, end in "
            "seconds), by item (key, filename, …) or by patient (patient, …).",
        ),
    ] = None,
    label_column: Annotated[
        list[str] | None,
        typer.Option(
            help="The label, of the table or the index. Repeated: a multilabel target, columns of "
            "1 and 0."
        ),
    ] = None,
    kind: Annotated[
        str, typer.Option(help="binary, multiclass, multilabel, ordinal, regression, or auto.")
    ] = "auto",
    classes: Annotated[
        str | None,
        typer.Option(help="Of the label, in order: A,B. Of two, the second is the positive one."),
    ] = None,
    key_column: Annotated[
        str | None, typer.Option(help="The column that names the items, if called otherwise.")
    ] = None,
    patient_column: Annotated[
        str | None, typer.Option(help="The column that names the patients, if called otherwise.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="The folder; RUN/probe, or next to the runs if there are several."
        ),
    ] = None,
    localisation: Annotated[
        bool,
        typer.Option(
            "--localisation",
            "--places",
            help="Without labels: localisation of the same position in the body or recording.",
        ),
    ] = False,
    device: options.Device = "auto",
    archive: show.Archive = None,
    dry_run: options.DryRun = False,
    json: show.Json = False,
) -> None:
    """Compare frozen features on test patients: pretrained, random encoder, hand-crafted.

    Examples: medcl probe run · medcl probe fold0 fold1 fold2 fold3 fold4 ·
    medcl probe run --localisation · medcl probe run --labels labels.csv --label-column AF
    """
    import medcl
    from medcl.dense.result import DenseResult
    from medcl.probe.localisation import Localisation
    from medcl.probe.result import ProbeResult
    from medcl.run import Run

    result: ProbeResult | Localisation | DenseResult
    run = Run.open(runs[0])
    if dry_run:
        reads = {"runs": ", ".join(map(str, runs)), "data": data or run.data, "labels": labels}
        options.dry(reads, out or run.path / "probe", json=json)
        return
    name = task or run.recipe.probe.task
    if name and name in run.plugin.tasks and run.plugin.tasks[name].kind == "mask":
        if data is not None or localisation or len(runs) > 1 or labels or label_column:
            raise UsageError(
                "A task of masks is probed on one run's own index: give the run alone."
            )
        result = medcl.probe_masks(run, name, out=out, device=device, command=show.command())
    elif localisation:
        if task is not None or out is not None or len(runs) > 1 or labels or label_column:
            raise UsageError(
                "--localisation is about one run, and takes neither --task nor --labels nor --out."
            )
        result = medcl.probe_localisation(runs[0], data=data, device=device)
    else:
        result = medcl.probe(
            runs,
            data=data,
            task=task,
            labels=labels,
            label_column=label_column,
            kind=kind,  # type: ignore[arg-type]  # checked there
            classes=[name.strip() for name in classes.split(",")] if classes else (),
            key_column=key_column,
            patient_column=patient_column,
            out=out,
            device=device,
            command=show.command(),
        )
    if json:
        show.as_json(result.as_dict())
    else:
        show.table(result.title, *result.table())
        typer.echo(result.verdict())
        for note in getattr(result, "notes", ()):
            typer.echo(f"Note: {note}")
