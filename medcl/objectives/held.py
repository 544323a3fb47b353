"""Small batches: the similarities are held, and the loss and its gradient come from one pass.

At a hundred rows what costs is the number of operations, not the arithmetic: an objective gives
its value and its gradient in closed form, and autograd sees one node. `medcl.objectives.tiled` is
for all that is larger, or spread over ranks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from medcl.nn.distributed import Ranks
from medcl.objectives.precision import full, widened
from medcl.objectives.tiled import HELD, SMALL, by_triton

Closed = Callable[..., tuple[Tensor, tuple[Tensor, ...]]]
"""Value and gradients: tensors → (scalar, one gradient for each tensor)."""


def holds(rows: int, like: Tensor, bound: float, ranks: Ranks) -> bool:
    """Whether ``rows``² similarities of at most ``bound`` are to be held: few, and of one rank."""
    alone = ranks.world == 1 and not by_triton(like, None)
    return alone and bound <= SMALL and rows * rows <= HELD


class _Closed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, closed: Closed, *inputs: Tensor) -> Tensor:
        value, gradients = closed(*inputs)
        ctx.save_for_backward(*gradients)
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # by create_graph: the gradients here would count as constants
            raise RuntimeError("this objective has no second derivative: leave out create_graph")
        return None, *(grad * gradient for gradient in ctx.saved_tensors)


@torch.compiler.disable
def in_one_pass(closed: Closed, *inputs: Tensor) -> Tensor:
    """The value of ``closed``, whose gradient flows back to ``inputs``; second ones are refused.

    Example:
        >>> x = torch.tensor([3.0], requires_grad=True)
        >>> in_one_pass(lambda x: (x.square().sum(), (2 * x,)), x).backward()
        >>> x.grad
        tensor([6.])
    """
    if torch.is_autocast_enabled(inputs[0].device.type):  # the context costs a tenth of a step
        with full(inputs[0]):
            return _Closed.apply(closed, *(widened(x) for x in inputs))
    return _Closed.apply(closed, *(widened(x) for x in inputs))


def lengthened(x: Tensor, length: float) -> tuple[Tensor, Tensor]:
    """Rows (B, d) of ``length``, and the factors (B, 1) that made them so; zeros stay zeros."""
    norm = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    factor = (length / norm).masked_fill_(norm == 0, 0.0)
    return x * factor, factor


def through_length(d_unit: Tensor, unit: Tensor, factor: Tensor, length: float) -> Tensor:
    """The gradient of what `lengthened` was given, from that of its rows: (B, d)."""
    along = torch.linalg.vecdot(d_unit, unit).unsqueeze(1)
    return torch.addcmul(d_unit, unit, along, value=-(length**-2)).mul_(factor)
