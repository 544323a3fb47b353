"""All checks of a plugin's contract, on three items: one line for each fault."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from medcl import plugin as plugins
from medcl import recipe as recipes
from medcl.errors import MedclError, UsageError
from medcl.plugin import Broken, Plugin
from medcl.plugin_check.archive import check_archive
from medcl.plugin_check.declaration import check_declaration
from medcl.plugin_check.finding import Checked, Ledger
from medcl.plugin_check.samples import BATCH, Settings, run_checks, some
from medcl.recipe import Recipe
from medcl.registry import did_you_mean

ITEMS = 3
MANY = 64
"""Samples that an encoder must distinguish."""
KEY = "a fixed key, so that the same items are picked each time; nothing of it is kept"


def check(
    name: str, *, archive: Path | None = None, recipe: str | None = None, items: int = ITEMS
) -> Checked:
    """Run a plugin's parts on a few items of its own sample, in a temporary folder.

    Args:
        name: an installed plugin.
        archive: a folder of its files, instead of the sample; all of it is indexed.
        recipe: its settings are used. None: the plugin's ``demo``, if its sample is run; else the
            defaults of the signatures.
        items: the number of items to prepare.

    Raises:
        UsageError: if there is no such plugin or recipe, or neither sample nor archive.
    """
    plugin = plugins.discover().get(name)
    if plugin is None:
        raise UsageError(f"No plugin named '{name}'. {did_you_mean(name, plugins.discover())}")
    ledger = Ledger()
    if isinstance(plugin, Broken):
        ledger.add("plugin", "wrong", f"cannot be used: {plugin.reason}")
        return Checked(name, 0, None, tuple(ledger.findings))
    if archive is None and (recipe is None or recipe == plugin.demo):
        recipe = plugin.demo
    loaded = None if recipe is None else _recipe(recipe, plugin, ledger)
    callable_parts = check_declaration(plugin, ledger)
    source = archive or plugin.sample
    if source is None:
        raise UsageError(f"Plugin '{name}' brings no sample: give --archive FOLDER.")
    count = 0
    if callable_parts and (source.is_dir() or archive is not None):
        with tempfile.TemporaryDirectory() as scratch:
            count = _on_items(plugin, source, loaded, items, Path(scratch), ledger)
    return Checked(name, count, None if loaded is None else recipe, tuple(ledger.findings))


def _recipe(name: str, plugin: Plugin, ledger: Ledger) -> Recipe | None:
    try:
        loaded = recipes.load(name)
    except UsageError as error:
        if name != plugin.demo:
            raise
        ledger.add("recipes", "wrong", f"{name}: {error}")
        return None
    if loaded.plugin != plugin.name:
        raise UsageError(f"Recipe '{name}' is for plugin '{loaded.plugin}'.")
    return loaded


def _on_items(
    plugin: Plugin,
    archive: Path,
    recipe: Recipe | None,
    count: int,
    scratch: Path,
    ledger: Ledger,
) -> int:
    """Run all checks that need data. Returns the number of items run."""
    from medcl.archive.index import Index, build
    from medcl.archive.store import prepare

    if not check_archive(plugin, archive, scratch / "damaged", ledger):
        return 0
    key = scratch / "key"
    key.write_text(KEY)
    names = ledger.names
    settings = Settings({}, {}, {})
    if recipe is not None:
        settings = Settings(recipe.prepare, recipe.dataset, recipe.views)
    try:
        build(archive, scratch / "index", plugin, key_file=key)
        index = some(Index.open(scratch / "index"), count)
        prepared = prepare(index, plugin, settings.prepare)
    except MedclError as error:
        ledger.add("index", "wrong", str(error))
        return 0
    if not len(prepared.items):
        ledger.add("prepare", "wrong", f"leaves none of {count} items. {prepared.left_out()}")
        return 0
    samples = run_checks(plugin, index, prepared, settings, names, ledger)
    if samples is None:
        return len(prepared.items)
    from medcl.contract import BAG, X  # from here on with torch
    from medcl.plugin_check.drawings import check_drawings
    from medcl.plugin_check.modules import Batch, check_modules

    few, many = (
        np.linspace(0, len(samples) - 1, min(len(samples), n)).astype(np.int64)
        for n in (BATCH, MANY)
    )
    arrays = samples.read(few)
    bags = BAG in arrays
    batch = Batch(arrays, arrays[X] if bags else samples.read(many)[X], recipe)
    check_modules(plugin, batch, settings.views, ledger)
    x = None if bags else batch.arrays[X]
    check_drawings(plugin, prepared, x, settings.views, names, scratch / "drawn", ledger)
    return len(prepared.items)
