"""medcl embed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from medcl_cli import show
from medcl_cli.verbs.pretrain import Settings

if TYPE_CHECKING:
    from medcl.recipe import Recipe


def embed(
    what: Annotated[Path, typer.Argument(help="A finished run; or an index, with --encoder.")],
    out: Annotated[Path, typer.Option(help="The folder for the embeddings or bags.")],
    data: Annotated[
        Path | None, typer.Option(help="Of a run: another index than it was trained on.")
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="Embed the samples of this task (beats, say).")
    ] = None,
    bags: Annotated[
        bool, typer.Option("--bags", help="One file for each item, with all its samples.")
    ] = False,
    encoder: Annotated[
        str | None, typer.Option(help="Of an index: an encoder of its plugin; makes bags.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", "-r", help="Of an index: how its items are prepared."),
    ] = None,
    settings: Settings = None,
    float32: Annotated[bool, typer.Option("--float32", help="Bags of 32 bits, not 16.")] = False,
    batch_size: Annotated[int, typer.Option(min=1)] = 512,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "auto",
    readers: Annotated[int, typer.Option(min=0, help="Processes that read ahead.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Of bags: processes that embed.")] = 1,
    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="Of bags: where they run.")
    ] = "local",
    json: show.Json = False,
) -> None:
    """Embed every sample of an index with a run's encoder, or with a given one.

    Bags are made item by item; what is there is kept, and several commands may fill one folder.

    Example: medcl embed run --out embeddings

    Example: medcl embed idx --encoder uni -s encoder.folder=/models/UNI --out bags
    """
    from medcl.embeddings.bags import embed_bags
    from medcl.embeddings.embeddings import embed_run
    from medcl.errors import UsageError
    from medcl.run import Run

    index = (what / "index.json").is_file()
    given = {"--encoder": encoder, "--recipe": recipe, "--set": settings}
    extra = [name for name, value in given.items() if value]
    if extra and not index:
        raise UsageError(f"{extra[0]} goes with an index; a run has its own recipe and encoder.")
    if index:
        run, where = None, what
        loaded = _recipe(what, recipe, encoder, settings or [])
    else:
        run = Run.open(what)
        where, loaded = data or run.data, run.recipe
    if not bags and run is not None:
        made = embed_run(
            run, data, out, task=task, batch_size=batch_size, device=device, workers=readers
        )
        result = {
            "out": out,
            "samples": len(made.ids),
            "patients": len(set(made.patients)),
            "width": made.x.shape[1],
        }
        return show.as_json(result) if json else show.facts("Embeddings", result)
    done = embed_bags(
        loaded,
        where,
        out,
        run=run,
        task=task,
        half=not float32,
        batch_size=batch_size,
        device=device,
        readers=readers,
        workers=workers,
        engine=engine,
    )
    if json:
        return show.as_json({"out": out, **vars(done)})
    show.facts("Bags", {"out": out, **vars(done), "failed": len(done.failed)})
    if done.failed:
        show.table("Without a bag", ("item", "reason"), list(done.failed.items()))
    return None


def _recipe(
    index: Path, recipe: str | None, encoder: str | None, settings: Sequence[str]
) -> Recipe:
    """The recipe to embed an index with: a given one, or the plugin's defaults."""
    from medcl import recipe as recipes
    from medcl.archive.index import Index
    from medcl.errors import UsageError

    if recipe is None and encoder is None:
        raise UsageError(f"{index} is an index: give --encoder, or a --recipe that has one.")
    chosen = [] if encoder is None else [f"encoder={{name: {encoder}}}"]
    if recipe is not None:
        return recipes.load(recipe, [*chosen, *settings])
    plain = {"name": "embed", "plugin": Index.open(index).plugin_name, "method": {"name": "simclr"}}
    return recipes.parse(plain, [*chosen, *settings])
