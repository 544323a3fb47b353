"""medcl finetune."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medcl.errors import UsageError
from medcl_cli import show
from medcl_cli.verbs.pretrain import Settings

if TYPE_CHECKING:
    from medcl.finetune.finetune import Source


def finetune(
    source: Annotated[
        Path, typer.Argument(help="An index, a pretrained run, or a folder of files.")
    ],
    out: Annotated[Path, typer.Option(help="The study's folder. The same again resumes it.")],
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe", "-r", help="A recipe with a classifier; LP-FT for a run by default."
        ),
    ] = None,
    labels: Annotated[
        list[Path] | None,
        typer.Option(
            help="CSV or Parquet: a column key, slide_id, filename, … (an item's path, or a "
            "patient), labels; patient, case_id, site, … where known. May be repeated."
        ),
    ] = None,
    key_column: Annotated[
        str | None, typer.Option(help="The column that names the items, if called otherwise.")
    ] = None,
    patient_column: Annotated[
        str | None, typer.Option(help="The column that names the patients, if called otherwise.")
    ] = None,
    label_column: Annotated[
        str | None, typer.Option(help="The column to learn: finetune.label.")
    ] = None,
    patient_from: Annotated[
        str | None,
        typer.Option(help="Of a folder: regex over the path with a group 'patient'."),
    ] = None,
    split: Annotated[
        Path | None, typer.Option(help="Such a table with a column split: train or test.")
    ] = None,
    folds: Annotated[int | None, typer.Option(help="Cross-validation over patients.")] = None,
    repeats: Annotated[int | None, typer.Option(help="Of all folds.")] = None,
    imbalance: Annotated[
        str | None,
        typer.Option(help="Studies of class imbalance: negatives per positive, such as 1,5,10,50."),
    ] = None,
    instances: Annotated[
        bool, typer.Option("--instances", help="Store the contribution of each instance of a bag.")
    ] = False,
    explain: Annotated[
        int, typer.Option(help="Draw this many test bags of each class (implies --instances).")
    ] = 0,
    workers: Annotated[int, typer.Option(help="Folds trained in parallel.")] = 1,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "auto",
    settings: Settings = None,
    json: show.Json = False,
) -> None:
    """Train with labels or masks, in folds, and evaluate on the test patients.

    Examples: medcl finetune idx -r pathology/abmil --labels slides.csv --folds 5 --out study ·
    medcl finetune run --labels l.csv --out study · medcl finetune run -r ct/segment --out study ·
    medcl finetune FEATURES -r pathology/abmil --labels slides.csv --out study
    """
    from medcl.finetune import archived
    from medcl.finetune import explain as explaining
    from medcl.finetune import finetune as tuning

    asked = [f"finetune.folds={folds}"] * (folds is not None)
    asked += [f"finetune.repeats={repeats}"] * (repeats is not None)
    asked += [f"finetune.label={label_column}"] * (label_column is not None)
    chosen, reader = archived.parted(settings or ())
    if archived.is_archive(source):
        source, found = archived.indexed(
            source, out, recipe, reader, patient_from=patient_from, workers=workers
        )
        typer.echo(archived.sentence(source, found), err=json)
    elif reader or patient_from:
        raise UsageError(
            "--patient-from and -s reader.… are for a folder of files; an index was read already: "
            "give them to medcl index."
        )
    trained = tuning.opened(source, recipe, [*chosen, *asked])
    if tuning.learns_masks(trained.recipe):
        of_labels = {
            "--labels": labels,
            "--key-column": key_column,
            "--patient-column": patient_column,
            "--label-column": label_column,
            "--imbalance": imbalance,
            "--instances": instances,
            "--explain": explain,
        }
        if needless := [option for option, value in of_labels.items() if value]:
            raise UsageError(
                f"{', '.join(needless)}: for labels; masks lie beside their images. Leave it out."
            )
        _segment(trained, out, split=split, workers=workers, device=device, json=json)
        return
    if explain and imbalance is not None:
        raise UsageError("--imbalance makes several studies, and --explain draws of one: drop one.")
    options: dict[str, Any] = {
        "labels": labels,
        "key_column": key_column,
        "patient_column": patient_column,
        "split": split,
        "instances": instances or explain > 0,
        "workers": workers,
        "device": device,
        "command": show.command(),
    }
    if imbalance is None:
        results = [tuning.finetune(trained, out, **options)]
        drawn, problems = explaining.explain(trained, out, explain) if explain else ([], [])
    else:
        drawn, problems = [], []
        results = tuning.imbalanced(trained, out, tuning.ratios(imbalance), **options)
    if json:
        show.as_json([r.as_dict() for r in results] if imbalance else results[0].as_dict())
        return
    for result in results:
        show.table(result.title, *result.table())
        if result.figures.classes:
            show.table("Class by class", *result.by_class())
        typer.echo(result.verdict())
    for problem in problems:
        typer.echo(problem)
    if drawn:
        typer.echo(f"Explained: {len(drawn)} bags in {drawn[0].parent}")
    typer.echo(f"Next: medcl report {out}")


def _segment(
    source: Source, out: Path, *, split: Path | None, workers: int, device: str, json: bool
) -> None:
    """Train with masks, and print the figures."""
    from medcl.dense.study import segment

    result = segment(
        source, out, split=split, workers=workers, device=device, command=show.command()
    )
    if json:
        show.as_json(result.as_dict())
        return
    show.table(result.title, *result.table())
    typer.echo(result.verdict())
    typer.echo(f"Next: medcl report {out}")
