"""medcl prepare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from medcl_cli import options, show
from medcl_cli.verbs.index import MANY


def prepare(
    recipe: Annotated[str, typer.Argument(help="A recipe's name, or a YAML file.")],
    data: Annotated[Path, typer.Option(help="The index.")],
    settings: options.Settings = None,
    workers: options.Workers = None,
    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="Where they run: here, or on a Ray cluster.")
    ] = "local",
    retry: Annotated[bool, typer.Option(help="Try again what could not be prepared.")] = False,
    look: Annotated[
        Path | None, typer.Option(help="Draw what was found in each item into this folder.")
    ] = None,
    rejects: show.Rejects = None,
    archive: show.Archive = None,
    dry_run: options.DryRun = False,
    json: show.Json = False,
) -> None:
    """Decode and clean every item of an index into its store, with the recipe's settings.

    `pretrain` includes this step; run it before to use all cores or a cluster.
    Example: medcl prepare biosignals/demo --data idx
    """
    from medcl import plugin as plugins
    from medcl import recipe as recipes
    from medcl.archive import outcomes, store
    from medcl.archive.index import Index
    from medcl.doctor import cores

    loaded = recipes.load(recipe, settings or ())
    index, plugin = Index.open(data), plugins.get(loaded.plugin)
    if dry_run:
        items = f"{len(index.items):,} {plugin.item}s"
        options.dry({"recipe": recipe, "data": f"{data}, {items}"}, index.path / "store", json=json)
        return
    prepared = store.prepare(
        index,
        plugin,
        loaded.prepare,
        workers=workers or cores(),
        engine=engine,
        retry=retry,
    )
    rows = [row.row() for row in outcomes.table(index, plugin, loaded.prepare, prepared)]
    each = prepared.rejects.select("id", "code", "reason")
    if rejects is not None:
        show.rejects(each, rejects)
    counts = each.group_by("code").len().sort("code")
    result: dict[str, Any] = {
        "prepared": prepared.items.height,
        "rejected": dict(counts.iter_rows()),
    }
    if prepared.anew:
        result |= {f"made anew: {why}": count for why, count in prepared.anew.items()}
    result |= {"findings": dict(prepared.findings)} if prepared.findings else {}
    if look is not None:
        from medcl.archive.look import look as draw

        drawn, undrawn = draw(prepared, plugin, look, workers=workers or cores())
        result |= {"drawn": drawn, **({"undrawn": undrawn} if undrawn else {})}
    if json:
        show.as_json({**result, "outcomes": rows})
        return
    shown = {name: value for name, value in result.items() if name != "findings"}
    show.facts(f"Store of {data}", {**shown, "rejected": prepared.rejects.height})
    show.outcomes(rows)
    if prepared.rejects.height > MANY:
        show.table(
            "Could not be prepared; --rejects FILE lists them", ("code", "items"), counts.rows()
        )
    elif prepared.rejects.height:
        show.table("Could not be prepared", each.columns, each.rows())
