"""Low-rank adaptation: a network's linear layers move within a few directions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from medcl.errors import UsageError

PRETRAINING = 2.0
"""α / r of `adapt_for_pretraining`: that of the paper's GPT-2 (α 32, r 16) and of most since."""
ORIGINAL, LOW = ".parametrizations.weight.original", ".parametrizations.weight.0."


class LowRank(nn.Module):
    """W ↦ W + (α / r) · B A, with A (r, in) random and B (out, r) zero at the start."""

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        super().__init__()
        rows, columns = weight.shape
        self.a = nn.Parameter(torch.randn(rank, columns, device=weight.device) / rank)
        self.b = nn.Parameter(torch.zeros(rows, rank, device=weight.device))
        self.scale = alpha / rank

    def forward(self, weight: Tensor) -> Tensor:
        """(out, in) → (out, in)."""
        return weight + self.scale * (self.b @ self.a)


def adapt(
    encoder: nn.Module, rank: int, alpha: float, layers: Sequence[str] = ()
) -> tuple[str, ...]:
    """Freeze ``encoder`` and add `LowRank` to its linear layers, in place (Hu 2022, 2106.09685).

    Args:
        encoder: with linear layers.
        rank: r.
        alpha: α.
        layers: parts of names; empty: all linear layers.

    Returns:
        The names of the adapted layers, none if there is none of these names.
    """
    encoder.requires_grad_(False)
    linears = [
        (name, module)
        for name, module in encoder.named_modules()
        if isinstance(module, nn.Linear) and (not layers or any(part in name for part in layers))
    ]
    for _, module in linears:
        low = LowRank(module.weight, rank, alpha)
        parametrize.register_parametrization(module, "weight", low)
    return tuple(name for name, _ in linears)


def adapt_for_pretraining(encoder: nn.Module, rank: int) -> None:
    """`adapt` all linear layers; `merged` gives the weights that come of it.

    Raises:
        UsageError: if the encoder has no linear layer.
    """
    if not adapt(encoder, rank, PRETRAINING * rank):
        raise UsageError(
            "trainer.lora adapts the linear layers of a Transformer, and this encoder has none: "
            "leave it out, or lower optimizer.lr and optimizer.layer_decay instead."
        )


def merged(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights with each low-rank addition added, under the names of the network without them.

    Of `adapt_for_pretraining`; weights without such additions are returned as they are.

    Example:
        >>> net = nn.Sequential(nn.Linear(3, 2))
        >>> before = net.state_dict()["0.weight"].clone()
        >>> adapt_for_pretraining(net, 1)
        >>> sorted(merged(net.state_dict()))
        ['0.bias', '0.weight']
        >>> torch.equal(merged(net.state_dict())["0.weight"], before)  # B is still zero
        True
    """
    out = {}
    for name, value in weights.items():
        if name.endswith(ORIGINAL):
            layer = name.removesuffix(ORIGINAL)
            a, b = (weights[f"{layer}{LOW}{part}"] for part in ("a", "b"))
            out[f"{layer}.weight"] = value + PRETRAINING * (b @ a)
        elif LOW not in name:
            out[name] = value
    return out
