"""medcl beats."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from medcl_cli import options, show

SHOWN = {
    "seconds": "length (s)",
    "beats": "beats",
    "nn": "NN intervals",
    "quality": "quality (0–1)",
    "HR": "heart rate (/min)",
    "HRV_SDNN": "SDNN (ms)",
    "HRV_RMSSD": "RMSSD (ms)",
}
"""Column of the table of recordings → its head on the terminal."""


def beats(
    records: Annotated[
        list[Path],
        typer.Argument(help="Recordings (files, or their names without suffix) and folders."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder of the tables.")],
    plugin: Annotated[
        str | None, typer.Option(help="A modality, if several measure beats.")
    ] = None,
    format: Annotated[Literal["parquet", "csv"], typer.Option(help="Of the tables.")] = "parquet",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            "-s",
            help="beats.window=60 (seconds); prepare.key=value as in a recipe; reader.key=value "
            "gives values that the files lack.",
        ),
    ] = None,
    paths: Annotated[
        bool, typer.Option(help="Write the recordings' paths. A path may identify a patient.")
    ] = False,
    workers: options.Workers = None,
    dry_run: options.DryRun = False,
    json: show.Json = False,
) -> None:
    """Beats, heart rate and its variability, and signal quality, of recordings, as tables.

    No model is needed. beats has a row for each beat, windows one for every five minutes, records
    one for each recording. Example: medcl beats night.edf -o tables --format csv
    """
    from medcl.doctor import cores
    from medcl.errors import UsageError
    from medcl.measure import measure
    from medcl.recipe import nested

    given = nested(settings or [])
    if other := given.keys() - {"beats", "prepare", "reader"}:
        raise UsageError(f"--set {min(other)}: give beats.…, prepare.… or reader.… .")
    if dry_run:
        options.dry({"recordings": ", ".join(map(str, records))}, out, json=json)
        return
    measured = measure(
        "beats",
        records,
        out,
        plugin=plugin,
        prepare=given.get("prepare"),
        reader=given.get("reader"),
        settings=given.get("beats"),
        format=format,
        paths=paths,
        workers=workers or cores(),
    )
    summary = measured.tables["records"]
    if json:
        facts = {
            "recordings": measured.recordings,
            "rows": {name: table.height for name, table in measured.tables.items()},
            "records": summary.to_dicts(),
            "rejects": dict(measured.rejects),
            "findings": dict(measured.findings),
        }
        show.as_json(facts)
        return
    named = "path" if paths else "item"
    shown = [named, *(name for name in SHOWN if name in summary.columns)]
    heads = [named, *(SHOWN[name] for name in shown[1:])]
    rows = [
        [f"{v:.2f}" if isinstance(v, float) else v for v in row]
        for row in summary.select(shown).iter_rows()
    ]
    show.table("Recordings", heads, rows)
    names = ", ".join(f"{name}.{format}" for name in measured.tables)
    typer.echo(f"All measures are in {out}: {names}.")
    if not paths:
        typer.echo("--paths shows which recording an item is. A path may identify a patient.")
    show.findings("recordings", measured.findings, measured.plugin)
    if measured.rejects:
        rejected = [[count, reason] for reason, count in measured.rejects.items()]
        show.table("Rejected", ("recordings", "why"), rejected)
