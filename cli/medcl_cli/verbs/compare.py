"""medcl compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medcl_cli import show


def compare(
    a: Annotated[Path, typer.Argument(help="A study of medcl finetune, or a run that was probed.")],
    b: Annotated[Path, typer.Argument(help="Another; run#random is its untrained encoder.")],
    classifier: Annotated[str, typer.Option(help="Of a probe: linear or knn.")] = "linear",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A JSON file to write.")] = None,
    json: show.Json = False,
) -> None:
    """Compare two sets of predictions of the same samples, paired by patient.

    Example: medcl compare study-a study-b
    """
    from medcl.audit import compare as comparing

    result = comparing.compare(a, b, classifier=classifier)
    if out is not None:
        comparing.save(result, out)
    if json:
        show.as_json(result.as_dict())
        return
    show.table(result.title, *result.table())
    if result.left_out:
        typer.echo(f"{result.left_out:,} samples that only one of them predicted were left out.")
    typer.echo(result.verdict())
