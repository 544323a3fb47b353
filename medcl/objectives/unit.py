"""Vectors of one length, with a gradient that is finite at zero."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from medcl.objectives.eager import eager
from medcl.objectives.precision import exact, full, widened


class _Unit(torch.autograd.Function):
    """x · length / ‖x‖; keeps only its output for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, length: Tensor | float) -> Tensor:
        # One rounding per component and none in common: τ = 0.01 multiplies errors by a hundred.
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=exact(x))
        inverse = torch.where(norm > 0, 1 / norm, 0.0)
        out = torch.empty_like(x)
        torch.mul(x, inverse * length, out=out)
        ctx.length = length if isinstance(length, float) else None
        ctx.save_for_backward(out, inverse, *([] if isinstance(length, float) else [length]))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        out, inverse, *rest = ctx.saved_tensors
        length = ctx.length if ctx.length is not None else rest[0]
        along = (grad * out).sum(-1, keepdim=True, dtype=exact(out))  # length · ⟨grad, direction⟩
        d_x = torch.addcmul(grad, out, (along / length**2).to(out.dtype), value=-1)
        d_x *= (inverse * length).to(out.dtype)
        return d_x, (along.sum() / length).to(length.dtype) if rest else None


@eager
def unit(x: Tensor, length: Tensor | float = 1.0) -> Tensor:
    """``x`` scaled to ``length`` along its last axis: (..., d) → (..., d), in float32 or float64.

    A zero vector stays zero and gets no gradient. ``length`` may be a learned scalar.

    Example:
        >>> unit(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
        tensor([[0.6000, 0.8000],
                [0.0000, 0.0000]])
    """
    with full(x):
        out: Tensor = _Unit.apply(widened(x), length)
    return out
