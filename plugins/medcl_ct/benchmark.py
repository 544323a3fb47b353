"""MedMNIST files of CT (OrganAMNIST, OrganCMNIST, OrganSMNIST, OrganMNIST3D, NoduleMNIST3D).

Yang et al. 2023, MedMNIST v2, doi 10.1038/s41597-022-01721-8. The file is the user's; one
``.npz`` of any released size holds ``train_images`` (N, H, W) or (N, D, H, W) uint8,
``train_labels`` (N, 1), and the same of ``val`` and ``test``. The column ``part`` says which of
them an item is from: ``split: {given: part}`` in a recipe is the official split.

Whose image is whose is not published, so that an item, and a patient, is a block of 16 images.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from medcl.errors import MedclError
from medcl.plugin import MEMBER, Record, Reject

PARTS = ("train", "val", "test")
BLOCK = 16
_LIMIT = 64 * 1024**3

# The HU that 0 and 255 stand for: the abdominal window of the organ files' makers; of the nodule
# file it is not published, and the usual window of the lung is taken.
_WINDOWS = {"organ": (-160.0, 240.0), "nodule": (-1350.0, 150.0)}


def scan(root: Path, path: str) -> Iterator[Record | Reject]:
    """The blocks of a file, from the headers of its arrays."""
    try:
        shapes = _shapes(root / path)
        task = _task(path)
        rows = list(_blocks(path, shapes, task))
    except MedclError as error:
        code, _, reason = str(error).partition(": ")
        yield Reject(path, code, reason)
        return
    yield from rows


def _task(path: str) -> str:
    name = PurePosixPath(path).name.lower()
    for task in _WINDOWS:
        if name.startswith(task):
            return task
    known = "organamnist, organcmnist, organsmnist, organmnist3d, nodulemnist3d"
    raise MedclError(f"not-ct: an .npz that is named like none of {known}.")


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Array name → shape, without reading the arrays.

    Raises:
        MedclError: ``code: reason``, if it is no such file.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                with archive.open(info) as handle:
                    version = np.lib.format.read_magic(handle)
                    read = getattr(np.lib.format, f"read_array_header_{version[0]}_{version[1]}")
                    shape, _, kind = read(handle)
                    if kind.hasobject or kind.itemsize * int(np.prod(shape)) > _LIMIT:
                        raise MedclError("not-a-benchmark: an array of objects, or of absurd size.")
                    shapes[info.filename.removesuffix(".npy")] = shape
    except MedclError:
        raise
    except Exception as error:
        raise MedclError(f"unreadable: it is no .npz file ({type(error).__name__}).") from error
    for part in PARTS:
        images, labels = shapes.get(f"{part}_images"), shapes.get(f"{part}_labels")
        if images is None or labels is None or len(images) not in (3, 4):
            raise MedclError(f"not-a-benchmark: it lacks {part}_images or {part}_labels.")
        if labels not in ((images[0], 1), (images[0],)):
            raise MedclError(f"not-a-benchmark: {part}_labels do not fit {part}_images.")
    return shapes


def _blocks(path: str, shapes: Mapping[str, tuple[int, ...]], task: str) -> Iterator[Record]:
    for part in PARTS:
        count, *size = shapes[f"{part}_images"]
        for first in range(0, count, BLOCK):
            name = f"{part}/{first:06d}"
            yield Record(
                f"{path}#{name}",
                (f"{path}{MEMBER}{name}",),
                f"{PurePosixPath(path).stem}/{name}",
                None,
                {
                    "source": "medmnist",
                    "task": task,
                    "part": part,
                    "slices": min(BLOCK, count - first) if len(size) == 2 else size[0],
                    "rows": size[-2],
                    "columns": size[-1],
                },
            )


def load(root: Path, file: str, fields: Mapping[str, object]) -> dict[str, np.ndarray]:
    """A block's images as HU and their labels, as `medcl_ct.prepare.prepare` stores them."""
    path, _, name = file.partition(MEMBER)
    part, first = name.split("/")
    here = slice(int(first), int(first) + BLOCK)
    images, labels = _arrays(root / path, part)
    low, high = _WINDOWS[str(fields["task"])]
    hu = np.rint(low + images[here].astype(np.float32) * ((high - low) / 255)).astype(np.int16)
    volumes: Sequence[Any] = [hu] if hu.ndim == 3 else list(hu)  # slices of one stack, or volumes
    arrays = {f"hu{n}": volume for n, volume in enumerate(volumes)}
    return arrays | {"label": labels[here].reshape(-1).astype(np.int64)}


@lru_cache(maxsize=1)
def _arrays(path: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """One part of a file; kept, since its blocks are asked for one after the other."""
    with np.load(path, allow_pickle=False) as arrays:
        return arrays[f"{part}_images"], arrays[f"{part}_labels"]
