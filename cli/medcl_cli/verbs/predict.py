"""medcl predict."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from medcl_cli import show


def predict(
    run: Annotated[Path, typer.Argument(help="A finished run; or a study of finetune.")],
    records: Annotated[
        list[Path] | None,
        typer.Argument(help="Recordings (files, or their names without suffix) and folders."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The table, .parquet; of a stream .jsonl, or the terminal.")
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="Give this task's class probabilities, for its samples.")
    ] = None,
    follow: Annotated[
        Path | None,
        typer.Option(help="Predict a signal while it is written: a file that grows, or - (stdin)."),
    ] = None,
    fs: Annotated[
        float | None,
        typer.Option(help="Samples a second: of a stream, or of recordings that do not say it."),
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
            help="Stream: seconds without new samples after which a file is over.",
            show_default="10",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            "-s",
            help="Recordings: dataset.key=value over the recipe's; reader.key=value, what the "
            "files do not say, as of medcl index.",
        ),
    ] = None,
    embeddings: Annotated[bool, typer.Option(help="Keep the embeddings too.")] = True,
    paths: Annotated[
        bool, typer.Option(help="Name the recordings. A path may identify a person.")
    ] = False,
    key_file: Annotated[
        Path | None, typer.Option(help="Secret for pseudonyms, if the run's index had one.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes.", show_default="all cores")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, show_default="32")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "auto",
    json: show.Json = False,
) -> None:
    """Class probabilities of new recordings; by a run also embeddings and anomaly scores.

    Of a study, the mean over its folds: of those that did not see a person, where one took part.

    Examples: medcl predict run night.hea --out preds.parquet ·
    medcl predict study new/ --out p.parquet · cat ppg.csv | medcl predict run --follow - --fs 64
    """
    from medcl.doctor import cores
    from medcl.errors import UsageError
    from medcl.predict.study_predictor import opened

    if follow is not None:
        from medcl.predict.streaming import follow as predict_stream

        if records:
            raise UsageError("Give recordings or --follow, not both.")
        given = {
            "--set": settings,
            "--key-file": key_file,
            "--paths": paths,
            "--workers": workers,
            "--batch-size": batch_size,
        }
        if needless := [option for option, value in given.items() if value]:
            raise UsageError(
                f"{', '.join(needless)}: for recordings alone, so leave it out. A stream is read "
                "as it comes, by the settings that the run has, and nobody knows whose it is."
            )
        names = [name.strip() for name in columns.split(",")] if columns else None
        predict_stream(
            opened(run),
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

    from medcl.predict.batch import predict as predict_files

    if not records or out is None:
        raise UsageError("Give recordings and --out TABLE.parquet, or --follow FILE.")
    of_streams = {"--columns": columns, "--format": format, "--wait": wait}
    if needless := [option for option, value in of_streams.items() if value is not None]:
        raise UsageError(
            f"{', '.join(needless)}: for a stream alone (--follow), so leave it out. What files do "
            "not say is given as to medcl index: --set reader.columns.2=PPG."
        )
    if fs is not None:
        settings = [f"reader.fs={fs:g}", *(settings or ())]
    made = predict_files(
        opened(run),
        records,
        out,
        task=task,
        settings=settings or (),
        embeddings=embeddings,
        paths=paths,
        key_file=key_file,
        workers=workers or cores(),
        batch_size=batch_size or 32,
        device=device,
    )
    if json:
        show.as_json(vars(made))
        return
    facts = {k: v for k, v in vars(made).items() if k not in ("rejects", "findings", "notes")}
    show.facts("Predictions", {**facts, "rejected": sum(made.rejects.values())})
    for note in made.notes:
        typer.echo(note)
    if made.findings:
        show.table("Noticed, and used", ("finding", "recordings"), sorted(made.findings.items()))
    if made.rejects:
        rows = sorted(made.rejects.items(), key=lambda row: -row[1])
        show.table("Rejected", ["recordings", "why"], [[n, why] for why, n in rows])
