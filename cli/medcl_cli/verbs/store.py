"""medcl store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from medcl_cli import show


def store(
    data: Annotated[Path, typer.Argument(metavar="IDX", help="The index.")],
    keep: Annotated[
        list[str] | None,
        typer.Option(help="A recipe, run or study: what others prepared goes too. Repeatable."),
    ] = None,
    reclaim: Annotated[
        bool, typer.Option("--reclaim", help="Remove what is not used; else it is only listed.")
    ] = False,
    json: show.Json = False,
) -> None:
    """List the prepared arrays of an index, and remove those that no recipe uses any more.

    Without `--keep`, what present items can be prepared with stays, in whatever settings. A curated
    index shares the store of the index that it was made of.
    Examples: medcl store idx · medcl store idx --keep biosignals/mitbih --keep runs/first --reclaim
    """
    from medcl import plugin as plugins
    from medcl.archive import reclaim as room
    from medcl.archive.index import Index

    index = room.owner(Index.open(data))
    plugin = plugins.get(index.plugin_name)
    work = room.reclaim if reclaim else room.survey
    kept = None if not keep else [_settings(name, plugin.name) for name in keep]
    lots = work(index, plugin, keep=kept, recipes=_recipes(plugin.name))
    unused = [lot for lot in lots if lot.state != "used"]
    freed = sum(lot.bytes for lot in unused)
    if json:
        rows = [
            {
                "state": lot.state,
                "why": lot.why,
                "settings": lot.settings,
                "recipes": lot.recipes,
                "entries": lot.entries,
                "rejects": lot.rejects,
                "bytes": lot.bytes,
            }
            for lot in lots
        ]
        show.as_json({"lots": rows, "unused_bytes": freed, "removed": reclaim})
        return
    show.table(
        f"Store of {data}",
        ("state", "prepared with", "recipes", "entries", "rejects", "MB"),
        [
            (
                lot.state,
                _about(lot.settings, lot.why),
                ", ".join(lot.recipes),
                f"{lot.entries:,}",
                f"{lot.rejects:,}",
                f"{lot.bytes / 1e6:,.1f}",
            )
            for lot in lots
        ],
    )
    if unused:
        what = "Removed" if reclaim else "Not used"
        how = "" if reclaim else ". Remove it: the same with --reclaim"
        typer.echo(
            f"{what}: {sum(n.entries for n in unused):,} entries, {freed / 1e6:,.1f} MB{how}"
        )


def _about(settings: Any, why: str) -> str:
    if settings is None:
        return why
    text = ", ".join(f"{name}={value}" for name, value in settings.items()) or "the defaults"
    return f"{text} ({why})" if why else text


def _settings(name: str, plugin: str) -> dict[str, Any]:
    """The settings of ``prepare`` of a recipe, or of the recipe of a run or study."""
    from medcl import recipe as library
    from medcl.errors import UsageError
    from medcl.private import read_recipe

    loaded = read_recipe(Path(name)) if Path(name).is_dir() else library.load(name)
    if loaded.plugin != plugin:
        raise UsageError(f"--keep {name} is of plugin '{loaded.plugin}', the index of '{plugin}'.")
    return loaded.prepare


def _recipes(plugin: str) -> dict[str, dict[str, Any]]:
    """Those of the plugin that can be read."""
    from medcl import recipe as library
    from medcl.errors import MedclError

    found = {}
    for name in library.available():
        try:
            if name.startswith(f"{plugin}/"):
                found[name] = library.load(name).prepare
        except (MedclError, OSError):  # somebody's plugin, or files that are not here
            continue
    return found
