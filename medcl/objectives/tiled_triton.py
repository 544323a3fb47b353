"""Log-sums over a similarity matrix that is never stored, as two Triton kernels for CUDA.

**Never run on a GPU so far.** Tests compare Triton's interpreter, on the CPU, with
`medcl.objectives.tiled`. So the kernels are off unless ``MEDCL_TRITON=1`` is set; ``python
benchmarks/objectives.py --device cuda`` measures whether they are faster.

A program has a block of x and visits all blocks of y: forward for the running maximum and sum
of its rows of s = x·yᵀ, backward to compute each tile again and add up the gradient of its x. The
gradient of y is the same kernel with x and y exchanged (Dao 2022, arXiv 2205.14135). Products are
true float32, not TF32: similarities divided by τ = 0.01 need the precision.
"""

# mypy: allow-untyped-defs, disable-error-code="misc"

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from medcl.objectives.pairs import Hidden

BLOCK = 64


@triton.jit
def _tile(
    x, at_x, n_x, y_ptr, at_y, n_y, width,
    group_x, group_y, columns, grouped: tl.constexpr, listed: tl.constexpr, swapped: tl.constexpr,
    depth: tl.constexpr,
):  # fmt: skip
    """One tile of s, −inf where hidden or out of range, and its block of y."""
    k = tl.arange(0, depth)
    here = (at_y < n_y)[:, None] & (k < width)[None, :]
    y = tl.load(y_ptr + at_y[:, None] * width + k[None, :], mask=here, other=0.0)
    s = tl.dot(x, tl.trans(y), input_precision="ieee")
    hidden = (at_x >= n_x)[:, None] | (at_y >= n_y)[None, :]
    if grouped:
        one = tl.load(group_x + at_x, mask=at_x < n_x, other=0)
        other = tl.load(group_y + at_y, mask=at_y < n_y, other=0)
        hidden = hidden | (one[:, None] == other[None, :])
    for m in range(listed):  # the columns of row r are columns[r·listed : (r + 1)·listed]
        if swapped:  # x are the columns of the matrix, y its rows
            named = tl.load(columns + at_y * listed + m, mask=at_y < n_y, other=-1)
            hidden = hidden | (named[None, :] == at_x[:, None])
        else:
            named = tl.load(columns + at_x * listed + m, mask=at_x < n_x, other=-1)
            hidden = hidden | (named[:, None] == at_y[None, :])
    return tl.where(hidden, float("-inf"), s), y


