"""Checks of arguments, with one clear sentence for each error."""

from __future__ import annotations

from torch import Tensor

from medcl.errors import UsageError


def same_shape(objective: str, ndim: int, **tensors: Tensor) -> None:
    """All tensors have one shape, of ``ndim`` dimensions.

    Raises:
        UsageError: naming the objective and the tensors.
    """
    shapes = {tuple(x.shape) for x in tensors.values()}
    if len(shapes) > 1 or len(next(iter(shapes))) != ndim:
        given_shapes = ", ".join(f"{name} {tuple(x.shape)}" for name, x in tensors.items())
        raise UsageError(
            f"{objective} needs tensors of one shape with {ndim} dimensions, not {given_shapes}."
        )


def same_length(objective: str, **tensors: Tensor) -> None:
    """All tensors have the same number of rows.

    Raises:
        UsageError: naming the objective and the tensors.
    """
    if len({len(x) for x in tensors.values()}) > 1:
        lengths = ", ".join(f"{name} {len(x)}" for name, x in tensors.items())
        raise UsageError(f"{objective} needs as many rows in each tensor, not {lengths}.")


def positive(objective: str, **numbers: float) -> None:
    """All numbers are above zero.

    Raises:
        UsageError: naming the objective and the setting.
    """
    for name, number in numbers.items():
        if not number > 0:
            raise UsageError(f"{objective}: {name} must be positive, not {number}.")
