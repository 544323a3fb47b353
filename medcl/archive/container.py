"""The file of a prepared item: safetensors, with the SHA-256 of every one of its bytes.

::

    8 bytes    the length of the header
    header     {"__metadata__": {"sha256": …, "bytes": …, "blocks": …, "medcl": …},
                "x": {"dtype": "F16", "shape": [12, 1000], "data_offsets": [0, 24000]}, …}
    arrays     concatenated, without gaps

``sha256`` is the hash of the rest of the header; ``blocks`` are the hashes of the arrays'
``bytes``, block by block, concatenated; ``medcl`` is the entry's metadata as JSON. Any reader of
safetensors opens the file. Types that safetensors lacks (texts, dates) are stored as bytes with one
more axis, and their NumPy type under ``medcl``.

A file of up to 1 MiB is read and verified as a whole when it is opened. A larger one is
memory-mapped, and each block is verified on first access: see `CheckedArray`.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medcl.archive.checked import AGAIN, Blocks, CheckedArray, Damaged, damaged, matches
from medcl.errors import MedclError

FORMAT = 2
"""Increased when older files can no longer be read. 1 was a folder of .npy files."""
SMALL = 1 << 20
"""Largest file in bytes that is read as a whole, and largest array returned as a plain one."""

_LEAD = b'{"__metadata__":{"sha256":"'  # then 64 digits, which the hash does not cover
_BODY = len(_LEAD) + 64
_LONGEST_HEADER = 100_000_000  # as safetensors allows
_BLOCK, _BLOCKS = 128 << 10, 16384  # the least bytes of a block; the most blocks of a file
_ALIGNED = 64
_TYPES = {
    "?": "BOOL", "u1": "U8", "i1": "I8", "u2": "U16", "i2": "I16", "u4": "U32", "i4": "I32",
    "u8": "U64", "i8": "I64", "f2": "F16", "f4": "F32", "f8": "F64",
}  # fmt: skip
_DTYPES = {code: np.dtype("bool" if kind == "?" else f"<{kind}") for kind, code in _TYPES.items()}


class OtherFormat(MedclError):
    """An intact file of another `FORMAT`."""


def write(path: Path, arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, Any]) -> int:
    """Write a file in one pass over the arrays, which are not copied if they are contiguous.

    Args:
        path: the file; an existing one is overwritten.
        arrays: of any NumPy type without Python objects.
        meta: values that JSON can represent.

    Returns:
        the bytes of the file.

    Raises:
        OSError: if it cannot be written.
    """
    ordered = sorted(arrays.items(), key=lambda part: (-part[1].dtype.alignment, part[0]))
    tensors: dict[str, dict[str, Any]] = {}
    types: dict[str, Any] = {}
    total = 0
    for name, array in ordered:
        code, shape = _TYPES.get(array.dtype.str.lstrip("<|").replace("b1", "?")), array.shape
        if code is None:
            code, shape = "U8", (*shape, array.dtype.itemsize)
            types[name] = np.lib.format.dtype_to_descr(array.dtype)
        offsets = [total, total + array.nbytes]
        tensors[name] = {"dtype": code, "shape": list(shape), "data_offsets": offsets}
        total += array.nbytes
    size = _block(total)
    facts = {**meta, "format": FORMAT, "bytes": total, "block": size, "types": types}

    def header(digest: str, blocks: str) -> bytes:
        metadata = {
            "sha256": digest,
            "bytes": str(total),
            "blocks": blocks,
            "medcl": json.dumps(facts),
        }
        text = json.dumps({"__metadata__": metadata, **tensors}, separators=(",", ":")).encode()
        return text + b" " * (-(8 + len(text)) % _ALIGNED)

    empty = header("0" * 64, "0" * (64 * -(-total // size)))
    with path.open("wb") as file:
        file.write(len(empty).to_bytes(8, "little") + empty)
        blocks = _written(file, [array for _, array in ordered], size)
        body = header("0" * 64, blocks)[_BODY:]
        file.seek(8)
        file.write(_LEAD + hashlib.sha256(body).hexdigest().encode() + body)
    return 8 + len(empty) + total


def _block(total: int) -> int:
    """Bytes of a block: larger for large files, so that their header stays small."""
    size = _BLOCK
    while size * _BLOCKS < total:
        size *= 2
    return size


def _written(file: Any, arrays: list[NDArray[Any]], size: int) -> str:
    """Write the arrays; return the SHA-256 of each block of ``size`` bytes, concatenated."""
    digests: list[str] = []
    block, room = hashlib.sha256(), size
    for array in arrays:
        flat = np.ascontiguousarray(array).reshape(-1)
        data = flat.view(np.uint8).data if array.nbytes else memoryview(b"")
        offset = 0
        while offset < len(data):
            piece = data[offset : offset + room]
            file.write(piece)
            block.update(piece)
            offset, room = offset + len(piece), room - len(piece)
            if not room:
                digests.append(block.hexdigest())
                block, room = hashlib.sha256(), size
    return "".join([*digests, *([block.hexdigest()] if room < size else [])])


class Entry(Mapping[str, NDArray[Any]]):
    """The arrays of a file, read-only, by name. See `read`.

    Attributes:
        meta: the metadata it was written with, and ``format`` and ``bytes``.
        digest: the SHA-256 of its header, which identifies the whole file.
        blocks: the verified blocks; None for a small file, which is verified as a whole.
    """

    __slots__ = ("_buffer", "_start", "_tensors", "_types", "blocks", "digest", "meta")

    def __init__(self, path: str, buffer: bytes | mmap.mmap) -> None:
        self._buffer = buffer
        self._tensors, self.digest = _header(path, buffer)
        metadata = self._tensors.pop("__metadata__")
        self.meta: dict[str, Any] = json.loads(metadata["medcl"])
        if self.meta["format"] > FORMAT:  # not to be written over by an older medcl
            raise MedclError(
                f"{path} is an entry of format {self.meta['format']}, and this medcl knows formats "
                f"up to {FORMAT}: update medcl."
            )
        if self.meta["format"] != FORMAT:
            raise OtherFormat(f"{path} is of format {self.meta['format']}. {AGAIN}")
        self._start = len(buffer) - self.meta["bytes"]
        self._types = self.meta.pop("types")
        size, digests = self.meta["block"], bytes.fromhex(metadata["blocks"])
        self.blocks: Blocks | None = None
        if not isinstance(buffer, bytes):
            self.blocks = Blocks(path, buffer, self._start, size, digests)
        elif not matches(buffer, self._start, size, digests):
            raise damaged(path)

    @property
    def held(self) -> int:
        """Bytes of memory in use; 0 if it is memory-mapped."""
        return len(self._buffer) if self.blocks is None else 0

    def __getitem__(self, name: str) -> NDArray[Any]:
        dtype, shape, first = self._layout(name)
        if 0 in shape or not dtype.itemsize:
            return _frozen(np.empty(shape, dtype))
        array: NDArray[Any] = np.ndarray(shape, dtype, self._buffer, first)
        if self.blocks is None:
            return array
        if array.nbytes > SMALL:
            return CheckedArray(array, self.blocks, first)  # type: ignore[return-value]
        self.blocks.check(np.array([first]), array.nbytes)
        return array

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name → shape, without reading an array."""
        return {name: self._layout(name)[1] for name in self}

    def _layout(self, name: str) -> tuple[np.dtype[Any], tuple[int, ...], int]:
        tensor, special = self._tensors[name], self._types.get(name)
        shape, first = tuple(tensor["shape"]), self._start + tensor["data_offsets"][0]
        if special is None:
            return _DTYPES[tensor["dtype"]], shape, first
        return np.lib.format.descr_to_dtype(_tuples(special)), shape[:-1], first


