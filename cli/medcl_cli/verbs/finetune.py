"""medcl finetune."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medcl.errors import UsageError
from medcl_cli import next_steps, options, show


def finetune(
    source: Annotated[
        Path,
        typer.Argument(help="A recipe; or a run or a released encoder's name, to go on from."),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The study's folder. The same again resumes it.")
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            callback=show.lies_data,
            help="An index or a folder of files; of a run, its own by default.",
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", "-r", help="Of a run or encoder: how to train; LP-FT by default."),
    ] = None,
    labels: Annotated[
        list[Path] | None,
        typer.Option(
            "--labels",
            "--table",
            help="CSV or Parquet: a column key, slide_id, filename, … (an item's path, or a "
            "patient), labels; patient, case_id, site, … where known. May be repeated.",
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
    parallel: Annotated[
        int, typer.Option("--parallel", "--workers", min=1, help="Folds trained at once.")
    ] = 1,
    device: options.Device = "auto",
    settings: options.Settings = None,
    archive: show.Archive = None,
    dry_run: options.DryRun = False,
    json: show.Json = False,
) -> None:
    """Train with labels or masks, in folds, and evaluate on the test patients.

    Examples: medcl finetune pathology/abmil --data idx --labels slides.csv --out study ·
    medcl finetune run --labels l.csv --out study · medcl finetune run -r ct/segment --out study ·
    medcl finetune pathology/abmil --data FEATURES --labels slides.csv --out study ·
    medcl finetune ecg-small --data ecgs --labels l.csv --out study
    """
    import medcl
    from medcl.finetune.archived import INDEX, is_archive
    from medcl.finetune.explain import FOLDER
    from medcl.finetune.finetune import ratios
    from medcl.finetune.result import FinetuneResult

    if data is not None and recipe is None and _is_recipe(source):
        source, data, recipe = data, None, str(source)
    elif recipe is not None and data is None and not (source / "recipe.yaml").is_file():
        options.old(f"finetune {source} -r {recipe}", f"medcl finetune {recipe} --data {source}")
    if dry_run:
        reads = {"recipe": recipe, "source": source, "data": data, "labels": labels}
        options.dry(reads, out, json=json)
        return
    if explain and imbalance is not None:
        raise UsageError("--imbalance makes several studies, and --explain draws of one: drop one.")
    studies: dict[Path, float | None] = {out: None}
    if imbalance is not None:
        studies = {out / f"1to{ratio:g}": ratio for ratio in ratios(imbalance)}
    results = [
        medcl.finetune(
            source,
            folder,
            data=data,
            recipe=recipe,
            labels=labels,
            label_column=label_column,
            key_column=key_column,
            patient_column=patient_column,
            patient_from=patient_from,
            index=out / INDEX if is_archive(data or source) else None,
            split=split,
            folds=folds,
            repeats=repeats,
            imbalance=ratio,
            instances=instances,
            explain=explain,
            workers=parallel,
            device=device,
            settings=settings or (),
            command=show.command(),
        )
        for folder, ratio in studies.items()
    ]
    if is_archive(data or source):
        show.indexed(out / INDEX, err=json)
    if json:
        show.as_json([r.as_dict() for r in results] if imbalance else results[0].as_dict())
        return
    if isinstance(results[0], FinetuneResult):
        show.outcomes(results[0].outcomes or [])
    for result in results:
        show.table(result.title, *result.table())
        if isinstance(result, FinetuneResult) and result.figures.classes:
            show.table("Class by class", *result.by_class())
        typer.echo(result.verdict())
    if explain and (out / FOLDER).is_dir():
        drawn = sum(1 for _ in (out / FOLDER).iterdir())
        typer.echo(f"Explained: {drawn} bags in {out / FOLDER}")
    typer.echo(f"Next: {next_steps.after_finetune(list(studies), out)}")


def _is_recipe(source: Path) -> bool:
    """Whether it names a recipe, and neither a folder nor a released encoder."""
    from medcl import recipe as recipes
    from medcl.released import folders

    if source.is_dir() or str(source) in folders():
        return False
    recipes.find(str(source))  # an unknown name is an error that suggests the nearest
    return True
