"""The grey files of MedMNIST v2: slices of organs, X-rays, OCT and more in 2D, boxes in 3D.

See `medcl.archive.array_set`. The file is the user's, of any released size: ``NAME.npz`` holds
images (N, H, W) or (N, D, H, W) of 8 bits; the name says which. Those of CT get the HU that 0 and
255 stand for, as published or guessed (finding ``guessed-window``); the others have no unit, and
are laid on the window of the abdomen, so that encoders see all of them in one range (finding
``grey-not-hu``). Files in colour are `medcl_pathology`'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medcl.archive import array_set
from medcl.errors import MedclError
from medcl.plugin import Record, Reject

TASKS = {
    "organ": ("organ", 2),  # OrganMNIST_Axial … of version 1 too
    "organmnist3d": ("organ", 3),
    "nodulemnist3d": ("nodule", 3),
    "adrenalmnist3d": ("adrenal", 3),
    "fracturemnist3d": ("fracture", 3),
    "vesselmnist3d": ("vessel", 3),
    "synapsemnist3d": ("synapse", 3),
    "chestmnist": ("chest", 2),
    "pneumoniamnist": ("pneumonia", 2),
    "octmnist": ("oct", 2),
    "breastmnist": ("breast", 2),
    "tissuemnist": ("tissue", 2),
}
"""How a file's name begins → its label, and axes of an image."""
CHEST = (
    "atelectasis", "cardiomegaly", "effusion", "infiltration", "mass", "nodule", "pneumonia",
    "pneumothorax", "consolidation", "edema", "emphysema", "fibrosis", "pleural", "hernia",
)  # fmt: skip
"""The labels of ChestMNIST, of which an image may have several."""

# The HU that 0 and 255 stand for: the abdominal window of the organ files' makers; of the nodule
# and fracture files it is not published, and usual windows of lung and bone are taken.
_ABDOMEN = (-160.0, 240.0)
_WINDOWS = {"organ": _ABDOMEN, "nodule": (-1350.0, 150.0), "fracture": (-450.0, 1050.0)}
_FINDINGS = {"organ": (), "nodule": ("guessed-window",), "fracture": ("guessed-window",)}


def scan(root: Path, path: str) -> Iterator[Record | Reject]:
    """The blocks of a file, from the headers of its arrays."""
    try:
        task, axes = _task(path)
        shapes = array_set.shapes(root / path)
        if wrong := next((s for s in shapes.values() if len(s) != axes + 1), None):
            raise MedclError(f"not-a-benchmark: images of shape {wrong[1:]}, not of {axes} axes.")
        rows = list(_blocks(path, shapes, task))
    except MedclError as error:
        code, _, reason = str(error).partition(": ")
        yield Reject(path, code, reason)
        return
    yield from rows


def _task(path: str) -> tuple[str, int]:
    name = PurePosixPath(path).name.lower()
    known = max((stem for stem in TASKS if name.startswith(stem)), key=len, default=None)
    if known is None:
        raise MedclError("not-ct: an .npz that is named like no grey file of MedMNIST.")
    return TASKS[known]


def _blocks(path: str, shapes: Mapping[str, tuple[int, ...]], task: str) -> Iterator[Record]:
    for record, count in array_set.blocks(path, shapes):
        size = shapes[str(record.fields["part"])][1:]
        fields = {
            **record.fields,
            "task": task,
            "slices": count if len(size) == 2 else size[0],
            "rows": size[-2],
            "columns": size[-1],
        }
        yield replace(record, fields=fields, findings=_FINDINGS.get(task, ("grey-not-hu",)))


def load(root: Path, file: str, fields: Mapping[str, object]) -> dict[str, np.ndarray]:
    """A block's images as HU and their labels, as `medcl_ct.prepare.prepare` stores them."""
    images, labels = array_set.read(root, file)
    low, high = _WINDOWS.get(str(fields["task"]), _ABDOMEN)
    hu = np.rint(low + images.astype(np.float32) * ((high - low) / 255)).astype(np.int16)
    volumes: Sequence[Any] = [hu] if hu.ndim == 3 else list(hu)  # slices of one stack, or volumes
    return {f"hu{n}": volume for n, volume in enumerate(volumes)} | {"label": labels}


def labels(task: str, label: NDArray[np.int64]) -> dict[str, int]:
    """The label columns of one image: its class, or of several labels one column each."""
    if label.ndim == 0:
        return {task: int(label)}
    names = CHEST if len(label) == len(CHEST) else range(len(label))
    return {f"{task}.{name}": int(value) for name, value in zip(names, label, strict=True)}
