"""Adversarial attacks: small changes that make a classifier wrong.

FGSM (Goodfellow 2015, arXiv 1412.6572) takes one step along the sign of the loss's gradient; PGD
(Madry 2018, arXiv 1706.06083) takes several from a random start, each projected into the ball.
ε is a share of each sample's own standard deviation, since there is no common grey scale.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Attack = Literal["fgsm", "pgd"]


def attack(
    classify: Callable[[Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    *,
    epsilon: float,
    how: Attack = "pgd",
    steps: int = 10,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Adversarial samples within ε · std of each sample, in the maximum norm.

    Args:
        classify: (B, C, ...) → logits (B, classes), with gradient.
        x: (B, ...).
        y: (B,) true classes.
        epsilon: radius, as a share of each sample's standard deviation.
        how: the attack.
        steps: of PGD, each of 2.5 ε / steps.
        generator: of PGD's start.

    Returns:
        (B, ...), detached.
    """
    radius = epsilon * x.flatten(1).std(1, correction=0).view(-1, *[1] * (x.ndim - 1))
    if how == "fgsm":
        return x + radius * _direction(classify, x, y)
    start = torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    adversarial = x + radius * (2 * start - 1)
    for _ in range(steps):
        adversarial = adversarial + 2.5 / steps * radius * _direction(classify, adversarial, y)
        adversarial = torch.minimum(torch.maximum(adversarial, x - radius), x + radius)
    return adversarial


def _direction(classify: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
    """The sign of the cross-entropy's gradient."""
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(F.cross_entropy(classify(x), y, reduction="sum"), x)
    return gradient.sign()
