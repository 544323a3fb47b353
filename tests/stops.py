"""Counts where a step or a view would make the host wait for a device, on a processor.

`medcl.nn.host.waits` is answered "yes" meanwhile, so that the code takes the way that it takes on a
device. What is counted then: operations whose result, or whose result's shape, is known only when
all before them is done.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from medcl.nn import host

ROOT = Path(__file__).parents[1]
ALWAYS = {
    "_local_scalar_dense",  # item, float, int, bool, if
    "nonzero",
    "masked_select",
    "_unique2",
    "unique_consecutive",
    "unique_dim",
    "equal",
    "bincount",
    "histc",
}
EXPLAINED = {
    "medcl/objectives/pairs.py:labelled",
    "medcl/methods/site_adapt.py:_rows",
    "plugins/medcl_ct/joint.py",
}
"""Stops that the code explains: how many there are of something decides the shapes of the rest."""


class _Stops(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.places: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__.partition(".")[0]
        if name in ALWAYS or _by_mask(name, args) or _by_repeats(func, name, kwargs):
            self.add(name)
        return func(*args, **(kwargs or {}))

    def add(self, name: str) -> None:
        """Count one at the innermost line of ours; of a backward pass there is none."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            path = Path(frame.f_code.co_filename)
            if any(path.is_relative_to(ROOT / room) for room in ("medcl", "plugins")):
                place = f"{path.relative_to(ROOT)}:{frame.f_code.co_name}"
                self.places[f"{place} ({name}, line {frame.f_lineno})"] += 1
                return
            frame = frame.f_back
        self.places[f"a backward pass ({name})"] += 1


def _by_mask(name: str, args: Any) -> bool:
    """Indexing by booleans looks for their positions first."""
    if name not in ("index", "index_put", "index_put_", "_index_put_impl_"):
        return False
    return any(
        isinstance(i, torch.Tensor) and i.dtype == torch.bool for i in args[1] if i is not None
    )


def _by_repeats(func: Any, name: str, kwargs: Any) -> bool:
    of_tensor = name == "repeat_interleave" and func._overloadname == "Tensor"
    return of_tensor and (kwargs or {}).get("output_size") is None


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Within the context: the stops so far, by place, without those that are explained."""
    stops, places = _Stops(), Counter[str]()

    def copies(name: str) -> Any:
        real = getattr(torch.Tensor, name)

        def told(self: torch.Tensor, *args: Any, **settings: Any) -> Any:
            stops.add(name)
            return real(self, *args, **settings)

        return mock.patch.object(torch.Tensor, name, told)

    with (
        mock.patch.object(host, "waits", return_value=True),
        copies("tolist"),
        copies("cpu"),
        stops,
    ):
        yield places
    places.update({p: n for p, n in stops.places.items() if not p.startswith(tuple(EXPLAINED))})
