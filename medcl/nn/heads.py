"""Multi-layer perceptrons on top of an encoder, discarded after pretraining."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn


def mlp(
    sizes: Sequence[int],
    *,
    norm: bool = True,
    dropout: float = 0.0,
    last_norm: bool = False,
    last_bias: bool = True,
) -> nn.Sequential:
    """Linear layers with ReLU between them: (B, sizes[0]) → (B, sizes[-1]).

    Args:
        sizes: widths from input to output; two of them make a single linear layer.
        norm: batch normalisation before each ReLU.
        dropout: probability that a value after a ReLU is set to zero in training.
        last_norm: batch normalisation without scale and shift on the output (SimSiam's projector,
            MoCo v3).
        last_bias: bias of the last linear layer; there is none with ``last_norm``.
    """
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes[:-1]):
        layers.append(nn.Linear(before, after, bias=not norm))
        if norm:
            layers.append(nn.BatchNorm1d(after))
        layers.append(nn.ReLU(inplace=True))
        if dropout > 0:
            layers.append(nn.Dropout(dropout))
    layers.append(nn.Linear(sizes[-2], sizes[-1], bias=last_bias and not last_norm))
    if last_norm:
        layers.append(nn.BatchNorm1d(sizes[-1], affine=False))
    return nn.Sequential(*layers)


def projector(width: int, hidden: int, out: int) -> nn.Sequential:
    """SimCLR's head: (B, width) → (B, out), one hidden layer (Chen 2020, arXiv 2002.05709)."""
    return mlp((width, hidden, out))


def predictor(width: int, hidden: int) -> nn.Sequential:
    """BYOL's head: (B, width) → (B, width), one hidden layer (Grill 2020, arXiv 2006.07733)."""
    return mlp((width, hidden, width))
