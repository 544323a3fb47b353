"""Labels from a table, joined to an index without a raw identifier leaving this module."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medcl.archive import assign, pseudonym
from medcl.archive.index import Index
from medcl.archive.scanning import LABEL
from medcl.errors import UsageError
from medcl.plugin import Samples


@dataclass(frozen=True)
class Labels:
    """Label columns by item.

    Attributes:
        rows: item id → its columns.
        columns: their names.
        notes: what did not fit, in counts.
    """

    rows: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read(path: Path, index: Index) -> Labels:
    """A table's rows by the index's items.

    Args:
        path: CSV or Parquet with a column ``key``: an item's path in the archive (with or without
            its suffix), its name, the part of a file, or else a patient whose items they all are.
        index: whose items they are.

    Raises:
        UsageError: if it is no such table, or none of its rows fits the index.
    """
    table = assign.load(table=path)
    columns = tuple(name for name in table.columns if name not in ("patient", "site"))
    named, patients = _items_by_name(index), _items_by_patient(index)
    rows: dict[str, Mapping[str, Any]] = {}
    absent = ambiguous = 0
    person = _pseudonyms(index)
    # Patients first: what is said of an item itself counts more than what is said of its patient.
    by_series, by_item = [], []
    whole = _items_by_series(index)
    for key, row in table.rows.items():
        items = named.get(key, [])
        if len(items) == 1:
            by_item.append((items[0], row))
            continue
        if not items and key in whole:
            by_series += [(item, row) for item in whole[key]]
            continue
        owned = patients.get(person.patient(key), []) if person else []
        if not owned:
            ambiguous, absent = ambiguous + bool(items), absent + (not items)
        rows |= dict.fromkeys(owned, row)
    rows |= dict(by_series) | dict(by_item)
    if not rows:
        raise UsageError(
            f"None of the {len(table.rows):,} rows of {path.name} fits an item or a patient of "
            f"{index.path}: its column 'key' should hold paths in the archive, or patients."
        )
    notes = []
    if absent:
        notes.append(f"{absent:,} of {len(table.rows):,} labels are of items that are not there.")
    if ambiguous:
        notes.append(f"{ambiguous:,} labels fit several items and were left out: give paths.")
    return Labels(rows, columns, tuple(notes))


def add(samples: Samples, labels: Labels, index: Index, fields: Iterable[str] = ()) -> Samples:
    """The samples with the table's columns, and with the index's label columns that they lack.

    ``fields`` names technical columns of the index to be taken as labels too, where there are no
    labels of that name.
    """
    found = dict(samples.labels)
    of_index = {
        name.removeprefix(LABEL): name for name in index.items.columns if name.startswith(LABEL)
    }
    of_index = {n: n for n in fields if n in index.items.columns} | of_index
    place = {item: row for row, item in enumerate(index.items["id"])}
    for name, column in of_index.items():
        if name not in found:
            values = index.items[column].to_list()
            found[name] = as_array(
                [values[place[i]] if i in place else None for i in samples.items]
            )
    for name in labels.columns:
        found[name] = as_array([labels.rows.get(i, {}).get(name) for i in samples.items])
    return replace(samples, labels=found)


def as_array(values: list[Any]) -> NDArray:
    """Numbers with NaN, or text with "", where there is nothing."""
    present = [v for v in values if v is not None]
    if present and all(isinstance(v, bool | int | float) for v in present):
        return np.array([np.nan if v is None else float(v) for v in values])
    return np.array(["" if v is None else str(v) for v in values], dtype=str)


def _items_by_name(index: Index) -> dict[str, list[str]]:
    """Every way to name an item → the items; a full path always names one."""
    exact: dict[str, list[str]] = {}
    short: defaultdict[str, list[str]] = defaultdict(list)
    for item in index.items["id"]:
        key = index.locate(item)
        exact[key] = [item]
        path, _, part = key.rpartition("#")
        file = Path(path or key)
        names = {str(file), file.with_suffix("").as_posix(), file.name, file.stem, part}
        for name in names - {"", key}:
            short[name].append(item)
    return {**short, **exact}


def _items_by_series(index: Index) -> dict[str, list[str]]:
    """A series that became several items (kernels, phases) → all of them."""
    held: defaultdict[str, list[str]] = defaultdict(list)
    for item in index.items["id"]:
        held[assign.series(index.locate(item))].append(item)
    held.pop("", None)
    return held


def _items_by_patient(index: Index) -> dict[str, list[str]]:
    held: defaultdict[str, list[str]] = defaultdict(list)
    for item, patient in index.items.select("id", "patient").iter_rows():
        held[patient].append(item)
    return held


def _pseudonyms(index: Index) -> pseudonym.Pseudonyms | None:
    """What turns a patient into its key; None where this index's secret is not at hand."""
    given = pseudonym.given(None)
    if given is not None:
        return given
    try:
        return pseudonym.own(index.path / "private", may_create=False)
    except UsageError:
        return None