@triton.jit
def _forward(
    x_ptr, y_ptr, lse_ptr, n_x, n_y, width,
    group_x, group_y, columns, grouped: tl.constexpr, listed: tl.constexpr, swapped: tl.constexpr,
    depth: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    at_x = tl.program_id(0) * block + tl.arange(0, block)
    k = tl.arange(0, depth)
    here = (at_x < n_x)[:, None] & (k < width)[None, :]
    x = tl.load(x_ptr + at_x[:, None] * width + k[None, :], mask=here, other=0.0)
    peak = tl.full((block,), float("-inf"), tl.float32)
    total = tl.zeros((block,), tl.float32)
    for start in range(0, n_y, block):
        at_y = start + tl.arange(0, block)
        s, _ = _tile(
            x, at_x, n_x, y_ptr, at_y, n_y, width,
            group_x, group_y, columns, grouped, listed, swapped, depth,
        )  # fmt: skip
        higher = tl.maximum(peak, tl.max(s, 1))
        safe = tl.where(higher == float("-inf"), 0.0, higher)
        total = total * tl.exp(peak - safe) + tl.sum(tl.exp(s - safe[:, None]), 1)
        peak = higher
    empty = peak == float("-inf")
    lse = tl.where(empty, float("-inf"), peak + tl.log(tl.where(empty, 1.0, total)))
    tl.store(lse_ptr + at_x, lse, mask=at_x < n_x)


@triton.jit
def _backward(
    x_ptr, y_ptr, lse_ptr, grad_ptr, d_x_ptr, n_x, n_y, width,
    group_x, group_y, columns, grouped: tl.constexpr, listed: tl.constexpr, swapped: tl.constexpr,
    of_x: tl.constexpr, depth: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """``of_x``: the log-sums are those of x (over y), else those of y (over x)."""
    at_x = tl.program_id(0) * block + tl.arange(0, block)
    k = tl.arange(0, depth)
    here = (at_x < n_x)[:, None] & (k < width)[None, :]
    x = tl.load(x_ptr + at_x[:, None] * width + k[None, :], mask=here, other=0.0)
    d_x = tl.zeros((block, depth), tl.float32)
    for start in range(0, n_y, block):
        at_y = start + tl.arange(0, block)
        s, y = _tile(
            x, at_x, n_x, y_ptr, at_y, n_y, width,
            group_x, group_y, columns, grouped, listed, swapped, depth,
        )  # fmt: skip
        if of_x:
            lse = tl.load(lse_ptr + at_x, mask=at_x < n_x, other=0.0)[:, None]
            grad = tl.load(grad_ptr + at_x, mask=at_x < n_x, other=0.0)[:, None]
        else:
            lse = tl.load(lse_ptr + at_y, mask=at_y < n_y, other=0.0)[None, :]
            grad = tl.load(grad_ptr + at_y, mask=at_y < n_y, other=0.0)[None, :]
        lse = tl.where(lse == float("-inf"), 0.0, lse)
        d_x += tl.dot(grad * tl.exp(s - lse), y, input_precision="ieee")
    tl.store(d_x_ptr + at_x[:, None] * width + k[None, :], d_x, mask=here)


class _LogSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, hide: Hidden, swapped: bool) -> Tensor:
        x, y = x.contiguous(), y.contiguous()
        lse = x.new_empty(len(x))
        _forward[_grid(x)](x, y, lse, *_sizes(x, y), *_hidden(hide, swapped), *_blocks(x))
        ctx.save_for_backward(x, y, lse)
        ctx.hide, ctx.swapped = hide, swapped
        return lse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, y, lse = ctx.saved_tensors
        hide, swapped = ctx.hide, ctx.swapped
        grad, d_x, d_y = grad.contiguous(), torch.empty_like(x), None
        of_x = _hidden(hide, swapped)
        _backward[_grid(x)](x, y, lse, grad, d_x, *_sizes(x, y), *of_x, True, *_blocks(x))
        if ctx.needs_input_grad[1]:
            d_y, of_y = torch.empty_like(y), _hidden(hide, not swapped)
            _backward[_grid(y)](y, x, lse, grad, d_y, *_sizes(y, x), *of_y, False, *_blocks(y))
        return d_x, d_y, None, None


def _grid(x: Tensor) -> tuple[int]:
    return (triton.cdiv(len(x), BLOCK),)


def _sizes(x: Tensor, y: Tensor) -> tuple[int, int, int]:
    return len(x), len(y), x.shape[1]


def _blocks(x: Tensor) -> tuple[int, int]:
    return max(16, triton.next_power_of_2(x.shape[1])), BLOCK


def _hidden(hide: Hidden, swapped: bool) -> tuple[Any, ...]:
    """Arguments of `_tile`: groups of x and of y, listed columns, and which of them exist."""
    groups = [hide.row_group, hide.col_group]
    grouped = groups[0] is not None and groups[1] is not None
    x, y = reversed(groups) if swapped else groups
    columns = None if hide.columns is None else hide.columns.contiguous()
    return x, y, columns, grouped, 0 if columns is None else columns.shape[1], swapped


def log_sums(rows: Tensor, cols: Tensor, hide: Hidden | None, *, swapped: bool = False) -> Tensor:
    """log Σ_j exp(rows_i · cols_j) over visible pairs: (B, d), (N, d) → (B,), −inf for none.

    Args:
        rows: (B, d) float32.
        cols: (N, d) float32.
        hide: pairs left out.
        swapped: ``hide`` speaks of sᵀ: its rows are ``cols``.
    """
    lse: Tensor = _LogSums.apply(rows, cols, hide or Hidden(), swapped)
    return lse
