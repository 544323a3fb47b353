"""Deformable attention along one axis: every slice looks at a few slices that it chose."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medcl.errors import UsageError


def sample(x: Tensor, at: Tensor) -> Tensor:
    """Read (B, N, C) at fractional positions (B, M), linearly between slices: (B, M, C)."""
    # A NaN is read as NaN, by its share, and not from where no slice is.
    left = at.detach().nan_to_num().floor().clamp(0, max(x.shape[1] - 2, 0)).long()  # (B, M)
    right = (left + 1).clamp(max=x.shape[1] - 1)
    share = (at - left).unsqueeze(-1)

    def pick(index: Tensor) -> Tensor:
        return x.gather(1, index.unsqueeze(-1).expand(-1, -1, x.shape[2]))

    return torch.lerp(pick(left), pick(right), share.expand(-1, -1, x.shape[2]))


class DeformableAttention(nn.Module):
    """Deformable attention (Xia 2022, arXiv 2201.00520) over slices: (B, N, width) → the same.

    M = ⌈N/stride⌉ reference points p lie evenly along the volume. In each head, a small network
    looks at the queries around a reference point and moves it: p + reach·(N/M)·tanh(θ(q)). Keys and
    values are projections of the input read there, between slices if need be. With q_i = W_q z_i:

        out_i = W_o Σ_m softmax_m(q_i·k_m/√d + bias(i − p_m)) v_m

    The bias is a small network of the signed logarithm of the distance (Liu 2022,
    arXiv 2111.09883), so that volumes may have any number of slices.

    Nguyen 2023 (arXiv 2212.01893) attends between slices "through deformable self-attention"; the
    settings are those of its code. That code hands the attention layer slices as *channels*, so
    that it attends over features and only ever takes one number of slices; this one attends over
    slices. Of a padded volume N is how many slices are real: it is treated as it would be alone.

    Args:
        width: of a token.
        heads: attention heads, each with its own key positions; must divide ``width``.
        stride: slices for each key.
        reach: how far a key may move, in distances between keys.
        kernel: slices that decide on a key's move.
    """

    def __init__(self, width: int, heads: int, stride: int, reach: float, kernel: int) -> None:
        super().__init__()
        if width % heads:
            raise UsageError(f"encoder.heads is {heads}, which does not divide width {width}.")
        if kernel < stride:
            raise UsageError(f"encoder.kernel is {kernel}: at least encoder.stride, {stride}.")
        each = width // heads
        self.heads, self.stride, self.reach, self.kernel = heads, stride, reach, kernel
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.look = nn.Conv1d(each, each, kernel, stride, groups=each)
        self.move = nn.Conv1d(each, 1, 1, bias=False)
        self.far = nn.Sequential(nn.Linear(1, 32), nn.ReLU())
        self.bias = nn.Parameter(torch.zeros(heads, 32))
        nn.init.normal_(self.bias, std=0.02)

    def positions(self, q: Tensor, depth: Tensor) -> Tensor:
        """Where each head's keys are read: queries (B, N, width) → (B, heads, M), in slices."""
        batch, count, _ = q.shape
        keys = -(-count // self.stride)
        real = torch.arange(count, device=q.device) < depth[:, None]  # (B, N)
        q = q * real[..., None]  # padding has no say
        split = q.unflatten(2, (self.heads, -1)).permute(0, 2, 3, 1).flatten(0, 1)
        before = (self.kernel - self.stride) // 2
        after = (keys - 1) * self.stride + self.kernel - before - count
        seen = self.look(F.pad(split, (before, max(after, 0))))  # (B·heads, each, M)
        moves = torch.tanh(self.move(F.gelu(seen)))[:, 0].unflatten(0, (batch, self.heads))
        step = (depth / self.keys(depth))[:, None]  # (B, 1) slices from key to key
        place = (torch.arange(keys, device=q.device) + 0.5) * step - 0.5  # (B, M)
        moved = place[:, None] + self.reach * step[..., None] * moves
        return torch.minimum(moved.clamp_min(0), (depth - 1)[:, None, None].to(moved))

    def keys(self, depth: Tensor) -> Tensor:
        """How many keys a volume of ``depth`` (B,) slices has: (B,)."""
        return (depth + self.stride - 1) // self.stride

    def read(self, x: Tensor, at: Tensor) -> Tensor:
        """Each head's share of the features, at that head's positions: (B, M, width)."""
        split = x.unflatten(2, (self.heads, -1)).transpose(1, 2).flatten(0, 1)  # (B·heads, N, each)
        picked = sample(split, at.flatten(0, 1))  # (B·heads, M, each)
        return picked.unflatten(0, at.shape[:2]).transpose(1, 2).flatten(2)

    def forward(self, x: Tensor, depth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens (B, N, width), the first ``depth`` (B,) of each row real.

        Returns:
            the mixed tokens (B, N, width), the attention (B, heads, N, M), and where its keys lie
            (B, heads, M).
        """
        q = self.query(x)
        at = self.positions(q, depth)
        read = self.read(x, at)
        far = torch.arange(x.shape[1], device=x.device)[:, None] - at[:, :, None]  # (B, h, N, M)
        far = self.far((far.sign() * far.abs().log1p()).unsqueeze(-1))  # (B, h, N, M, 32)
        bias = torch.einsum("bhnmc,hc->bhnm", far, self.bias)
        qh, kh, vh = (
            t.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for t in (q, self.key(read), self.value(read))
        )  # (B, heads, N or M, each)
        score = qh @ kh.transpose(2, 3) / qh.shape[-1] ** 0.5 + bias
        beyond = torch.arange(at.shape[2], device=x.device) >= self.keys(depth)[:, None]  # (B, M)
        weight = score.masked_fill(beyond[:, None, None], -torch.inf).softmax(dim=-1)
        mixed = (weight @ vh).transpose(1, 2).flatten(2)
        return self.out(mixed), weight, at


class _Layer(nn.Module):
    """Attention and feed-forward, each added and then normalised, as in the authors' code."""

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        stride: int,
        reach: float,
        kernel: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.attention = DeformableAttention(width, heads, stride, reach, kernel)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.drop = nn.Dropout(dropout)
        self.feed = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, width)
        )

    def forward(self, x: Tensor, depth: Tensor) -> Tensor:
        x = self.drop(self.norm1(x + self.attention(x, depth)[0]))
        return self.drop(self.norm2(x + self.feed(x)))


