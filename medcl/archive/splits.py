"""Training and test split, always by whole patients or whole sites.

The split depends on the patients, the seed and the labels only, not on the order of rows: patients
are ordered by a hash of (seed, patient), so it is the same on every machine.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal

import polars as pl

from medcl.archive.scanning import LABEL
from medcl.errors import MedclError, UsageError
from medcl.registry import did_you_mean


def split(
    items: pl.DataFrame,
    *,
    by: Literal["patient", "site"] = "patient",
    test: float = 0.3,
    folds: int | None = None,
    fold: int = 0,
    stratify: str | None = None,
    seed: int = 0,
    given: str | None = None,
) -> dict[str, str]:
    """Patient key → "train" or "test".

    Whole groups are assigned: a group is a patient, or with ``by="site"`` all patients of a site;
    two sites that share a patient are one group. Groups are sorted by stratum, in random order
    within it, and each goes to the part (or fold) that is furthest below its share so far. So each
    part has its share of every stratum to about one group, and at least one group.

    Args:
        items: columns ``patient``, ``site`` if needed, and the label column.
        by: the unit that must not be in both parts.
        test: share of patients for testing; ignored if ``folds`` is set.
        folds: number of folds for cross-validation.
        fold: the test fold; over all folds, every patient is tested once.
        stratify: a label column (``"sex"`` or ``"label.sex"``). A patient's stratum is the rarest
            of its labels, counted over patients, so that patients with a rare finding are spread
            evenly; a group's stratum is the most frequent of its patients'. Patients without any
            label are a separate stratum.
        seed: of the random order.
        given: a column with a published split: "train" and "test"; patients of other parts ("val")
            are left out. The other arguments are ignored.

    Raises:
        UsageError: for an unknown label column, a fold out of range, or a share outside (0, 1).
        MedclError: for fewer groups than parts, or items without a site.
    """
    if given is not None:
        return _given(items, given)
    shares = _shares(test, folds, fold)
    groups = _groups(items, by)
    if len(groups) < len(shares):
        what = "patients" if by == "patient" else "sites that share no patient"
        raise MedclError(
            f"{len(groups)} {what} cannot be split into {len(shares)} parts: index more of them, "
            f"or ask for fewer folds{' or by: patient' if by == 'site' else ''}."
        )
    strata = _strata(items, groups, stratify)
    order = sorted(groups, key=lambda g: (strata[g[0]], -len(g), _draw(seed, g[0])))
    parts = _deal(order, shares)
    tested = set(parts[fold if folds else 1])
    return {
        patient: "test" if patient in tested else "train"
        for group in sorted(groups)
        for patient in group
    }


def assert_disjoint(train: Iterable[str], test: Iterable[str], what: str = "patient") -> None:
    """Check that training and test set have no patient (or site) in common.

    Args:
        train: patient (or site) keys of the training set; repeats are allowed.
        test: those of the test set.
        what: the unit of the keys, for the message.

    Raises:
        MedclError: with the number of common keys.
    """
    shared = set(train) & set(test)
    if shared:
        raise MedclError(
            f"{len(shared)} {what}{'s are' if len(shared) > 1 else ' is'} in training and in test: "
            "metrics would be optimistic. Split again with medcl.archive.splits.split."
        )


def _given(items: pl.DataFrame, column: str) -> dict[str, str]:
    """The split given by a column of the index."""
    if column not in items.columns:
        hint = did_you_mean(column, items.columns)
        raise UsageError(f"split.given: the index has no column '{column}'. {hint}")
    pairs = items.select("patient", pl.col(column).alias("part")).unique()
    pairs = pairs.filter(pl.col("part").is_in(["train", "test"]))
    parts = dict(pairs.iter_rows())
    if len(parts) < len(pairs):
        raise MedclError(f"split.given: the column '{column}' puts a patient into train and test.")
    if set(parts.values()) != {"train", "test"}:
        raise UsageError(f"split.given: the column '{column}' does not name 'train' and 'test'.")
    return dict(sorted(parts.items()))


def _shares(test: float, folds: int | None, fold: int) -> list[float]:
    """The share of each part: train and test, or equal folds."""
    if folds is None:
        if not 0 < test < 1:
            raise UsageError(f"split.test = {test}: give a share between 0 and 1.")
        return [1 - test, test]
    if folds < 2 or not 0 <= fold < folds:
        raise UsageError(f"split.fold = {fold} of {folds}: with folds=K, fold is 0 … K-1, K ≥ 2.")
    return [1 / folds] * folds


def _groups(items: pl.DataFrame, by: str) -> list[tuple[str, ...]]:
    """Patients that must stay together, each group sorted."""
    patients = sorted(set(items["patient"]))
    if by == "patient":
        return [(patient,) for patient in patients]
    lacking = items.filter(pl.col("site").is_null())["patient"].n_unique()
    if lacking:
        raise MedclError(
            f"A split by site needs every item's site; {lacking} patients have items without. "
            "Name sites when indexing (--patient-from or --table), or split by patient."
        )
    return _connected(items.select("patient", "site").unique())


def _connected(pairs: pl.DataFrame) -> list[tuple[str, ...]]:
    """Connected components of the graph of patients and their sites (union-find)."""
    parent: dict[str, str] = {}

    def root(node: str) -> str:
        while parent.setdefault(node, node) != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for patient, site in pairs.iter_rows():
        parent[root(f"patient {patient}")] = root(f"site {site}")
    members: dict[str, set[str]] = {}
    for patient in pairs["patient"]:
        members.setdefault(root(f"patient {patient}"), set()).add(patient)
    return sorted(tuple(sorted(group)) for group in members.values())


def _strata(
    items: pl.DataFrame, groups: Sequence[tuple[str, ...]], stratify: str | None
) -> dict[str, tuple[int, str]]:
    """First patient of a group → its stratum, rarest strata first."""
    if stratify is None:
        return {group[0]: (0, "") for group in groups}
    column = stratify if stratify in items.columns else LABEL + stratify
    if column not in items.columns:
        labels = [name for name in items.columns if name.startswith(LABEL)]
        raise UsageError(f"No label column '{stratify}'. {did_you_mean(LABEL + stratify, labels)}")
    pairs = items.select("patient", pl.col(column).cast(pl.String)).drop_nulls().unique()
    count = Counter(pairs[column])
    rarest: dict[str, tuple[int, str]] = {}
    for patient, label in pairs.iter_rows():
        rank = (count[label], label)
        rarest[patient] = min(rarest.get(patient, rank), rank)
    unlabelled = (len(items) + 1, "")
    strata = {}
    for group in groups:
        votes = Counter(rarest.get(patient, unlabelled) for patient in group)
        strata[group[0]] = min(votes, key=lambda rank: (-votes[rank], rank))
    return strata


def _draw(seed: int, patient: str) -> str:
    return hashlib.sha256(f"{seed}\0{patient}".encode()).hexdigest()


def _deal(order: Sequence[tuple[str, ...]], shares: Sequence[float]) -> list[list[str]]:
    """Give each group to the part that is furthest below its share of the patients so far."""
    parts: list[list[str]] = [[] for _ in shares]
    dealt = 0
    for position, group in enumerate(order):
        dealt += len(group)
        empty = [n for n, part in enumerate(parts) if not part]
        if len(order) - position <= len(empty):  # the last groups fill the empty parts
            part = empty[0]
        else:
            part = max(range(len(parts)), key=lambda n: shares[n] * dealt - len(parts[n]))
        parts[part] += group
    return parts
