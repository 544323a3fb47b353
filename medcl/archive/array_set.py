"""A public set in one ``.npz``: images and labels of its official parts, in MedMNIST's form.

``train_images`` (N, …) uint8, ``train_labels`` (N,), (N, 1) or (N, L), and the same of ``val`` and
``test``; Yang et al. 2023, MedMNIST v2, doi 10.1038/s41597-022-01721-8. Whose image is whose is not
published, so that an item, and a patient, is a block of `BLOCK` images. The column ``part`` says
where an item is from: ``split: {given: part}`` in a recipe is the official split.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from medcl.errors import MedclError
from medcl.plugin import MEMBER, Record

SOURCE = "medmnist"
"""The column ``source`` of such items."""
PARTS = ("train", "val", "test")
BLOCK = 16
_LIMIT = 64 * 1024**3


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Part → shape of its images, from the headers of the arrays.

    Raises:
        MedclError: ``code: reason``, if it is no such file, or its arrays do not fit.
    """
    found: dict[str, tuple[int, ...]] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                with archive.open(info) as handle:
                    version = np.lib.format.read_magic(handle)
                    read = getattr(np.lib.format, f"read_array_header_{version[0]}_{version[1]}")
                    shape, _, kind = read(handle)
                    size = kind.itemsize * int(np.prod(shape, dtype=object))
                    if kind.hasobject or size > _LIMIT:
                        raise MedclError("not-a-benchmark: an array of objects, or of absurd size.")
                    if info.file_size - handle.tell() < size:
                        raise MedclError("unreadable: an array is cut off. Download it again.")
                    name = info.filename.removesuffix(".npy")
                    if name.endswith("_images") and kind != np.uint8:
                        raise MedclError(f"not-a-benchmark: {name} are {kind}, not of 8 bits.")
                    found[name] = shape
    except MedclError:
        raise
    except Exception as error:
        raise MedclError(f"unreadable: it is no .npz file ({type(error).__name__}).") from error
    for part in PARTS:
        images, labels = found.get(f"{part}_images"), found.get(f"{part}_labels")
        if images is None or labels is None or len(images) < 3:
            raise MedclError(f"not-a-benchmark: it lacks {part}_images or {part}_labels.")
        if labels[:1] != images[:1] or len(labels) not in (1, 2):
            raise MedclError(f"not-a-benchmark: {part}_labels do not fit {part}_images.")
    return {part: found[f"{part}_images"] for part in PARTS}


def blocks(path: str, images: Mapping[str, tuple[int, ...]]) -> Iterator[tuple[Record, int]]:
    """A record for each block of a file, and how many images it holds.

    Args:
        path: of the file in the archive.
        images: see `shapes`.
    """
    for part in PARTS:
        count = images[part][0]
        for first in range(0, count, BLOCK):
            name = f"{part}/{first:06d}"
            yield (
                Record(
                    key(path, part, first),
                    (f"{path}{MEMBER}{name}",),
                    f"{PurePosixPath(path).stem}/{name}",
                    None,
                    {"source": SOURCE, "part": part},
                ),
                min(BLOCK, count - first),
            )


def key(path: str, part: str, number: int) -> str:
    """The key of the item that holds an image, by its number in the part."""
    return f"{path}#{part}/{number // BLOCK * BLOCK:06d}"


def read(root: Path, file: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (n, …) of a block, by its entry of `Record.files`, and labels (n,) or (n, L)."""
    path, _, name = file.partition(MEMBER)
    part, first = name.split("/")
    here = slice(int(first), int(first) + BLOCK)
    return _images(root / path, part)[here], labels(root / path, part)[here]


def labels(path: Path, part: str) -> NDArray[np.int64]:
    """The labels of a part: (N,) class codes, or (N, L) of 1 and 0.

    Raises:
        MedclError: if one is no whole number.
    """
    with np.load(path, allow_pickle=False) as arrays:
        held = arrays[f"{part}_labels"]
    if held.dtype.kind not in "iub" or (held.size and held.min() < 0):
        raise MedclError(f"{path.name}: {part}_labels are no codes of classes ({held.dtype}).")
    return np.asarray(held[:, 0] if held.ndim == 2 and held.shape[1] == 1 else held, np.int64)


@lru_cache(maxsize=1)
def _images(path: Path, part: str) -> NDArray[np.uint8]:
    """One part of a file; kept, since its blocks are asked for one after the other."""
    with np.load(path, allow_pickle=False) as arrays:
        images: NDArray[np.uint8] = arrays[f"{part}_images"]
    return images
