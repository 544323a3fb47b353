"""Checks of prepare and dataset on a few items: shapes, dtypes, determinism, identifiers."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from medcl.archive.index import Index
from medcl.archive.store import Prepared
from medcl.contract import BAG, COORDS, OK, TABLE, X
from medcl.plugin import Plugin, Samples
from medcl.plugin_check.finding import Ledger, Note
from medcl.plugin_check.guards import opening, same_random_state
from medcl.plugin_check.privacy import Identifiers
from medcl.registry import checked, resolve

BATCH = 6


@dataclass(frozen=True)
class Settings:
    """The sections of a recipe to run; empty ones mean the defaults of the signatures."""

    prepare: Mapping[str, Any]
    dataset: Mapping[str, Any]
    views: Mapping[str, Any]


def check_prepare(
    plugin: Plugin, index: Index, prepared: Prepared, settings: Settings, names: Identifiers
) -> Iterator[str]:
    """Compare the items' arrays in the store with a second preparation."""
    for code, reason in prepared.rejects.select("code", "reason").iter_rows():
        yield f"refuses an item that scan took ({code}: {reason})"
    prepare, spec = resolve(plugin.prepare), checked(resolve(plugin.prepare), settings.prepare, "")
    drawn: list[str] = []
    for row in prepared.items.iter_rows(named=True):
        fields = {name: row[name] for name in ("findings", *index.fields)}
        with opening(index.archive) as opened, same_random_state(drawn):
            prepared_again = prepare(index.archive, index.files(row["id"]), fields, **spec)
        if opened.written:
            yield "opens a file of the archive for writing: the archive is only read"
        stored = prepared.arrays(row["id"])
        if set(stored) != set(prepared_again):
            yield "gives arrays of other names the second time"
            continue
        for name, values in prepared_again.items():
            values = np.asarray(values)
            if values.dtype.kind == "O":
                yield f"'{name}' is an array of objects"
            elif not _same(values, np.asarray(stored[name])):
                yield f"'{name}' is another array the second time, of the same files and settings"
            if names.within(values) or names.within(name):
                yield f"'{name}' holds a patient, a site or the name of a file"
    if drawn:
        yield f"draws from the generator of {drawn[0]}, which all share"


def build_samples(plugin: Plugin, prepared: Prepared, settings: Mapping[str, Any]) -> Samples:
    """The samples of prepared items."""
    dataset = resolve(plugin.dataset)
    arguments = checked(dataset, settings, "dataset")
    samples: Samples = dataset(prepared.items, prepared.arrays, **arguments)
    return samples


def check_samples(
    plugin: Plugin, prepared: Prepared, settings: Settings, names: Identifiers
) -> Iterator[str]:
    """`Samples`: one value each, known items and patients, no identifier."""
    drawn: list[str] = []
    with same_random_state(drawn):
        samples = build_samples(plugin, prepared, settings.dataset)
    if drawn:
        yield f"draws from the generator of {drawn[0]}, which all share: take a seed as a setting"
    if not isinstance(samples, Samples):
        yield f"returns a {type(samples).__name__}, not Samples"
        return
    if not len(samples):
        yield "gives no sample: raise a MedclError that says why"
        return
    yield from _columns(samples)
    patient = dict(prepared.items.select("id", "patient").iter_rows())
    if set(samples.items) - set(patient):
        yield "items: there is one that is no item of the index"
    elif any(patient[i] != p for i, p in zip(samples.items, samples.patients, strict=True)):
        yield "patients: one is not that of the sample's item"
    if len(set(samples.ids)) < len(samples):
        yield "ids: two samples have the same"
    if _named(samples, names):
        yield "ids hold a patient, a site or the name of a file"
    if names.within(samples.facts):
        yield "facts hold a patient, a site or the name of a file"
    for name, values in samples.labels.items():
        if names.within(np.asarray(values)):
            yield f"labels: '{name}' holds a patient, a site or the name of a file"
    again = build_samples(plugin, prepared, settings.dataset)
    if list(again.ids) != list(samples.ids):
        yield "gives other samples the second time, of the same items and settings"
    yield from _tasks(plugin, prepared, settings)


def _named(samples: Samples, names: Identifiers) -> bool:
    """True if ids contain an identifier.

    A number may occur in one id by coincidence, but not in all ids of an item.
    """
    if Identifiers(frozenset(n for n in names.names if not n.isdigit())).within(list(samples.ids)):
        return True
    identified: dict[str, bool] = {}
    for item, name in zip(samples.items, samples.ids, strict=True):
        identified[item] = identified.get(item, True) and names.within(name)
    return any(identified.values())


def _columns(samples: Samples) -> Iterator[str]:
    count = len(samples)
    columns: dict[str, Any] = {"items": samples.items, "patients": samples.patients}
    columns |= {f"labels.{name}": values for name, values in samples.labels.items()}
    for name in ("groups", "locations", "weights"):
        if getattr(samples, name) is not None:
            columns[name] = getattr(samples, name)
    for name, values in columns.items():
        if len(values) != count:
            yield f"{name} has {len(values)} entries for {count} samples"
    if samples.weights is not None and not (np.asarray(samples.weights) > 0).all():
        yield "weights must all be above zero"
    if samples.where is not None:
        rows = np.arange(min(count, BATCH))
        for name, values in samples.where(rows).items():
            if np.shape(values) != (len(rows),):
                yield f"where: '{name}' is of shape {np.shape(values)} for {len(rows)} samples"


