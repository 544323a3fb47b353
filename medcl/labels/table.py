"""Labels from a table, joined to an index; no raw identifier leaves this module."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medcl.archive import assign, labtable, pseudonym
from medcl.archive.index import Index
from medcl.archive.scanning import LABEL
from medcl.errors import UsageError
from medcl.plugin import NO_PATIENT, Plugin, Samples, discover


@dataclass(frozen=True)
class Labels:
    """Label columns by item.

    Attributes:
        rows: item id → its columns.
        columns: their names.
        patients: item id → the key of its patient, where the table names the patient.
        sites: item id → the key of its site, likewise.
        site_names: the key of a site → its name. Private.
        notes: counts of rows that did not match, and decisions made.
        of_patients: True if every row names a patient, not an item.
    """

    rows: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    patients: Mapping[str, str] = field(default_factory=dict)
    sites: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    of_patients: bool = False
    site_names: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Matched:
    """Rows of tables by item.

    Attributes:
        rows: item id → its row.
        by_patient: the items whose row names their patient.
        notes: counts of rows that did not match.
    """

    rows: Mapping[str, Mapping[str, Any]]
    by_patient: frozenset[str]
    notes: tuple[str, ...]


def read(
    path: Path | Sequence[Path],
    index: Index,
    *,
    among: Collection[str] | None = None,
    key_column: str | None = None,
    patient_column: str | None = None,
) -> Labels:
    """Match rows of tables to items of an index.

    Args:
        path: CSV or Parquet, or several of them, see `medcl.archive.assign.load`. Keys are an
            item's path in the archive (with or without its suffix), its name, the part of a file,
            or a patient (the row then holds for all items of the patient).
        index: of the items.
        among: the items in use: they decide if a key matches several items of the index.
        key_column: the column of keys, if it has none of the usual names.
        patient_column: the column of patients, likewise.

    Raises:
        UsageError: if it is not such a table, no row matches the index, or it names patients
            and the index's key is not available.
    """
    paths = [path] if isinstance(path, Path) else list(path)
    plugin = discover().get(index.plugin_name)
    table = assign.load(
        table=paths,
        key_column=key_column,
        patient_column=patient_column,
        codes=plugin.codes if isinstance(plugin, Plugin) else None,
    )
    named = items_by_name(index, among)
    table.settle(named.keys(), len(index.items))
    columns = tuple(name for name in table.columns if name not in ("patient", "site"))
    found = matched(table.rows, table.spelled, index, named, paths[0].name)
    patient_of, site_of = _patients_and_sites(found.rows, index, _pseudonyms(index))
    return Labels(
        found.rows,
        columns,
        patient_of,
        site_of,
        (*table.notes, *found.notes),
        of_patients=found.by_patient == found.rows.keys(),
        site_names={
            site_of[item]: str(row["site"]).strip()
            for item, row in found.rows.items()
            if item in site_of
        },
    )


def matched(
    table: Mapping[str, Mapping[str, Any]],
    spelled: Mapping[str, Sequence[str]],
    index: Index,
    named: Mapping[str, Sequence[str]],
    name: str,
) -> Matched:
    """Match rows to the items of an index by their keys; a key may be a patient.

    Args:
        table: key → row.
        spelled: see `medcl.archive.assign.by_spelling`.
        index: of the items.
        named: every name of an item → the items.
        name: of the table, for messages.

    Raises:
        UsageError: if no row matches.
    """
    patients, pseudonyms = _items_by_patient(index), _pseudonyms(index)
    rows: dict[str, Mapping[str, Any]] = {}
    absent = ambiguous = 0
    # Patients first: a row of an item overrides a row of its patient.
    by_series, by_item = [], []
    whole = _items_by_series(index)
    spelling: dict[str, str] = {}
    for known, (key,) in spelled.items():
        if known in named:
            spelling.setdefault(key, known)
    for key, row in table.items():
        items = named.get(key, []) or named.get(spelling.get(key, ""), [])
        if len(items) == 1:
            by_item.append((items[0], row))
            continue
        if not items and key in whole:
            by_series += [(item, row) for item in whole[key]]
            continue
        owned = patients.get(pseudonyms.patient(key), []) if pseudonyms else []
        if not owned:
            ambiguous, absent = ambiguous + bool(items), absent + (not items)
        rows |= dict.fromkeys(owned, row)
    of_patient = frozenset(rows) - {item for item, _ in by_series} - {item for item, _ in by_item}
    rows |= dict(by_series) | dict(by_item)
    if not rows and ambiguous:
        raise UsageError(
            f"{ambiguous:,} of the {len(table):,} rows of {name} match several items each: their "
            "names are in several folders. Index one of these, or give paths as keys."
        )
    if not rows:
        raise UsageError(
            f"None of the {len(table):,} rows of {name} matches an item or a "
            f"patient of {index.path}: its column 'key' (slide_id, filename, …) should hold paths "
            f"in the archive, or patients. {_one_of_each(table, named)}Name the column: "
            "--key-column NAME."
        )
    notes = []
    if absent:
        notes.append(
            f"{absent:,} of {len(table):,} labels are of items that the index does not hold."
        )
    if ambiguous:
        notes.append(f"{ambiguous:,} labels match several items and were left out: give paths.")
    return Matched(rows, of_patient, tuple(notes))


def _one_of_each(table: Mapping[str, object], named: Mapping[str, object]) -> str:
    """The form of a key of the table and of an item's name, for a message.

    Letters become a and digits 0, for both may identify a patient.
    """
    if not table or not named:
        return ""
    ours, theirs = _shape(next(iter(table))), _shape(min(named, key=len))
    return (
        f"The table has keys such as '{ours}', the index names such as '{theirs}' (a stands for a "
        "letter, 0 for a digit). "
    )


def _shape(key: str) -> str:
    return re.sub(r"[^\W\d_]", "a", re.sub(r"\d", "0", key))


def _patients_and_sites(
    rows: Mapping[str, Mapping[str, Any]], index: Index, names: pseudonym.Pseudonyms | None
) -> tuple[dict[str, str], dict[str, str]]:
    """Item → patient and item → site by the rows; all items of a group have one patient."""
    raw = {item: str(row.get("patient") or "").strip() for item, row in rows.items()}
    sites = {item: str(row.get("site") or "").strip() for item, row in rows.items()}
    if names is None and (any(raw.values()) or any(sites.values())):
        raise UsageError(
            f"The table names patients, and the key that {index.path} was made with is not "
            f"available. Give it: ${pseudonym.KEY_VARIABLE}=KEYFILE."
        )
    if names is None:
        return {}, {}
    patients = {item: names.patient(value) for item, value in raw.items() if value}
    group = dict(index.items.select("id", "group").drop_nulls().iter_rows())
    first: dict[str, str] = {}
    for item in sorted(patients):
        if item in group:
            first.setdefault(group[item], patients[item])
    patients |= {item: first[g] for item, g in group.items() if g in first}
    return patients, {item: names.site(value) for item, value in sites.items() if value}


def with_patients(samples: Samples, labels: Labels) -> Samples:
    """The samples with the table's patients in place of the index's."""
    if not labels.patients:
        return samples
    of_table = labels.patients
    pairs = zip(samples.items, samples.patients, strict=True)
    return replace(samples, patients=[of_table.get(item, patient) for item, patient in pairs])


def without_patient(index: Index, labels: Labels) -> frozenset[str]:
    """Items whose patient is unknown: each counts as a patient of its own."""
    unnamed = index.items.filter(pl.col("findings").list.contains(NO_PATIENT))["id"]
    return frozenset(unnamed) - labels.patients.keys()


def only(columns: Sequence[str], other: Iterable[str] = ()) -> str | None:
    """The label column that is meant where none is named: the only one, or the one named label."""
    columns = [name for name in columns if name not in set(other)]
    if len(columns) != 1:
        columns = [name for name in columns if name.lower() == "label"]
    return columns[0] if len(columns) == 1 else None


def add(samples: Samples, labels: Labels, index: Index, fields: Iterable[str] = ()) -> Samples:
    """The samples with the table's columns, and with the index's label columns that they lack.

    ``fields`` names technical columns of the index that serve as labels too, unless a label of
    that name exists.
    """
    columns = dict(samples.labels)
    of_index = {
        name.removeprefix(LABEL): name for name in index.items.columns if name.startswith(LABEL)
    }
    of_index = {n: n for n in fields if n in index.items.columns} | of_index
    row_of = {item: row for row, item in enumerate(index.items["id"])}
    for name, column in of_index.items():
        if name not in columns:
            values = index.items[column].to_list()
            columns[name] = as_array(
                [values[row_of[i]] if i in row_of else None for i in samples.items]
            )
    for name in labels.columns:
        columns[name] = as_array([labels.rows.get(i, {}).get(name) for i in samples.items])
    return replace(samples, labels=columns)


def as_array(values: list[Any]) -> NDArray:
    """Numbers with NaN, or text with "", where there is nothing."""
    present = [v for v in values if v is not None]
    if present and all(isinstance(v, bool | int | float) for v in present):
        return np.array([np.nan if v is None else float(v) for v in values])
    return np.array(["" if v is None else str(v) for v in values], dtype=str)


def items_by_name(index: Index, among: Collection[str] | None) -> dict[str, list[str]]:
    """Every name of an item → the items; a full path always names one.

    A name without two suffixes (``a`` of ``a.ome.tif``) counts where it is no other item's.
    """
    exact: dict[str, list[str]] = {}
    short: defaultdict[str, list[str]] = defaultdict(list)
    bare: defaultdict[str, list[str]] = defaultdict(list)
    for item in index.items["id"]:
        key = index.locate(item)
        exact[key] = [item]
        path, _, part = key.rpartition("#")
        file = Path(path or key)
        names = {str(file), file.with_suffix("").as_posix(), file.name, file.stem, part}
        for name in names - {"", key}:
            short[name].append(item)
        for name in set(labtable.spellings(path or key)) - names:
            bare[name].append(item)
    if among is not None:
        for name, items in short.items():
            if len(items) > 1 and len(used := [item for item in items if item in among]) == 1:
                short[name] = used
    return {**{name: items for name, items in bare.items() if len(items) == 1}, **short, **exact}


def _items_by_series(index: Index) -> dict[str, list[str]]:
    """A series that became several items (kernels, phases) → all of them."""
    items_of: defaultdict[str, list[str]] = defaultdict(list)
    for item in index.items["id"]:
        items_of[assign.series(index.locate(item))].append(item)
    items_of.pop("", None)
    return items_of


def _items_by_patient(index: Index) -> dict[str, list[str]]:
    items_of: defaultdict[str, list[str]] = defaultdict(list)
    for item, patient in index.items.select("id", "patient").iter_rows():
        items_of[patient].append(item)
    return items_of


def _pseudonyms(index: Index) -> pseudonym.Pseudonyms | None:
    """Maps a patient to its key; None if this index's secret is not available."""
    configured = pseudonym.given(None)
    if configured is not None and index.key_check in (None, configured.check):
        return configured
    try:
        return pseudonym.own(index.path / "private", may_create=False)
    except UsageError:
        return None
