"""medcl predict."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from medcl_cli import options, show


def predict(
    run: Annotated[Path, typer.Argument(help="A finished run; or a study of finetune.")],
    records: Annotated[
        list[Path] | None,
        typer.Argument(help="Recordings (files, or their names without suffix) and folders."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="The table, .parquet; of masks a folder; of a stream .jsonl, or the terminal.",
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="Predict the class probabilities of this task; or of a label of your own, after "
            "medcl probe RUN --labels."
        ),
    ] = None,
    also: Annotated[
        list[Path] | None,
        typer.Option(help="Another study of the same target: the mean of all. May be repeated."),
    ] = None,
    follow: Annotated[
        Path | None,
        typer.Option(help="Predict a live signal: a growing file, or - (stdin)."),
    ] = None,
    fs: Annotated[
        float | None,
        typer.Option(help="Sampling rate in Hz, of a stream or of recordings without one."),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(help="Stream: its channels, comma-separated; or COLUMN=CHANNEL."),
    ] = None,
    format: Annotated[
        Literal["csv", "f32"] | None,
        typer.Option(help="Stream: lines of numbers, or raw float32.", show_default="csv"),
    ] = None,
    wait: Annotated[
        float | None,
        typer.Option(
            help="Stream: seconds without new samples after which a file ends.",
            show_default="10",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            "-s",
            help="Recordings: dataset.key=value overrides the recipe; reader.key=value gives "
            "values that the files lack, as in medcl index.",
        ),
    ] = None,
    masks: Annotated[
        str | None,
        typer.Option(
            help="Of a study of masks: their format (ct: nifti, dicom-seg).", show_default="nifti"
        ),
    ] = None,
    embeddings: Annotated[bool, typer.Option(help="Store the embeddings too.")] = True,
    paths: Annotated[
        bool, typer.Option(help="Write the recordings' paths. A path may identify a patient.")
    ] = False,
    key_file: Annotated[
        Path | None, typer.Option(help="Secret for pseudonyms, if the run's index had one.")
    ] = None,
    workers: options.Workers = None,
    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="Where recordings are read and prepared.")
    ] = "local",
    batch_size: Annotated[int | None, typer.Option(min=1, show_default="32")] = None,
    device: options.Device = "auto",
    data: show.Data = None,
    dry_run: options.DryRun = False,
    json: show.Json = False,
) -> None:
    """Class probabilities of new recordings; by a run also embeddings and anomaly scores.

    A study predicts the mean over its folds; for patients of the study, over the folds that did not
    train on them.

    With --also, the probabilities are the mean over several studies, such as one for each encoder.

    A study of masks writes one for each image, on the grid of its files.

    Examples: medcl predict run night.hea --out preds.parquet ·
    medcl predict study new/ --out masks/ --masks nifti ·
    medcl predict study new/ --out p.parquet · cat ppg.csv | medcl predict run --follow - --fs 64
    """
    import medcl
    from medcl import plugin as plugins
    from medcl.errors import UsageError

    if follow is not None:
        if records:
            raise UsageError("Give recordings or --follow, not both.")
        of_recordings = {
            "--set": settings,
            "--key-file": key_file,
            "--paths": paths,
            "--workers": workers,
            "--batch-size": batch_size,
            "--also": also,
        }
        if needless := [option for option, value in of_recordings.items() if value]:
            raise UsageError(
                f"{', '.join(needless)}: for recordings only, so leave it out. A stream is read "
                "with the run's settings, and its patient is unknown."
            )
        names = [name.strip() for name in columns.split(",")] if columns else None
        medcl.follow(
            run,
            follow,
            out,
            fs=fs,
            columns=names,
            format=format or "csv",
            wait=10.0 if wait is None else wait,
            task=task,
            embeddings=embeddings,
            device=device,
        )
        return

    if not records or out is None:
        raise UsageError("Give recordings and --out TABLE.parquet, or --follow FILE.")
    if dry_run:
        options.dry({"run": run, "recordings": ", ".join(map(str, records))}, out, json=json)
        return
    of_streams = {"--columns": columns, "--format": format, "--wait": wait}
    if needless := [option for option, value in of_streams.items() if value is not None]:
        raise UsageError(
            f"{', '.join(needless)}: for a stream only (--follow), so leave it out. Give values "
            "that files lack as in medcl index: --set reader.columns.2=PPG."
        )
    from medcl.dense.kind import is_dense

    if is_dense(run):
        if needless := [
            o
            for o, v in {"--task": task, "--set": settings, "--fs": fs, "--also": also}.items()
            if v
        ]:
            raise UsageError(f"{', '.join(needless)}: not for a study of masks, so leave it out.")
        _masks(run, records, out, masks or "nifti", paths, key_file, workers, device, json)
        return
    if masks is not None:
        raise UsageError(f"--masks is for a study of masks, and {run} is none.")
    predicted = medcl.predict(
        run,
        records,
        out,
        also=also or (),
        task=task,
        fs=fs,
        settings=settings or (),
        embeddings=embeddings,
        paths=paths,
        key_file=key_file,
        workers=workers,
        engine=engine,
        batch_size=batch_size or 32,
        device=device,
    )
    if json:
        show.as_json(vars(predicted))
        return
    told = ("rejects", "findings", "notes", "plugin")
    facts = {k: v for k, v in vars(predicted).items() if k not in told}
    show.facts("Predictions", {**facts, "rejected": sum(predicted.rejects.values())})
    for note in predicted.notes:
        typer.echo(note)
    show.findings("recordings", predicted.findings, plugins.get(predicted.plugin))
    if predicted.rejects:
        rows = sorted(predicted.rejects.items(), key=lambda row: -row[1])
        show.table("Rejected", ["recordings", "why"], [[n, reason] for reason, n in rows])


def _masks(
    study: Path,
    images: list[Path],
    out: Path,
    to: str,
    paths: bool,
    key_file: Path | None,
    workers: int | None,
    device: str,
    json: bool,
) -> None:
    """Predict masks, and print what became of the images."""
    import medcl

    predicted = medcl.predict_masks(
        study, images, out, to=to, paths=paths, key_file=key_file, workers=workers, device=device
    )
    if json:
        show.as_json(vars(predicted))
        return
    facts = {k: v for k, v in vars(predicted).items() if k not in ("rejects", "notes")}
    show.facts("Masks", {**facts, "rejected": sum(predicted.rejects.values())})
    for note in predicted.notes:
        typer.echo(note)
    if predicted.rejects:
        rows = sorted(predicted.rejects.items(), key=lambda row: -row[1])
        show.table("Rejected", ["images", "why"], [[n, reason] for reason, n in rows])