def _tasks(plugin: Plugin, prepared: Prepared, settings: Settings) -> Iterator[str]:
    for name, task in plugin.tasks.items():
        try:
            samples = build_samples(plugin, prepared, {**settings.dataset, **task.dataset})
        except Exception as error:
            yield Note(f"task '{name}' has no samples here ({error})")
            continue
        if task.label not in samples.labels:
            yield Note(f"task '{name}': these samples have no label '{task.label}'")


def check_read(samples: Samples) -> Iterator[str]:
    """``read``: picklable; a sample does not depend on the others; no memory is shared."""
    read = pickle.loads(pickle.dumps(samples.read))
    rows = np.linspace(0, len(samples) - 1, min(len(samples), BATCH)).astype(np.int64)
    drawn: list[str] = []
    with same_random_state(drawn):
        batch = samples.read(rows)
    if drawn:
        yield f"draws from the generator of {drawn[0]}: augmentation belongs in views"
    if X not in batch:
        yield f"gives no '{X}'"
        return
    bags = BAG in batch
    x = np.asarray(batch[X])
    if x.dtype != np.float32:
        yield f"'{X}' is {x.dtype}, not float32"
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        yield f"'{X}' holds values that are no numbers"
    if bags:
        yield from _bags(samples, batch, len(rows))
    for name, values in batch.items():
        inside = bags and (name == BAG or name in samples.instances)
        if not inside and len(values) != len(rows):
            yield f"'{name}' has {len(values)} entries for {len(rows)} samples"
    if not _equal(batch, read(rows)):
        yield "gives something else after it was pickled, or the second time"
    if not bags:
        reversed_batch = samples.read(rows[::-1].copy())
        if not _equal({n: np.asarray(v)[::-1] for n, v in reversed_batch.items()}, batch):
            yield "a sample depends on those that are read with it, or on their order"
    original = {name: np.array(values) for name, values in batch.items()}
    for values in batch.values():
        if values.flags.writeable:
            values[...] = 0
    if not _equal(samples.read(rows), original):
        yield "gives arrays that it reads from itself: a change of a batch changes later ones"
    yield from _keys(original, len(rows), bags)


def _bags(samples: Samples, batch: Mapping[str, np.ndarray], count: int) -> Iterator[str]:
    bag = np.asarray(batch[BAG])
    if batch[X].ndim != 2:
        yield f"'{X}' of bags is (I, F), here it is {batch[X].shape}"
    if bag.dtype.kind not in "iu" or not np.array_equal(np.unique(bag), np.arange(count)):
        yield f"'{BAG}' must hold each of 0 … {count - 1}, for {count} bags"
    elif (np.diff(bag) < 0).any():
        yield f"'{BAG}' must ascend: the bags lie one after the other"
    for name in samples.instances:
        if name in batch and len(batch[name]) != len(bag):
            yield f"'{name}' has {len(batch[name])} entries for {len(bag)} instances"


def _keys(batch: Mapping[str, np.ndarray], count: int, bags: bool) -> Iterator[str]:
    if OK in batch and batch[OK].dtype != bool:
        yield f"'{OK}' is {batch[OK].dtype}, not bool"
    if COORDS in batch and (batch[COORDS].ndim != 2 or batch[COORDS].shape[1] != 2):
        yield f"'{COORDS}' is {batch[COORDS].shape}: an x and a y each"
    if TABLE in batch and (batch[TABLE].ndim != 2 or batch[TABLE].dtype != np.float32):
        yield f"'{TABLE}' is {batch[TABLE].shape} {batch[TABLE].dtype}, not (B, columns) float32"
    if not bags and batch[X].ndim < 2:
        yield f"'{X}' is {batch[X].shape}: a sample is a single number"


def _equal(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> bool:
    return set(first) == set(second) and all(
        _same(np.asarray(values), np.asarray(second[name])) for name, values in first.items()
    )


def _same(first: np.ndarray, second: np.ndarray) -> bool:
    return (
        first.shape == second.shape
        and first.dtype == second.dtype
        and np.array_equal(first, second, equal_nan=first.dtype.kind == "f")
    )


def run_checks(
    plugin: Plugin,
    index: Index,
    prepared: Prepared,
    settings: Settings,
    names: Identifiers,
    ledger: Ledger,
) -> Samples | None:
    """Run all checks of this module. Returns the samples, if they can be used."""
    ledger.run(
        "prepare",
        lambda: check_prepare(plugin, index, prepared, settings, names),
        "same files and settings, same arrays",
    )
    if not ledger.run(
        "dataset",
        lambda: check_samples(plugin, prepared, settings, names),
        "a value for each sample, no identifier",
    ):
        return None
    samples = build_samples(plugin, prepared, settings.dataset)
    fine = ledger.run("dataset.read", lambda: check_read(samples), "picklable, nothing shared")
    return samples if fine else None


def some(index: Index, count: int) -> Index:
    """The index restricted to a few items, of different patients if possible."""
    from dataclasses import replace

    first = index.items.sort("id").with_columns(
        nth=pl.int_range(pl.len()).over("patient"),
    )
    return replace(index, items=first.sort("nth", "id").drop("nth").head(count))
