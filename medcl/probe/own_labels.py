"""A user's own labels for a probe: of samples, of items or of patients.

The table says which: ids of samples or spans of time label samples; the name of an item labels the
item; the name of a patient, the patient. An item or patient is represented by the mean features of
its samples. Splits and intervals are by patient in all three.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medcl import manifest
from medcl.archive.index import Index
from medcl.archive.splits import split as draw
from medcl.errors import UsageError
from medcl.labels import samples_table
from medcl.labels import table as tables
from medcl.labels import target as targets
from medcl.labels.target import SURVIVAL, Target
from medcl.metrics.metrics import Floats, Kind
from medcl.plugin import Samples
from medcl.recipe import Finetune
from medcl.registry import did_you_mean
from medcl.run import Run, load_samples

Level = Literal["sample", "item", "patient"]


@dataclass(frozen=True)
class OwnLabels:
    """The label that a user asks for.

    Attributes:
        tables: CSV or Parquet; none for a label column of the index.
        columns: the label; several columns of 1 and 0 are one multilabel target. None named: the
            table's only column, or the one named label.
        kind: of problem, or "auto" by the values.
        classes: in their order; of two, the second is the positive one. Empty: all that occur.
        key_column, patient_column: of the tables, if they have none of the usual names.
    """

    tables: tuple[Path, ...] = ()
    columns: tuple[str, ...] = ()
    kind: Kind | Literal["auto"] = "auto"
    classes: tuple[str, ...] = ()
    key_column: str | None = None
    patient_column: str | None = None

    def made_of(self) -> dict[str, Any]:
        """What determines the labels."""
        asked = {name: value for name, value in vars(self).items() if name != "tables"}
        return {**asked, "tables": [manifest.of_file(path) for path in self.tables]}


@dataclass(frozen=True)
class Labelled:
    """Samples, and the labels of the units that they belong to.

    Attributes:
        samples: N, each of a labelled unit.
        target: of the M units.
        label: its name.
        by: what a unit is.
        unit: (N,) the unit of each sample.
        ids, patients: (M,) of the units.
        of_index: (M,) their patients as the index knows them: the split is by these. A table may
            name others.
        notes: for the reader of the figures.
    """

    samples: Samples
    target: Target
    label: str
    by: Level
    unit: NDArray[np.int64]
    ids: Sequence[str]
    patients: NDArray
    of_index: NDArray
    notes: tuple[str, ...] = ()

    def pooled(self, x: Floats) -> NDArray[np.float32]:
        """Features (N, D) of samples → (M, D): means over each unit."""
        if self.by == "sample":
            return np.asarray(x, np.float32)
        total = np.zeros((len(self.ids), x.shape[1]), np.float64)
        np.add.at(total, self.unit, x)
        count = np.bincount(self.unit, minlength=len(self.ids))
        return (total / count[:, None]).astype(np.float32)


def by_sample(
    samples: Samples,
    target: Target,
    label: str,
    notes: Sequence[str] = (),
    of_index: Sequence[str] | None = None,
) -> Labelled:
    """The samples that carry a label, each a unit of its own; ``of_index``: see `Labelled`.

    Raises:
        UsageError: if none does.
    """
    rows = np.flatnonzero(target.known)
    if not len(rows):
        raise UsageError(f"No sample carries the label '{label}'.")
    kept = samples.at(rows)
    return Labelled(
        kept,
        target.at(rows),
        label,
        "sample",
        np.arange(len(rows)),
        kept.ids,
        np.asarray(kept.patients),
        np.asarray(samples.patients if of_index is None else of_index)[rows],
        tuple(notes),
    )


def labelled(run: Run, data: Path, task: str | None, own: OwnLabels) -> Labelled:
    """The samples of an index whose sample, item or patient carries the label.

    Args:
        run: its recipe makes the samples.
        data: the index.
        task: whose samples; None for those of pretraining.
        own: the label.

    Raises:
        UsageError: for a table that does not match, a missing column, or no label.
        MedclError: for labels of the wrong kind.
    """
    index = Index.open(data)
    samples = load_samples(run.recipe, data, task=task)
    of_index = samples.patients
    samples, names, by, notes = _with_columns(samples, index, own)
    columns = own.columns or tuple(filter(None, [tables.only(names)]))
    if not columns:
        raise UsageError(
            "Which column is the label? Name it: --label-column (label_column=). "
            + did_you_mean("", names or samples.labels)
        )
    several = len(columns) > 1
    if several and own.kind not in ("auto", "multilabel"):
        raise UsageError(f"Several label columns are a multilabel target, not {own.kind}.")
    if own.kind in SURVIVAL:
        raise UsageError(f"A probe has no {own.kind} target: train with labels, medcl finetune.")
    settings = Finetune(
        label=None if several else columns[0],
        kind="multilabel" if several else own.kind,
        classes=columns if several else own.classes,
    )
    target = targets.finetune_target(samples, settings)
    label = "+".join(columns)
    found = by_sample(samples, target, label, notes, of_index)
    return found if by == "sample" else _united(found, by)


def _with_columns(
    samples: Samples, index: Index, own: OwnLabels
) -> tuple[Samples, tuple[str, ...], Level, tuple[str, ...]]:
    """The samples with the tables' label columns; their names; whose they are; and notes."""
    if len(own.tables) == 1:
        named = samples_table.read(own.tables[0], index, samples, key_column=own.key_column)
        if named is not None:
            columns = {name: tables.as_array(list(v)) for name, v in named.columns.items()}
            labels = {**samples.labels, **columns}
            return replace(samples, labels=labels), tuple(columns), "sample", named.notes
    table = tables.Labels()
    if own.tables:
        table = tables.read(
            own.tables,
            index,
            among=frozenset(samples.items),
            key_column=own.key_column,
            patient_column=own.patient_column,
        )
    own_columns = samples.labels.keys()
    samples = tables.with_patients(tables.add(samples, table, index), table)
    if not own.tables:
        by: Level = "sample" if set(own.columns) & own_columns else "item"
        return samples, tuple(samples.labels), by, ()
    return samples, table.columns, "patient" if table.of_patients else "item", table.notes


def _united(found: Labelled, by: Level) -> Labelled:
    """Items or patients as units: all samples of one have the same label."""
    owners = found.samples.items if by == "item" else found.samples.patients
    ids, first, unit = np.unique(np.asarray(owners), return_index=True, return_inverse=True)
    return replace(
        found,
        target=found.target.at(first),
        by=by,
        unit=unit.astype(np.int64),
        ids=ids.tolist(),
        patients=found.patients[first],
        of_index=found.of_index[first],
    )


def split_of(run: Run, data: Path) -> dict[str, str]:
    """Patient of an index → "train" or "test": the run's split; for other patients one is drawn.

    It is drawn as the run's was. Patients that pretraining used are never tested.
    """
    own = run.split()
    items = Index.open(data).items
    if set(items["patient"]) <= own.keys():
        return own
    settings = run.recipe.split.drawn()
    if settings.get("given") not in items.columns:
        settings["given"] = None
    if settings.get("stratify") not in items.columns:
        settings["stratify"] = None
    if settings.get("by") == "site" and items["site"].null_count():
        settings["by"] = "patient"
    seen = run.pretrained_on()
    drawn = draw(items, **settings)
    return {patient: "train" if patient in seen else part for patient, part in drawn.items()}
