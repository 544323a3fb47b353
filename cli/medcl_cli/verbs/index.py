"""medcl index."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from medcl_cli import next_steps, options, show

MANY = 50
"""Different reasons that are listed; with more, the first one of each code."""


def index(
    archive: Annotated[Path, typer.Argument(help="The folder that holds the recordings.")],
    plugin: Annotated[str, typer.Option(help="The modality: see medcl plugins.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder of the index.")],
    workers: options.Workers = None,
    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="Where they run: here, or on a Ray cluster.")
    ] = "local",
    key_file: Annotated[
        Path | None,
        typer.Option(
            help="Secret for hashing identifiers; the same key gives the same pseudonyms."
        ),
    ] = None,
    patient_from: Annotated[
        str | None,
        typer.Option(help="Regex over the path with a group 'patient' (and perhaps 'site')."),
    ] = None,
    table: Annotated[
        list[Path] | None,
        typer.Option(
            help="CSV or Parquet with a column key, slide_id, filename, … (path or stem), and "
            "patient, case_id, site, or label columns. May be repeated."
        ),
    ] = None,
    key_column: Annotated[
        str | None, typer.Option(help="The table's column of keys, if called otherwise.")
    ] = None,
    patient_column: Annotated[
        str | None, typer.Option(help="Its column of patients, if called otherwise.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            "-s",
            help="Values that the files lack: reader.fs=100, reader.columns.2=PLETH, or a YAML: "
            "reader=@reader.yaml. Stored for later runs; see the plugin's page.",
        ),
    ] = None,
    merge_spellings: Annotated[
        bool,
        typer.Option(
            "--merge-spellings",
            help="Patients whose ids differ in case, spaces, punctuation or leading zeros only "
            "are one.",
        ),
    ] = False,
    rescan: Annotated[bool, typer.Option(help="Open every file again, changed or not.")] = False,
    follow_links: Annotated[
        bool,
        typer.Option("--follow-links", help="Also take what links lead to outside of the archive."),
    ] = False,
    paths: Annotated[
        bool, typer.Option(help="Show the rejected files. A path may identify a patient.")
    ] = False,
    rejects: show.Rejects = None,
    dry_run: options.DryRun = False,
    json: show.Json = False,
) -> None:
    """Index an archive: one row per recording, one row per reject with its reason.

    Reads headers only, in parallel. Stop and restart it at any time; an unchanged archive is not
    read twice. Example: medcl index mitdb/ --plugin biosignals --out idx
    """
    import polars as pl

    from medcl.archive.ignored import advice
    from medcl.archive.index import Index, NothingTaken, build
    from medcl.doctor import cores
    from medcl.errors import MedclError
    from medcl.plugin import get

    modality = get(plugin)
    if dry_run:
        reads = {"archive": archive, "plugin": plugin, "table": ", ".join(map(str, table or ()))}
        options.dry(reads, out, json=json)
        return
    try:
        summary = build(
            archive,
            out,
            modality,
            workers=workers or cores(),
            engine=engine,
            key_file=key_file,
            patient_from=patient_from,
            table=table or None,
            key_column=key_column,
            patient_column=patient_column,
            reader=_reader(settings) if settings else None,
            merge_spellings=merge_spellings,
            rescan=rescan,
            follow_links=follow_links,
        )
    except NothingTaken as error:
        if other := _other(archive, plugin, out):
            raise MedclError(f"{error} {other}") from None
        raise
    built = Index.open(out)
    rows = built.rejects
    if paths:
        rows = rows.join(built.paths.select("id", file="key"), on="id", how="left")
    if rejects is not None:
        show.rejects(rows, rejects)
    counted = built.items["findings"].explode().drop_nulls().value_counts().sort("findings")
    findings = dict(counted.iter_rows())
    if json:
        facts = {**asdict(summary), "rejected": summary.rejected, "findings": findings}
        show.as_json(facts if rejects is None else {**facts, "rejects_file": rejects})
        return
    tables = ("rejects", "ignored_suffixes", "notes")
    counts = {name: value for name, value in asdict(summary).items() if name not in tables}
    counts["seconds"] = f"{summary.seconds:.1f}"
    show.facts(f"Index {out}", {**counts, "rejected": summary.rejected})
    for note in summary.notes:
        typer.echo(f"Note: {note}")
    if summary.ignored_suffixes:
        suffixes = sorted(summary.ignored_suffixes.items(), key=lambda row: (-row[1], row[0]))
        ignored = [(suffix, count, advice(suffix, modality.hints)) for suffix, count in suffixes]
        show.table("Ignored: not of this modality", ("suffix", "files", "what to do"), ignored)
    show.findings("items", findings, modality)
    if len(rows):
        title = "Rejected"
        if not paths:  # an id says nothing to anybody
            title = f"Rejected; each by itself in {out / 'rejects.parquet'}, or with --paths"
            same = rows.group_by("code", "reason").len("files")
            if len(same) > MANY:
                same = rows.group_by("code").agg(pl.first("reason"), files=pl.len())
            rows = same.select("code", "files", "reason").sort("files", "code", descending=True)
        show.table(title, rows.columns, rows.rows())
    if not summary.items and (other := _other(archive, plugin, out)):
        raise MedclError(f"The plugin '{plugin}' reads nothing in {archive}. {other}")
    if following := next_steps.after_index(built):
        typer.echo(f"Next: {following}")
        if (larger := next_steps.after_index(built, gpu=True)) != following:
            typer.echo(f"On a machine with a GPU: {larger}")


def _other(archive: Path, plugin: str, out: Path) -> str:
    """A sentence with the plugin that reads this archive; empty if none does."""
    from medcl.archive.fits import fitting

    fits = fitting(archive, but=plugin)
    if not fits:
        return ""
    best = next(iter(fits))
    if out.exists():  # it is an index of the other plugin now
        out = out.with_name(f"{out.name}-{best}")
    read, written = shlex.quote(str(archive)), shlex.quote(str(out))
    command = f"medcl index {read} --plugin {best} --out {written}"
    return f"Its files fit the plugin '{best}': {command}"


def _reader(settings: list[str]) -> dict[str, Any]:
    from medcl.errors import UsageError
    from medcl.recipe import nested
    from medcl.registry import did_you_mean

    sections = nested(settings)
    for section in sections:
        if section != "reader":
            raise UsageError(f"Unknown section '{section}'. {did_you_mean(section, ['reader'])}")
    values = sections["reader"]
    if not isinstance(values, dict):
        raise UsageError("'reader' is a section: give reader.NAME=VALUE, or reader=@FILE.yaml.")
    return values
