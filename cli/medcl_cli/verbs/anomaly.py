"""medcl anomaly."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medcl_cli import options, show


def anomaly(
    run: Annotated[Path, typer.Argument(help="A finished run.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to create.")],
    data: Annotated[
        Path | None,
        typer.Option(callback=show.lies_data, help="Another index than that of training."),
    ] = None,
    score: Annotated[str, typer.Option(help="knn or mahalanobis.")] = "knn",
    k: Annotated[int, typer.Option("--k", min=1, help="Neighbours, for knn.")] = 5,
    rate: Annotated[float, typer.Option(help="False-alarm rate on normal samples.")] = 0.05,
    task: Annotated[str | None, typer.Option(help="Score the samples of this task.")] = None,
    device: options.Device = "auto",
    archive: show.Archive = None,
    dry_run: options.DryRun = False,
    json: show.Json = False,
) -> None:
    """Compute an anomaly score for each sample, with a threshold at a given false-alarm rate.

    Example: medcl anomaly run --data NEW --rate 0.01 --out unusual
    """
    from medcl.retrieval.anomaly import anomaly as find
    from medcl.run import Run

    opened = Run.open(run)
    if dry_run:
        options.dry({"run": run, "data": data or opened.data}, out, json=json)
        return
    result = find(
        opened,
        out,
        data=data,
        how=score,  # type: ignore[arg-type]  # checked there
        k=k,
        rate=rate,
        task=task,
        device=device,
    )
    if json:
        show.as_json(result.as_dict())
        return
    show.facts(
        "Unusual samples",
        {
            "out": out,
            "samples": result.samples,
            "unusual": result.unusual,
            "threshold": f"{result.threshold:.4g}, for {result.rate:g} false alarms",
            "set on": f"{result.reference} samples of "
            f"{result.reference_patients} training patients",
            "on test patients": _test(result.on_test, result.test_patients),
        },
    )
    for note in result.notes:
        typer.echo(note)


def _test(rate: object, patients: int) -> str:
    value, low, high = (getattr(rate, name, None) for name in ("value", "low", "high"))
    if value is None:
        return "none in this index"
    bounds = f" [{low:.3f}, {high:.3f}]" if low is not None and high is not None else ""
    return f"{value:.3f}{bounds} of the samples of {patients} patients"
