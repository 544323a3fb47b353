"""The files of MedMNIST v2 in colour, as tiles: Path-, Derma-, Blood- and RetinaMNIST.

See `medcl.archive.array_set`. The file is the user's, of any released size: images (N, H, W, 3) of
8 bits. Skin and fundus are no stained tissue: views that shift stains, and stain features, mean
nothing for them. Files in grey are `medcl_ct`'s.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from medcl.archive import array_set
from medcl.errors import MedclError
from medcl.plugin import NO_PATIENT, Record, Reject

TASKS = {
    "pathmnist": "path",
    "dermamnist": "derma",
    "bloodmnist": "blood",
    "retinamnist": "retina",
}
"""How a file's name begins → its label."""


def task(path: str) -> str | None:
    """The label of a file of this form, by its name; None for others."""
    name = PurePosixPath(path).name.lower()
    if not name.endswith(".npz"):
        return None
    return next((label for stem, label in TASKS.items() if name.startswith(stem)), None)


def scan(root: Path, path: str) -> Iterator[Record | Reject]:
    """The blocks of a file, from the headers of its arrays."""
    try:
        shapes = array_set.shapes(root / path)
        if wrong := next((s for s in shapes.values() if len(s) != 4 or s[3] != 3), None):
            raise MedclError(f"not-a-benchmark: images of shape {wrong[1:]}, not (H, W, 3).")
    except MedclError as error:
        code, _, reason = str(error).partition(": ")
        yield Reject(path, code, reason)
        return
    for record, count in array_set.blocks(path, shapes):
        _, height, width, _ = shapes[str(record.fields["part"])]
        fields = {
            **record.fields,
            "kind": "tile",
            "task": task(path),
            "tiles": count,
            "width": width,
            "height": height,
            "levels": 1,
            "stain": "unknown",
        }
        yield replace(record, fields=fields, findings=(NO_PATIENT, "unscaled-tile"))


def load(root: Path, file: str) -> dict[str, np.ndarray]:
    """A block's images as tiles ``pixels`` (n, H, W, 3) and their ``label`` (n,)."""
    images, labels = array_set.read(root, file)
    return {"pixels": images, "label": labels}