class InterSlice(nn.Module):
    """The Transformer between the slices of a volume: (B, N, width) → (B, N, width).

    Args:
        width: of a token.
        layers: how many.
        heads, stride, reach, kernel: as in `DeformableAttention`.
        hidden: width of the feed-forward layers.
        dropout: after each normalisation and in the feed-forward layers.
    """

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        hidden: int,
        stride: int,
        reach: float,
        kernel: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            _Layer(width, heads, hidden, stride, reach, kernel, dropout) for _ in range(layers)
        )

    def forward(self, x: Tensor, depth: Tensor | None = None) -> Tensor:
        """Tokens, of which the first ``depth`` (B,) are real; None: all. The rest has no say."""
        depth = self._depth(x, depth)
        padding = torch.arange(x.shape[1], device=x.device) >= depth[:, None]  # (B, N)
        x = x.masked_fill(padding[..., None], 0.0)  # not read, but for its product with 0
        for layer in self.layers:
            x = layer(x, depth)
        return x

    @torch.no_grad()
    def attended(self, x: Tensor) -> Tensor:
        """How much each slice is looked at in the last layer: (B, N, width) → (B, N), sums to 1.

        The attention on a key between two slices counts for both, by nearness.
        """
        depth = self._depth(x, None)
        for layer in self.layers[:-1]:
            x = layer(x, depth)
        _, weight, at = cast(_Layer, self.layers[-1]).attention(x, depth)
        weight = weight.mean(dim=2).flatten(1)  # (B, heads·M)
        at = at.flatten(1)
        slices = torch.arange(x.shape[1], device=x.device)
        near = (1 - (at[..., None] - slices).abs()).clamp_min(0)  # (B, heads·M, N)
        total = torch.einsum("bk,bkn->bn", weight, near)
        return total / total.sum(dim=1, keepdim=True)

    def _depth(self, x: Tensor, depth: Tensor | None) -> Tensor:
        if depth is not None:
            return depth
        return torch.full((len(x),), x.shape[1], device=x.device)
