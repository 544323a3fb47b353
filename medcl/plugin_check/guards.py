"""Side effects of a part: the files it opens, and its use of global random state."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np


@dataclass
class Opened:
    """Files of a folder that were opened inside `opening`: relative, posix.

    Only files opened by Python are seen, not those that a C library opens by name.
    """

    read: set[str] = field(default_factory=set)
    written: set[str] = field(default_factory=set)


_watching: list[tuple[Path, Opened]] = []
_hooked = False


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "open" or not _watching:
        return
    path, mode, flags = arguments
    if not isinstance(path, str | bytes | os.PathLike):
        return  # a file descriptor
    folder, opened = _watching[-1]
    file = os.path.abspath(os.fsdecode(path))
    if not file.startswith(f"{folder}{os.sep}"):
        return
    writes = any(letter in (mode or "") for letter in "wax+")
    if mode is None:
        writes = bool((flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    (opened.written if writes else opened.read).add(Path(file).relative_to(folder).as_posix())


@contextmanager
def opening(folder: Path) -> Iterator[Opened]:
    """Record which files of a folder this process opens.

    Audit hooks cannot be removed, so there is only one.
    """
    global _hooked
    if not _hooked:
        sys.addaudithook(_hook)
        _hooked = True
    opened = Opened()
    _watching.append((folder.resolve(), opened))
    try:
        yield opened
    finally:
        _watching.pop()


@contextmanager
def same_random_state(drawn: list[str], *, torch_may: bool = False) -> Iterator[None]:
    """Add to ``drawn`` the global random generators that were used.

    Args:
        drawn: collects "random", "numpy.random" or "torch".
        torch_may: True if torch's generator may be used (weights are initialised with it).
    """
    torch = sys.modules.get("torch")
    python, numpy = random.getstate(), _numpy()
    tensors = None if torch is None or torch_may else torch.get_rng_state()
    yield
    if random.getstate() != python:
        drawn.append("random")
    if _numpy() != numpy:
        drawn.append("numpy.random")
    if (
        tensors is not None
        and torch is not None
        and not torch.equal(tensors, torch.get_rng_state())
    ):
        drawn.append("torch")


def _numpy() -> str:
    """The state of NumPy's global generator as a text, for comparison."""
    with np.printoptions(threshold=sys.maxsize):
        return repr(np.random.get_state(legacy=False))