def read(path: str) -> Entry:
    """Open a file. A small one is verified now, the blocks of a large one on first access.

    Raises:
        FileNotFoundError: if there is none.
        OtherFormat: if it is whole, and of another format.
        Damaged: if a byte of it is not as it was written, or some are missing.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        if size < 8 + _BODY:
            raise Damaged(f"{path} is damaged: {size} bytes are no entry. {AGAIN}")
        if size > SMALL:
            return Entry(path, mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ))
        buffer = os.read(descriptor, size)
        while len(buffer) < size and (more := os.read(descriptor, size - len(buffer))):
            buffer += more
    finally:
        os.close(descriptor)
    return Entry(path, buffer)


def _header(path: str, buffer: bytes | mmap.mmap) -> tuple[dict[str, Any], str]:
    """The header, once its bytes are known to be those that were written, and their SHA-256."""
    length = int.from_bytes(buffer[:8], "little")
    if _BODY < length <= min(len(buffer) - 8, _LONGEST_HEADER):
        text = buffer[8 : 8 + length]
        digest = hashlib.sha256(text[_BODY:]).hexdigest()
        if text[:_BODY] == _LEAD + digest.encode():
            head: dict[str, Any] = json.loads(text)
            if 8 + length + int(head["__metadata__"].get("bytes", -1)) == len(buffer):
                return head, digest
    raise Damaged(f"{path} is damaged: its header is not as it was written. {AGAIN}")


def _tuples(descr: Any) -> Any:
    """The description of a structured type for NumPy: JSON has turned its tuples into lists."""
    if not isinstance(descr, list):
        return descr
    return [tuple(_part(part) for part in field) for field in descr]


def _part(part: Any) -> Any:
    if isinstance(part, list) and part and isinstance(part[0], list):
        return _tuples(part)
    return tuple(part) if isinstance(part, list) else part


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    array.flags.writeable = False
    return array
