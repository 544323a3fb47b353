"""Row sums of a similarity matrix that is never stored: the core of all contrastive losses here.

For s = rows · colsᵀ (B×N) and each row: log Σ_j exp s_ij over visible pairs, and Σ_j w_ij s_ij for
weights w, which come tile by tile or as a sparse matrix. The forward pass visits s in
tiles; the backward pass computes each tile again instead of keeping it, so the extra memory is
O((B + N)·d + tile²) (as in Dao 2022, arXiv 2205.14135, and Cheng 2024, arXiv 2410.17243). If
row and column sums are needed, or s is symmetric, each tile is computed once for both.

Computation is in float32 (float64 for float64 inputs), also under autocast and for bf16 and fp16;
per-row sums are kept in float64. If |s| may exceed 25 (τ < 0.04), float32 does not represent s to
1e-6: the CPU then computes tiles in float64 (about twice the time); other devices, whose float64
may be very slow, use float32. Second derivatives are refused. Under
``torch.compile`` it is a graph break: what is around it compiles, the tiles run as they are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from medcl.objectives.eager import eager
from medcl.objectives.pairs import Hidden
from medcl.objectives.precision import exact, full, widened

Hide = Callable[[Tensor, slice, slice], None]
"""Sets hidden entries of a tile of s to −inf, in place: ``hide(tile, rows, cols)``."""

Weights = Callable[[slice, slice], Tensor]
"""The constant weights w of one tile: ``weights(rows, cols)``."""

SMALL = 25.0
"""|s| up to here needs no running maximum: exp(s), and sums of it, stay in float32's range."""


HELD = 2**20
"""Entries of s up to which it is kept between the passes: 4 MiB of float32."""


class Sums(NamedTuple):
    """Sums of each row of s (or each column)."""

    lse: Tensor  # (B,) log Σ_j exp s_ij over what is not hidden; −inf where all is
    dot: Tensor  # (B,) Σ_j w_ij s_ij over what is not hidden; zero without weights
    mass: Tensor  # (B,) Σ_j w_ij over what is not hidden; no gradient

    def cross_entropy(self) -> tuple[Tensor, Tensor]:
        """−Σ_j w_ij log softmax(s)_ij / Σ_j w_ij, and which rows have any weight: (B,), (B,)."""
        some = self.mass != 0  # a NaN counts, and shows
        return torch.where(some, self.lse - self.dot / torch.where(some, self.mass, 1.0), 0.0), some


@dataclass(frozen=True)
class _Plan:
    hide: Hide | None
    weights: Weights | None
    small: bool  # |s| ≤ `SMALL`: exponentials as they are; else over a running maximum
    mirrored: bool  # s is symmetric: rows and cols are one tensor
    both: bool  # give the column sums too
    tile: int

    def tiles(self, n: int, m: int) -> Iterator[tuple[slice, slice]]:
        """The tiles of an n×m matrix; of a symmetric one the upper triangle."""
        for i in range(0, n, self.tile):
            for j in range(i if self.mirrored else 0, m, self.tile):
                yield slice(i, min(i + self.tile, n)), slice(j, min(j + self.tile, m))

    def product(self, rows: Tensor, cols: Tensor) -> Tensor:
        """One tile of s."""
        if not self.small and rows.device.type == "cpu":
            return rows.double() @ cols.double().T
        return rows @ cols.T

    def weigh(self, s: Tensor, i: slice, j: slice) -> tuple[Tensor, Tensor]:
        """w and w∘s of one tile: hidden pairs weigh nothing."""
        assert self.weights is not None
        hidden = s == -torch.inf
        w = self.weights(i, j).to(s.dtype).masked_fill(hidden, 0.0)
        return w, w * s.masked_fill(hidden, 0.0)


class _Side:
    """Sums so far, per row (or per column)."""

    def __init__(self, n: int, like: Tensor, small: bool) -> None:
        self.small = small
        self.total = torch.zeros(n, dtype=exact(like), device=like.device)  # Σ exp(s − peak)
        self.peak = torch.full_like(self.total, 0.0 if small else -torch.inf)
        self.dot = torch.zeros_like(self.total)
        self.mass = torch.zeros_like(self.total)

    def add(self, at: slice, s: Tensor, dim: int) -> None:
        """Add a tile of s, or where s is small of exp(s)."""
        if self.small:
            self.total[at] += s.sum(dim)
            return
        peak = torch.maximum(self.peak[at], s.amax(dim))
        safe = peak.masked_fill(peak == -torch.inf, 0.0)
        self.total[at] *= (self.peak[at] - safe).exp()
        self.total[at] += (s - safe.to(s.dtype).unsqueeze(dim)).exp_().sum(dim)
        self.peak[at] = peak

    def sums(self) -> tuple[Tensor, Tensor, Tensor]:
        peak = self.peak.masked_fill(self.peak == -torch.inf, 0.0)
        return self.total.log() + peak, self.dot, self.mass


