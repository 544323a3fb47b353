"""The plugin's drawings of prepared items. Private: they may show patient data."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from medcl.archive.store import Prepared, StoredArrays
from medcl.errors import UsageError
from medcl.io.failure import Failure
from medcl.io.pmap import item_seconds, pmap
from medcl.plugin import Plugin
from medcl.registry import Lazy, resolve


def look(
    prepared: Prepared, plugin: Plugin, out: Path, *, workers: int = 1
) -> tuple[int, dict[str, str]]:
    """Draw every prepared item into ``out/<item>``.

    Returns:
        the number of files written, and item → the reason why it was not drawn.

    Raises:
        UsageError: if the plugin draws nothing.
    """
    if plugin.look is None:
        raise UsageError(f"The plugin '{plugin.name}' has nothing to look at: leave --look out.")
    work = partial(_draw, plugin.look, prepared.arrays, out)
    written, failed = 0, {}
    outcomes = pmap(
        work,
        prepared.items["id"].to_list(),
        workers=workers,
        label="Drawing",
        seconds=item_seconds(),
    )
    for item, outcome in outcomes:
        if isinstance(outcome, Failure):
            failed[item] = outcome.reason
        else:
            written += outcome
    return written, failed


def _draw(target: Lazy, arrays: StoredArrays, out: Path, item: str) -> int:
    return len(resolve(target)(arrays.files(item), arrays(item), out / item))
