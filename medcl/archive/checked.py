"""Block checksums of a memory-mapped file, and arrays that verify every byte they return."""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medcl.errors import MedclError

AGAIN = "Run the same again: it is then prepared anew."
ASIDE = ".damaged"
"""Suffix of a file that proved damaged when it was read: the item is then prepared anew."""


class Damaged(MedclError):
    """A file whose bytes differ from those written."""


class Blocks:
    """The verified blocks of a file.

    Attributes:
        size: bytes of a block.
        done: (blocks,) True for a verified block.
        left: the number of blocks not yet verified.
    """

    __slots__ = ("_buffer", "_digests", "_path", "_start", "done", "left", "size")

    def __init__(
        self, path: str, buffer: bytes | mmap.mmap, start: int, size: int, digests: bytes
    ) -> None:
        """The blocks from byte ``start`` on; ``digests`` are their SHA-256, concatenated."""
        self._path, self._buffer, self._start = path, buffer, start
        self._digests, self.size = digests, size
        self.trust(np.zeros(len(digests) // 32, dtype=bool))

    def trust(self, checked: NDArray[np.bool_]) -> None:
        """Set the blocks (blocks,) that this process has verified before."""
        self.done, self.left = checked, int((~checked).sum())

    def check(self, first: NDArray[np.int64], span: int) -> None:
        """Verify the ``span`` bytes from each file offset in ``first`` on.

        Raises:
            Damaged: if a block differs from what was written.
        """
        if not self.left:
            return
        low = (first - self._start) // self.size
        high = (first - self._start + span - 1) // self.size
        if span <= self.size and self.done[low].all() and self.done[high].all():
            return
        for first_block, last_block in np.unique(np.stack([low, high], axis=1), axis=0).tolist():
            for block in np.flatnonzero(~self.done[first_block : last_block + 1]).tolist():
                self._check(first_block + block)

    def check_all(self) -> None:
        """Verify every block: see `check`."""
        for block in np.flatnonzero(~self.done).tolist():
            self._check(block)

    def _check(self, block: int) -> None:
        first = self._start + block * self.size
        if not matches(self._buffer, first, self.size, self._digests[32 * block :][:32]):
            with contextlib.suppress(OSError):  # so that preparing finds it without a full read
                os.rename(self._path, self._path + ASIDE)
            raise damaged(self._path)
        self.done[block] = True
        self.left = int((~self.done).sum())


def matches(buffer: bytes | mmap.mmap, first: int, size: int, digests: bytes) -> bool:
    """True if the blocks of ``size`` bytes from ``first`` on have these SHA-256."""
    with memoryview(buffer) as view:
        for n in range(len(digests) // 32):
            with view[first + n * size : first + (n + 1) * size] as block:
                if hashlib.sha256(block).digest() != digests[32 * n : 32 * (n + 1)]:
                    return False
    return True


def damaged(path: str) -> Damaged:
    """The error for a file whose data differ from those written."""
    return Damaged(f"{path} is damaged: its data do not match their checksum. {AGAIN}")


class CheckedArray(np.lib.mixins.NDArrayOperatorsMixin):
    """A large array in a file. Slice it like any array: the blocks of a slice are verified first.

    Like the arrays of h5py and zarr it is not a `numpy.ndarray`, so that no byte is read unchecked.
    Slices are plain memory-mapped arrays. ``numpy.asarray``, every function of NumPy and every
    array method verify and use the whole array.
    """

    def __init__(self, array: NDArray[Any], blocks: Blocks, start: int) -> None:
        """``array`` begins at byte ``start`` of the file of ``blocks``."""
        self._array, self._blocks, self._start = array, blocks, start
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim
        self.size, self.nbytes = array.size, array.nbytes

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, index: Any) -> Any:
        parts = index if isinstance(index, tuple) else (index,)
        if not all(_is_basic(part) for part in parts):
            rows = np.asarray(index) if isinstance(index, list | np.ndarray) else None
            if rows is None or rows.ndim != 1 or rows.dtype.kind not in "iu":
                return self._whole()[index]
            cut = self._array[rows]  # raises IndexError for rows out of range
            stride = self._array.strides[0]
            self._blocks.check(self._start + rows % len(self._array) * stride, stride)
            return cut
        open_ended = any(part is Ellipsis for part in parts)
        view = self._array[parts if open_ended else (*parts, ...)]  # an array, even with 0 axes
        if view.size and self._blocks.left:
            self._check(view)
        return view if open_ended or view.ndim else view[()]

    def __iter__(self) -> Iterator[Any]:
        return (self[n] for n in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        array = self._whole()
        if dtype is not None and np.dtype(dtype) != array.dtype:
            return array.astype(dtype)
        return array.copy() if copy else array

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        arrays = [x._whole() if isinstance(x, CheckedArray) else x for x in inputs]
        return getattr(ufunc, method)(*arrays, **kwargs)

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return self._whole().__array_interface__

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._whole(), name)

    def __reduce__(self) -> Any:
        return self._whole().copy().__reduce__()

    def __repr__(self) -> str:
        return f"<array {self.shape} {self.dtype}, memory-mapped>"

    def _whole(self) -> NDArray[Any]:
        self._blocks.check(np.array([self._start]), self.nbytes)
        return self._array

    def _check(self, view: NDArray[Any]) -> None:
        """Verify the blocks of a view: each index of the outer axes, the inner axes as one span.

        The inner axes are those that are contiguous or fit into one block.
        """
        lengths, strides = np.array(view.shape), np.array(view.strides)
        back = int(((lengths - 1) * np.minimum(strides, 0)).sum())  # an axis may run backwards
        first = view.__array_interface__["data"][0] + back
        first += self._start - self._array.__array_interface__["data"][0]
        order = np.argsort(-np.abs(strides), kind="stable")
        lengths, strides = lengths[order], np.abs(strides[order])
        spans = ((lengths - 1) * strides)[::-1].cumsum()[::-1] + view.itemsize  # of axes n, n+1, …
        dense = lengths[::-1].cumprod()[::-1] * view.itemsize >= spans
        whole = np.append(dense | (spans <= self._blocks.size), True)
        inner = int(np.flatnonzero(whole)[0])
        starts = np.array([first])
        for length, stride in zip(lengths[:inner], strides[:inner], strict=True):
            starts = (starts[:, None] + np.arange(length) * stride).ravel()
        span = int(spans[inner]) if inner < len(spans) else view.itemsize
        self._blocks.check(starts, span)


def _is_basic(part: Any) -> bool:
    """True if an index returns a view: it is no array, list or flag."""
    if part is None or part is Ellipsis or isinstance(part, slice):
        return True
    return isinstance(part, int | np.integer) and not isinstance(part, bool)