class _Tiled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, cols: Tensor, plan: _Plan) -> tuple[Tensor, ...]:
        n, m = len(rows), len(cols)
        row = _Side(n, rows, plan.small)
        col = row if plan.mirrored else _Side(m, rows, plan.small)
        for i, j in plan.tiles(n, m):
            s = plan.product(rows[i], cols[j])
            if plan.hide is not None:
                plan.hide(s, i, j)
            halves = [(row, i, 1)]
            if plan.both or (plan.mirrored and i != j):
                halves.append((col, j, 0))
            if plan.weights is not None:
                w, ws = plan.weigh(s, i, j)
                for side, at, dim in halves:
                    side.mass[at] += w.sum(dim)
                    side.dot[at] += ws.sum(dim)
            if plan.small:
                s.exp_()
            for side, at, dim in halves:
                side.add(at, s, dim)
        sides = [row, col] if plan.both else [row]
        out = [x for side in sides for x in side.sums()]
        ctx.plan = plan
        ctx.mark_non_differentiable(*out[2::3])
        ctx.save_for_backward(rows, cols, *out[::3])
        return tuple(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        rows, cols, *lse = ctx.saved_tensors
        plan: _Plan = ctx.plan
        # For rows and columns: log-sum, its gradient, gradient of the weighted sum.
        sides = [_scaled(plan, x, *grads[3 * k : 3 * k + 2]) for k, x in enumerate(lse)]
        sides = sides * 2 if plan.mirrored else sides
        d_rows = torch.zeros_like(rows)
        d_cols = d_rows if plan.mirrored else torch.zeros_like(cols)
        want_cols = ctx.needs_input_grad[1]
        for i, j in plan.tiles(len(rows), len(cols)):
            g = _tile_gradient(plan, plan.product(rows[i], cols[j]), sides, i, j).to(rows.dtype)
            d_rows[i].addmm_(g, cols[j])
            if (i != j) if plan.mirrored else want_cols:
                d_cols[j].addmm_(g.T, rows[i])
        return d_rows, None if plan.mirrored else d_cols, None


class _Held(torch.autograd.Function):
    """`_Tiled` of one tile of small |s|, which is kept: small batches cost steps, not memory."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, cols: Tensor, plan: _Plan) -> tuple[Tensor, ...]:
        s, whole = rows @ cols.T, (slice(0, len(rows)), slice(0, len(cols)))
        if isinstance(plan.hide, Hidden):
            plan.hide.whole(s)
        elif plan.hide is not None:
            plan.hide(s, *whole)
        kind, ways = exact(rows), (1, 0) if plan.both else (1,)
        w, ws = (None, None) if plan.weights is None else plan.weigh(s, *whole)
        e = s.exp_()
        out = []
        for dim in ways:
            total = e.sum(dim).to(kind)
            zeros = torch.zeros_like(total)
            dot = zeros if ws is None else ws.sum(dim).to(kind)
            mass = zeros if w is None else w.sum(dim).to(kind)
            out += [total.log(), dot, mass]
        ctx.plan = plan
        ctx.mark_non_differentiable(*out[2::3])
        ctx.save_for_backward(rows, cols, e, w, *out[::3])
        return tuple(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        rows, cols, e, w, *lse = ctx.saved_tensors
        factor: Any = None
        weight: Any = None
        for k, x in enumerate(lse):
            d_lse = grads[3 * k] * (-x).exp().masked_fill(x == -torch.inf, 0.0)
            scale = d_lse.to(e.dtype).unsqueeze(1 - k)
            factor = scale if factor is None else factor + scale
            if w is not None:
                d_dot = grads[3 * k + 1].to(e.dtype).unsqueeze(1 - k)
                weight = d_dot if weight is None else weight + d_dot
        assert factor is not None
        if ctx.plan.mirrored:  # e and w are symmetric: (g + gᵀ) · rows is one product
            factor = factor + factor.T
            weight = None if weight is None else weight + weight.T
        g = e * factor
        if w is not None:
            g = g.addcmul_(w, weight)
        if ctx.plan.mirrored:
            return g @ rows, None, None
        return g @ cols, g.T @ rows if ctx.needs_input_grad[1] else None, None


def _scaled(plan: _Plan, lse: Tensor, d_lse: Tensor, d_dot: Tensor) -> tuple[Tensor, ...]:
    lse = lse.masked_fill(lse == -torch.inf, 0.0)
    if plan.small:
        d_lse = d_lse * (-lse).exp()
    return lse, d_lse, d_dot


def _tile_gradient(
    plan: _Plan, s: Tensor, sides: list[tuple[Tensor, ...]], i: slice, j: slice
) -> Tensor:
    """∂loss/∂s of one tile; overwrites ``s``."""
    if plan.hide is not None:
        plan.hide(s, i, j)
    lse, d_lse, d_dot = (x[i].unsqueeze(1).to(s.dtype) for x in sides[0])
    if len(sides) == 2:
        lse_col, d_lse_col, d_dot_col = (x[j].unsqueeze(0).to(s.dtype) for x in sides[1])
    w = None if plan.weights is None else plan.weigh(s, i, j)[0]
    if plan.small:
        s.exp_()
        s *= d_lse if len(sides) == 1 else d_lse + d_lse_col
    elif len(sides) == 1:
        s.sub_(lse).exp_().mul_(d_lse)
    else:
        other = (s - lse_col).exp_().mul_(d_lse_col)
        s.sub_(lse).exp_().mul_(d_lse).add_(other)
    if w is not None:
        s += w * (d_dot if len(sides) == 1 else d_dot + d_dot_col)
    return s


@eager
def row_sums(
    rows: Tensor,
    cols: Tensor | None = None,
    *,
    hide: Hide | None = None,
    weights: Weights | Tensor | None = None,
    bound: float = torch.inf,
    tile: int = 1024,
) -> Sums:
    """`Sums` of every row of s = rows · colsᵀ, without storing s.

    Args:
        rows: (B, d), scaled by the caller (τ is not known here).
        cols: (N, d), or None for ``rows`` itself: then s, ``hide`` and ``weights`` must be
            symmetric, and only half of the tiles are computed.
        hide: pairs that are left out of the log-sum.
        weights: constant weights of the weighted sum, tile by tile or as a sparse (B, N) matrix:
            that one may be asymmetric, and must be empty where ``hide`` hides.
        bound: |s| is never larger; a small bound saves the running maximum.
        tile: rows and columns of a tile.

    Example:
        >>> z = torch.eye(3)
        >>> row_sums(z, z).lse  # log(e + 1 + 1), thrice
        tensor([1.5514, 1.5514, 1.5514], dtype=torch.float64)
    """
    by_tiles = None if isinstance(weights, Tensor) else weights
    if by_tiles is None and by_triton(rows, hide):
        lse, dot, mass = _log_sums(rows, rows if cols is None else cols, hide)
    else:
        lse, dot, mass = _sums(rows, cols, hide, by_tiles, bound, False, tile)
    if isinstance(weights, Tensor):
        dot, mass = _sparse(rows, rows if cols is None else cols, weights)
    return Sums(lse, dot, mass)


def by_triton(rows: Tensor, hide: Hide | None) -> bool:
    """Whether `medcl.objectives.tiled_triton` computes log-sums: only with ``MEDCL_TRITON=1``."""
    return (
        os.environ.get("MEDCL_TRITON") == "1"
        and (rows.is_cuda or os.environ.get("TRITON_INTERPRET") == "1")
        and rows.dtype != torch.float64
        and (hide is None or isinstance(hide, Hidden))
    )


def _log_sums(
    rows: Tensor, cols: Tensor, hide: Hide | None, swapped: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """`Sums` of which only the log-sums are filled, by Triton."""
    from medcl.objectives.tiled_triton import log_sums

    assert hide is None or isinstance(hide, Hidden)
    with full(rows):
        lse = log_sums(widened(rows), widened(cols), hide, swapped=swapped).to(exact(rows))
    return lse, torch.zeros_like(lse), torch.zeros_like(lse)


def _sparse(rows: Tensor, cols: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Σ_j w_ij s_ij = rows_i · (W cols)_i and Σ_j w_ij: no entry of s is needed. (B,), (B,)."""
    with full(rows):
        rows, cols, weights = (x.to(exact(rows)) for x in (rows, cols, weights))
        dot = (rows * torch.sparse.mm(weights, cols)).sum(1)
        return dot, torch.sparse.sum(weights, dim=1).to_dense()


@eager
def two_sided_sums(
    rows: Tensor,
    cols: Tensor,
    *,
    hide: Hide | None = None,
    weights: Weights | None = None,
    bound: float = torch.inf,
    tile: int = 1024,
) -> tuple[Sums, Sums]:
    """`row_sums` of s and of sᵀ, computing each tile once.

    Example:
        >>> over_cols, over_rows = two_sided_sums(torch.eye(3), torch.eye(3))
    """
    if weights is None and by_triton(rows, hide):
        over_rows = _log_sums(cols, rows, hide, swapped=True)
        return Sums(*_log_sums(rows, cols, hide)), Sums(*over_rows)
    out = _sums(rows, cols, hide, weights, bound, True, tile)
    return Sums(*out[:3]), Sums(*out[3:])


def _sums(
    rows: Tensor,
    cols: Tensor | None,
    hide: Hide | None,
    weights: Weights | None,
    bound: float,
    both: bool,
    tile: int,
) -> tuple[Tensor, ...]:
    plan = _Plan(hide, weights, bound <= SMALL, cols is None, both, tile)
    size = len(rows) * len(rows if cols is None else cols)
    kind = _Held if plan.small and size <= min(HELD, tile**2) else _Tiled
    out: tuple[Tensor, ...]
    with full(rows):
        rows = widened(rows)
        out = kind.apply(rows, rows if cols is None else widened(cols), plan)
    return out
