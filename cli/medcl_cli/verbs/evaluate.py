"""medcl evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medcl.errors import MedclError
from medcl_cli import show


def evaluate(
    study: Annotated[Path, typer.Argument(help="A finished study of medcl finetune.")],
    by: Annotated[
        list[str] | None,
        typer.Option(help="A column of the index to make groups by. May be repeated."),
    ] = None,
    corruption: Annotated[
        list[str] | None, typer.Option(help="One of the named corruptions; all by default.")
    ] = None,
    fast: Annotated[
        bool, typer.Option("--fast", help="Audit and groups alone: no corruption, no attack.")
    ] = False,
    limit: Annotated[
        int, typer.Option(min=1, help="Test samples that are corrupted and attacked at most.")
    ] = 2000,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "auto",
    json: show.Json = False,
) -> None:
    """Question a study: leaks, subgroups, corruptions, attacks. A leak fails the command.

    Example: medcl evaluate study --by sex --by site
    """
    from medcl.audit.corruptions import CORRUPTIONS
    from medcl.audit.evaluate import evaluate as question

    names = () if fast else tuple(corruption or CORRUPTIONS)
    made = question(study, by=by, corruptions=names, attack=not fast, limit=limit, device=device)
    if json:
        show.as_json(made.as_dict())
    else:
        show.table(made.study.title, *made.study.table())
        if made.subgroups:
            show.table("By group of test patients", *made.subgroup_table())
        samples, patients = made.tested
        if made.corruptions:
            title = f"Under corruptions, {samples} samples of {patients} patients"
            show.table(title, *made.corruption_table())
        if made.attacks:
            show.table("Under attack", *made.attack_table())
        for note in made.notes:
            typer.echo(note)
        typer.echo(made.audit.sentence())
    if not made.audit.passed:
        raise MedclError(
            f"{study} leaks: {made.audit.sentence()} The pairs are in evaluation/evaluation.json; "
            "mend the index or the split, and train again."
        )
