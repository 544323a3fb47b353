"""medcl store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from medcl_cli import options, show


def store(
    index: Annotated[
        Path | None, typer.Argument(metavar="[IDX]", help="The index: or as --data.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="The index.")] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(help="A recipe, run or study whose entries stay, and no others. Repeatable."),
    ] = None,
    reclaim: Annotated[
        bool, typer.Option("--reclaim", help="Remove unused entries; by default, only list them.")
    ] = False,
    json: show.Json = False,
) -> None:
    """List the prepared arrays of an index, and remove those that no recipe uses any more.

    Without `--keep`, all entries of present items with valid settings stay. A curated index shares
    the store of its source index.
    Examples: medcl store --data idx ·
    medcl store --data idx --keep biosignals/mitbih --keep runs/first --reclaim
    """
    from medcl import plugin as plugins
    from medcl.archive import reclaim as room
    from medcl.archive.index import Index

    source = options.index(index, data)
    owner = room.owner(Index.open(source))
    plugin = plugins.get(owner.plugin_name)
    work = room.reclaim if reclaim else room.survey
    kept_settings = None if not keep else [_settings(name, plugin.name) for name in keep]
    lots = work(owner, plugin, keep=kept_settings, recipes=_recipes(plugin.name))
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
        f"Store of {source}",
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
    """The readable recipes of the plugin: name → settings of ``prepare``."""
    from medcl import recipe as library
    from medcl.errors import MedclError

    settings = {}
    for name in library.available():
        try:
            if name.startswith(f"{plugin}/"):
                settings[name] = library.load(name).prepare
        except (MedclError, OSError):  # a third party's plugin, or missing files
            continue
    return settings
