"""medcl evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medcl.errors import MedclError
from medcl_cli import options, show


def evaluate(
    study: Annotated[Path, typer.Argument(help="A finished study of medcl finetune.")],
    by: Annotated[
        list[str] | None,
        typer.Option(help="A column of the index that defines subgroups. May be repeated."),
    ] = None,
    corruption: Annotated[
        list[str] | None, typer.Option(help="One of the named corruptions; all by default.")
    ] = None,
    fast: Annotated[
        bool, typer.Option("--fast", help="Audit and subgroups only: no corruption, no attack.")
    ] = False,
    limit: Annotated[
        int, typer.Option(min=1, help="Largest number of test samples to corrupt and attack.")
    ] = 2000,
    device: options.Device = "auto",
    data: show.Data = None,
    archive: show.Archive = None,
    json: show.Json = False,
) -> None:
    """Audit a study: leaks, subgroups, corruptions, attacks. A leak fails the command.

    Example: medcl evaluate study --by sex --by site
    """
    from medcl.audit.corruptions import CORRUPTIONS
    from medcl.audit.evaluate import evaluate as audit

    names = () if fast else tuple(corruption or CORRUPTIONS)
    result = audit(study, by=by, corruptions=names, attack=not fast, limit=limit, device=device)
    if json:
        show.as_json(result.as_dict())
    else:
        show.table(result.study.title, *result.study.table())
        if result.subgroups:
            show.table("By group of test patients", *result.subgroup_table())
        samples, patients = result.tested
        if result.corruptions:
            title = f"Under corruptions, {samples} samples of {patients} patients"
            show.table(title, *result.corruption_table())
        if result.attacks:
            show.table("Under attack", *result.attack_table())
        for note in result.notes:
            typer.echo(note)
        typer.echo(result.audit.sentence())
    if not result.audit.passed:
        raise MedclError(
            f"{study} leaks: {result.audit.sentence()} The pairs are in "
            "evaluation/evaluation.json; correct the index or the split, and train again."
        )
