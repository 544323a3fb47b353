"""medcl curate."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from medcl_cli import options, show


def curate(
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder of the curated index.")],
    index: Annotated[
        Path | None, typer.Argument(metavar="[IDX]", help="The index: or as --data.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="The index.")] = None,
    strategy: Annotated[
        Literal["dhash", "every-n", "ssim", "mi", "embedding"],
        typer.Option(help="The measure of similarity."),
    ] = "dhash",
    distance: Annotated[
        float | None,
        typer.Option(help="Largest distance of duplicates: bits, 1 − similarity, or every n-th."),
    ] = None,
    across: Annotated[
        float | None,
        typer.Option(help="The same between items of the archive; without it, within items only."),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", "-r", help="Prepare with the settings of this recipe."),
    ] = None,
    embeddings: Annotated[
        Path | None, typer.Option(help="For strategy embedding: the output of medcl embed.")
    ] = None,
    workers: options.Workers = None,
    archive: show.Archive = None,
    dry_run: options.DryRun = False,
    json: show.Json = False,
) -> None:
    """Write an index without near-duplicates, and a report of the dropped parts.

    It compares parts within each item, and with --across between items too. Use the new index like
    any other.

    Example: medcl curate --data idx --strategy dhash --distance 6 --out idx2
    """
    from medcl import plugin as plugins
    from medcl import recipe as recipes
    from medcl.archive.index import Index
    from medcl.curate import curate as curation
    from medcl.doctor import cores

    source = options.index(index, data)
    opened = Index.open(source)
    spec = None if recipe is None else recipes.load(recipe).prepare
    if dry_run:
        options.dry({"data": source, "recipe": recipe, "embeddings": embeddings}, out, json=json)
        return
    embedded = None
    if embeddings is not None:
        from medcl.embeddings.embeddings import Embeddings

        loaded = Embeddings.load(embeddings)
        embedded = (loaded.items, loaded.x)
    summary = curation.curate(
        opened,
        plugins.get(opened.plugin_name),
        out,
        strategy=strategy,
        distance=distance,
        across=across,
        spec=spec,
        embedded=embedded,
        workers=workers or cores(),
    )
    if json:
        show.as_json(asdict(summary))
        return
    show.facts(f"Index {out}", {**asdict(summary), "report": out / "curation" / "report.html"})
