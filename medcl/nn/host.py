"""Where the host may look at values: what lies on a device would have to be waited for.

A step that asks a device for a number (``.item()``, ``nonzero``, ``if tensor:``) stops until all
that was queued there is done. So steps and views keep to shapes that the host knows, and choose
with `torch.where`. On a processor there is nothing to wait for, and rows that nobody wants cost
time: this is the one place where the two differ.
"""

from __future__ import annotations

import torch
from torch import Tensor


def waits(x: Tensor) -> bool:
    """Whether the host would have to wait for the values of ``x``."""
    return x.device.type != "cpu"


def chosen_rows(chosen: Tensor) -> Tensor | None:
    """The positions (K,) of True in ``chosen`` (B,); None where the host would have to wait."""
    return None if waits(chosen) else chosen.nonzero()[:, 0]


def value(x: Tensor) -> float | None:
    """The number in ``x`` (); None where the host would have to wait."""
    return None if waits(x) else x.item()


def refuse(wrong: Tensor, error: Exception) -> None:
    """Raise ``error`` if any of ``wrong`` (bool, any shape) is True, without waiting.

    A device reports it later, as an assertion with the same sentence.
    """
    if waits(wrong):
        torch._assert_async(~wrong.any(), str(error))
    elif wrong.any():
        raise error
