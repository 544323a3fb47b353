"""Classes of masks by name: what a data set says of its values, one numbering for all volumes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medcl.errors import MedclError, UsageError
from medcl_ct import structures, volumes

BACKGROUND, IGNORE = "background", "ignore"
UNKNOWN = -1
_LARGEST = 2**20  # bytes of a dataset.json
Named = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Drawn:
    """What is said of an item's mask.

    Attributes:
        values: name → values of the mask.
        complete: True if the data set names all that is drawn, False if the values were found.
    """

    values: Named
    complete: bool


def drawn(files: Sequence[Path], found: Sequence[int]) -> Drawn:
    """The classes of an item's mask, by the names of its files or a ``dataset.json`` above them.

    Several masks of an item are structures, by their files' names. A single map of labels is named
    by the ``labels`` of the Medical Segmentation Decathlon or nnU-Net, or else by its values:
    "label 1". The name of a single file never names a class: it may be a patient's.

    Args:
        files: of the item, the image first.
        found: values that occur in the mask.

    Raises:
        UsageError: if a ``dataset.json`` names overlapping regions.
    """
    masks = volumes.masks([str(file) for file in files[1:]])
    if len(masks) > 1:
        return Drawn({volumes.mask_name(file): (code,) for file, code in masks}, True)
    if masks and (named := _of_dataset(Path(masks[0][0]))) is not None:
        extra = {f"label {v}": (v,) for v in found if not any(v in n for n in named.values())}
        return Drawn({**named, **extra}, True)
    return Drawn({f"label {value}": (value,) for value in found}, False)


def _of_dataset(mask: Path) -> Named | None:
    """The names in the ``dataset.json`` of the mask's data set; None without a readable one."""
    path = mask.parent.parent / "dataset.json"
    try:
        if path.stat().st_size > _LARGEST:
            return None
        labels = json.loads(path.read_text(encoding="utf-8"))["labels"]
        pairs = list(labels.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    named: dict[str, tuple[int, ...]] = {}
    for key, value in pairs:
        name, number = (str(value), key) if str(key).isdigit() else (str(key), value)
        if isinstance(number, list):
            raise UsageError(
                "The data set's dataset.json names regions that overlap. Name the classes to learn "
                "and their values: dataset.classes."
            )
        try:
            named[name] = (int(number),)
        except (TypeError, ValueError):
            return None
    return {name: values for name, values in named.items() if values != (0,)}


def shared(items: Sequence[Drawn], patients: Sequence[str]) -> list[Drawn]:
    """The same, where a name is kept only if it is anatomy or several patients have it.

    A file that one patient alone has may be named after that patient.
    """
    owners: dict[str, set[str]] = {}
    for item, patient in zip(items, patients, strict=True):
        for name in item.values:
            owners.setdefault(name, set()).add(patient)
    public = {n for n, who in owners.items() if len(who) > 1 or structures.code(n) is not None}
    return [
        Drawn(
            {
                name if name in public or name == IGNORE else f"label {values[0]}": values
                for name, values in item.values.items()
            },
            item.complete,
        )
        for item in items
    ]


@dataclass(frozen=True)
class Classes:
    """The classes of a set of masks.

    Attributes:
        names: the background first.
        tables: item number → (256,) int16: class by value of the mask, −1 where it is unknown.
    """

    names: tuple[str, ...]
    tables: NDArray[np.int16]


def classes(items: Sequence[Drawn], wanted: Named | None) -> Classes:
    """One numbering for all masks.

    Args:
        items: of each volume with a mask.
        wanted: name → values, for all masks alike: other values are background, and those of
            "ignore" unknown. None: all classes that the data set names.

    Raises:
        UsageError: if ``wanted`` has no class, or a value twice.
        MedclError: if the masks do not all draw the same classes: what one leaves out would be
            taught to be background.
    """
    if wanted is not None:
        values = [value for group in wanted.values() for value in group]
        if not set(wanted) - {IGNORE, BACKGROUND}:
            raise UsageError("dataset.classes names no class: give NAME: [values].")
        if len(values) != len(set(values)) or not all(0 <= value <= 255 for value in values):
            raise UsageError("dataset.classes: give each value from 0 to 255 to one class at most.")
        items = [Drawn(wanted, True)] * len(items)
    first = {name: min(g) for item in items for name, g in item.values.items()}
    names = sorted(set(first) - {IGNORE, BACKGROUND}, key=lambda name: (first[name], name))
    _refuse_partial(items, names)
    tables = np.zeros((len(items), 256), dtype=np.int16)
    for table, item in zip(tables, items, strict=True):
        for name, group in item.values.items():
            known = {IGNORE: UNKNOWN, BACKGROUND: 0}
            table[list(group)] = known[name] if name in known else names.index(name) + 1
    return Classes((BACKGROUND, *names), tables)


def _refuse_partial(items: Sequence[Drawn], names: Sequence[str]) -> None:
    whole = [item for item in items if item.complete]
    if len(whole) not in (0, len(items)):
        raise MedclError(
            f"The data set names what {len(whole):,} masks draw, and not of "
            f"{len(items) - len(whole):,} others: index them apart, or set dataset.classes."
        )
    lacking = Counter(name for item in whole for name in names if name not in item.values)
    if lacking:
        name, count = lacking.most_common(1)[0]
        raise MedclError(
            f"{count:,} of {len(items):,} masks do not draw '{name}' (and {len(lacking) - 1} "
            "other classes are not drawn everywhere): they would teach that it is background. "
            "Index data sets apart, or name the classes that all of them draw: dataset.classes."
        )
