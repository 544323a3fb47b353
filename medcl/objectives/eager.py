"""Functions that run as they are, also inside a compiled model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

Call = TypeVar("Call", bound=Callable[..., object])


def eager(function: Call) -> Call:
    """`torch.compiler.disable`, which is imported when the function is first called.

    The decorator itself imports all of torch's compiler: 2.5 CPU seconds at the start of every
    command. torch decorates its own optimizers with the form that waits.
    """
    waiting = getattr(torch, "_disable_dynamo", None) or torch.compiler.disable
    decorated: Call = waiting(function)
    return decorated
