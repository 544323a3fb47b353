"""medcl embed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from medcl_cli import options, show


def embed(
    what: Annotated[
        Path,
        typer.Argument(
            help="A finished run, or an encoder: a released one, or one of the index's plugin."
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The folder for the embeddings or bags.")
    ],
    records: Annotated[
        list[Path] | None,
        typer.Argument(help="Of a run: recordings (files, names without suffix) and folders."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            callback=show.lies_data, help="The index; of a run, another than it was trained on."
        ),
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="Embed the samples of this task (beats, say).")
    ] = None,
    paths: Annotated[
        bool, typer.Option("--paths", help="Name the recordings, as label record.")
    ] = False,
    bags: Annotated[
        bool, typer.Option("--bags", help="One file for each item, with all its samples.")
    ] = False,
    encoder: Annotated[
        str | None, typer.Option(help="The same as an encoder's name first: makes bags.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", "-r", help="Of an index: how its items are prepared."),
    ] = None,
    settings: options.Settings = None,
    untrained: Annotated[
        bool, typer.Option("--untrained", help="Of an index: an encoder without weights, random.")
    ] = False,
    float32: Annotated[bool, typer.Option("--float32", help="Bags of 32 bits, not 16.")] = False,
    batch_size: Annotated[int, typer.Option(min=1)] = 512,
    device: options.Device = "auto",
    readers: Annotated[int, typer.Option(min=0, help="Processes that read ahead.")] = 0,
    parallel: Annotated[
        int, typer.Option("--parallel", "--workers", min=1, help="Of bags: how many at once.")
    ] = 1,
    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="Where it runs: here, or on a Ray cluster.")
    ] = "local",
    archive: show.Archive = None,
    dry_run: options.DryRun = False,
    json: show.Json = False,
) -> None:
    """Embed every sample of an index with a run's encoder, or with a given one.

    Bags are written item by item; existing ones are kept, and several commands may fill one folder.

    Example: medcl embed run --out embeddings

    Example: medcl embed ecg-small a.hea b.edf --out embeddings --paths

    Example: medcl embed uni --data idx -s encoder.folder=/models/UNI --out bags
    """
    import medcl
    from medcl.errors import UsageError

    if data is not None and not what.exists() and _names_encoder(what.name, data):
        what, data, encoder = data, None, what.name
    elif encoder is not None:
        options.old(f"embed {what} --encoder", f"medcl embed {encoder} --data {what}")
    index = (what / "index.json").is_file()
    given = {"--encoder": encoder, "--recipe": recipe, "--set": settings}
    extra = [name for name, value in given.items() if value]
    if extra and not index:
        raise UsageError(f"{extra[0]} goes with an index; a run has its own recipe and encoder.")
    if records and (data is not None or bags or index):
        raise UsageError("Recordings go with a run alone: no --data, no --bags.")
    if dry_run:
        reads = {"run or index": what, "data": data, "recordings": records, "encoder": encoder}
        options.dry(reads, out, json=json)
        return None
    if not bags and not index:
        made = medcl.embed(
            what,
            records or data,
            out=out,
            task=task,
            batch_size=batch_size,
            device=device,
            readers=readers,
            engine=engine,
            paths=paths,
        )
        result = {
            "out": out,
            "samples": len(made),
            "patients": len(set(made.patients)),
            "width": made.x.shape[1],
        }
        return show.as_json(result) if json else show.facts("Embeddings", result)
    done = medcl.embed_bags(
        what,
        out,
        data=data,
        encoder=encoder,
        recipe=recipe,
        settings=settings or (),
        task=task,
        half=not float32,
        batch_size=batch_size,
        device=device,
        readers=readers,
        workers=parallel,
        engine=engine,
        untrained=untrained,
    )
    if json:
        return show.as_json({"out": out, **vars(done)})
    show.facts("Bags", {"out": out, **vars(done), "failed": len(done.failed)})
    if done.failed:
        show.table("Without a bag", ("item", "reason"), list(done.failed.items()))
    return None


def _names_encoder(name: str, data: Path) -> bool:
    """Whether an index's plugin has an encoder of this name that is not a released run."""
    from medcl import plugin as plugins
    from medcl.archive.index import Index
    from medcl.released import folders

    if name in folders() or not (data / "index.json").is_file():
        return False
    return name in plugins.get(Index.open(data).plugin_name).encoders
