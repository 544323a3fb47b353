"""Tables of what a plugin measures in recordings: beats and rates, say. No model is needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import polars as pl

from medcl import ingestion
from medcl import plugin as plugins
from medcl.archive import store
from medcl.archive.stored import StoredArrays
from medcl.errors import MedclError, UsageError
from medcl.io.atomic import replacing
from medcl.io.cells import safe_frame
from medcl.io.failure import Failure
from medcl.io.pmap import item_seconds, pmap
from medcl.plugin import Plugin
from medcl.registry import Lazy, checked, did_you_mean, resolve

Format = Literal["csv", "parquet"]


@dataclass(frozen=True)
class Measured:
    """What was written.

    Attributes:
        tables: name → its rows; each is a file of that name in the folder.
        recordings: how many were measured.
        rejects: reason → how many recordings could not be used.
        findings: what was noticed of those that could → how many.
        plugin: that measured.
    """

    tables: Mapping[str, pl.DataFrame]
    recordings: int
    rejects: Mapping[str, int]
    findings: Mapping[str, int]
    plugin: Plugin


def measure(
    name: str,
    records: Sequence[Path],
    out: Path,
    *,
    plugin: str | None = None,
    prepare: Mapping[str, Any] | None = None,
    reader: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    format: Format = "parquet",
    paths: bool = False,
    workers: int = 1,
) -> Measured:
    """Prepare recordings and write the tables of one of a plugin's ``measures``.

    A recording that cannot be used costs no other.

    Args:
        name: of the measure: "beats".
        records: files, their names without suffix, and folders.
        out: the folder of the tables; each is replaced as a whole.
        plugin: whose measure; None: of the only plugin that has it.
        prepare: settings of the plugin's ``prepare``.
        reader: what the files lack, as ``medcl index --set reader.NAME=VALUE``.
        settings: of the measure itself.
        format: of the tables.
        paths: add a column with each recording's path. A path may identify a patient.
        workers: processes.

    Raises:
        UsageError: for an unknown measure or setting, or paths that do not exist or hold nothing.
        MedclError: if no recording can be used; gives the reasons.
    """
    chosen = _plugin(name, plugin)
    target = chosen.measures[name]
    given = checked(resolve(target), settings or {}, name)
    with ingestion.read_once(chosen, records, reader=reader, workers=workers) as index:
        prepared = store.prepare(index, chosen, prepare or {}, workers=workers)
        rejects = Counter(
            f"{code}: {reason}"
            for part in (index.rejects, prepared.rejects)
            for code, reason in part.select("code", "reason").iter_rows()
        )
        keys = dict(index.paths.select("id", "key").iter_rows()) if paths else {}
        found: dict[str, list[pl.DataFrame]] = {}
        done = 0
        work = partial(_measured, target, prepared.arrays, given)
        ids = prepared.items["id"].to_list()
        for item, tables in pmap(
            work, ids, workers=workers, label=name.capitalize(), seconds=item_seconds()
        ):
            if isinstance(tables, Failure):
                rejects[f"{name}: {tables.reason}"] += 1
                continue
            done += 1
            told = {"item": item, **({"path": keys[item]} if paths else {})}
            for table, columns in tables.items():
                frame = pl.DataFrame(columns)
                lead = [pl.lit(value, pl.String).alias(column) for column, value in told.items()]
                found.setdefault(table, []).append(frame.select(*lead, pl.all()))
    if not done:
        raise MedclError(f"No recording can be used: {'; '.join(rejects) or 'there is none'}")
    written = {table: pl.concat(frames) for table, frames in found.items()}
    for table, frame in written.items():
        with replacing(out / f"{table}.{format}") as temporary:
            if format == "csv":
                safe_frame(frame).write_csv(temporary)
            else:
                frame.write_parquet(temporary)
    return Measured(written, done, dict(rejects), prepared.findings, chosen)


def _measured(
    target: Lazy, arrays: StoredArrays, settings: Mapping[str, Any], item: str
) -> Mapping[str, Mapping[str, Any]]:
    tables: Mapping[str, Mapping[str, Any]] = resolve(target)(arrays(item), **settings)
    return tables


def _plugin(name: str, plugin: str | None) -> Plugin:
    """The plugin that has the measure; the given one, if it does."""
    if plugin is not None:
        known = plugins.get(plugin)
        if name not in known.measures:
            raise UsageError(
                f"The plugin '{plugin}' has no measure '{name}'. "
                f"{did_you_mean(name, known.measures)}"
            )
        return known
    have = [p for p in plugins.discover().values() if isinstance(p, Plugin) and name in p.measures]
    if len(have) != 1:
        names = ", ".join(p.name for p in have) or "none"
        raise UsageError(f"Plugins that measure '{name}': {names}. Choose one with --plugin.")
    return have[0]
