"""Self-attention in linear time (Nyströmformer: Xiong 2021, arXiv 2102.03902)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medcl_pathology.mil.dropout import Dropout


class NystromAttention(nn.Module):
    """softmax(q k̃ᵀ) · softmax(q̃ k̃ᵀ)⁺ · softmax(q̃ kᵀ) v, q̃ and k̃ the means of m stretches.

    Neither n×m matrix is held: softmax(q̃ kᵀ) v is one call of memory-efficient attention, and the
    product of what follows with softmax(q k̃ᵀ) another, so memory is O(n·width + m²). As in the
    implementation that TransMIL uses, the sequence is padded with zeros in front to a multiple of
    m, and the padding is attended to.

    Args:
        width: of the tokens.
        heads: H, a divisor of ``width``.
        landmarks: m.
        rounds: of the iteration for the pseudo-inverse ⁺.
        kernel: width of a depth-wise convolution along the sequence, whose result on the values is
            added (33 in TransMIL); 0 for none.
        dropout: of the result.
    """

    def __init__(
        self,
        width: int,
        heads: int = 8,
        landmarks: int = 256,
        rounds: int = 6,
        kernel: int = 33,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.heads, self.landmarks, self.rounds = heads, landmarks, rounds
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Sequential(nn.Linear(width, width), Dropout(dropout))
        self.residual = (
            nn.Conv2d(heads, heads, (kernel, 1), padding=(kernel // 2, 0), groups=heads, bias=False)
            if kernel
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, n, width) → (B, n, width), each sequence by itself."""
        n = x.shape[1]
        q, k, v, near, far = self._landmarks(x)
        middle = pseudo_inverse(_softmax(near, far), self.rounds)  # (B, H, m, m)
        summary = middle @ _attend(near, k, v)  # (B, H, m, d)
        out = _attend(q, far, summary)  # (B, H, N, d)
        if self.residual is not None:
            out = out + self.residual(v)
        out = out.transpose(1, 2).flatten(2)[:, -n:]  # (B, n, width)
        result: Tensor = self.out(out)
        return result

    @torch.no_grad()
    def row(self, x: Tensor, at: int) -> Tensor:
        """What token ``at`` pays to each token, a mean over heads: (B, n, width) → (B, n)."""
        n = x.shape[1]
        q, k, _, near, far = self._landmarks(x)
        mine = q[:, :, k.shape[2] - n + at, None]  # (B, H, 1, d)
        to_landmarks = _softmax(mine, far) @ pseudo_inverse(_softmax(near, far), self.rounds)
        return (to_landmarks @ _softmax(near, k))[:, :, 0, -n:].mean(1)

    def _landmarks(self, x: Tensor) -> tuple[Tensor, ...]:
        """Queries (scaled), keys, values (B, H, N, d), and both kinds of landmarks (B, H, m, d)."""
        n = x.shape[1]
        stretch = -(-n // self.landmarks)  # tokens a landmark
        x = F.pad(x, (0, 0, stretch * self.landmarks - n, 0))
        q, k, v = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in self.qkv(x).chunk(3, dim=2)
        )
        q = q * q.shape[-1] ** -0.5
        near, far = (t.unflatten(2, (self.landmarks, stretch)).mean(3) for t in (q, k))
        return q, k, v, near, far


def _softmax(q: Tensor, k: Tensor) -> Tensor:
    return (q @ k.transpose(-1, -2)).softmax(-1)


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q kᵀ) v."""
    return F.scaled_dot_product_attention(q, k, v, scale=1.0)


def pseudo_inverse(a: Tensor, rounds: int = 6) -> Tensor:
    """The iteration of Razavi 2014 that the paper uses (eq. 11): (B, H, m, m) → (B, H, m, m).

    One scale for all heads, from the largest row and column sum, as in the authors' code.
    """
    rows, columns = (a.abs().sum(axis).amax((1, 2)) for axis in (-1, -2))  # (B,)
    z = a.transpose(-1, -2) / (rows * columns)[:, None, None, None]
    eye = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    for _ in range(rounds):
        az = a @ z
        z = 0.25 * z @ (13 * eye - az @ (15 * eye - az @ (7 * eye - az)))
    return z
