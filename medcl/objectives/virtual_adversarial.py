"""Virtual adversarial views: the small change of the input that changes the output most."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from medcl.nn.distributed import ALONE, Ranks
from medcl.objectives.checks import positive, same_shape
from medcl.objectives.precision import widened


def virtual_adversarial(clean: Tensor, adversarial: Tensor, *, ranks: Ranks = ALONE) -> Tensor:
    """mean_i KL( softmax(clean_i) ‖ softmax(adversarial_i) ), the first without gradient.

    Miyato 2018 (arXiv 1704.03976, eq. 5–7); used on pretraining's outputs by Li 2024 (URLBERT,
    arXiv 2402.11495). The input of ``adversarial`` is `adversarial_view`.

    Args:
        clean: (B, K) logits of the sample as it is; a constant.
        adversarial: (B, K) logits of its adversarial view.
        ranks: not needed.

    Returns:
        Scalar.

    Raises:
        UsageError: if the shapes differ.

    Example:
        >>> logits = torch.randn(3, 4)
        >>> virtual_adversarial(logits, logits).item()
        0.0
    """
    same_shape("virtual_adversarial", 2, clean=clean, adversarial=adversarial)
    log_p = widened(clean.detach()).log_softmax(1)
    log_q = widened(adversarial).log_softmax(1)
    return (log_p.exp() * (log_p - log_q)).sum(1).mean()


def adversarial_view(
    distance: Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    radius: float,
    probe: float = 1e-2,
    steps: int = 1,
    generator: torch.Generator | None = None,
) -> Tensor:
    """x + r, ‖r_i‖₂ = radius, along which ``distance`` grows fastest.

    Miyato 2018, algorithm 1: power iteration from a random direction d ← ∇_d distance(x + ξ·d).
    Any distance of two outputs serves: KL of logits, 1 − cos of embeddings (a positive view that
    is as hard as the encoder makes it). Put the encoder in evaluation mode, or its batch
    statistics move.

    Args:
        distance: (B, ...) inputs → scalar, zero and smooth at ``x``.
        x: (B, ...) inputs.
        radius: length of each sample's change, in the input's units.
        probe: ξ, length of the probing step.
        steps: of power iteration.
        generator: of the first direction.

    Returns:
        (B, ...), a constant. A sample for which the distance has no slope moves at random.

    Raises:
        UsageError: if radius or ξ is not positive.

    Example:
        >>> x = torch.zeros(1, 2)
        >>> view = adversarial_view(lambda v: (v[:, 0] ** 2).sum(), x, radius=3.0)
        >>> view.abs()
        tensor([[3., 0.]])
    """
    positive("adversarial_view", radius=radius, probe=probe)
    x = x.detach()
    d = _each_unit(torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype))
    for _ in range(steps):
        with torch.enable_grad():
            at = d.clone().requires_grad_()
            (slope,) = torch.autograd.grad(distance(x + probe * at), at)
        moved = slope.flatten(1).any(1).view(-1, *[1] * (x.ndim - 1))
        d = torch.where(moved, _each_unit(slope), d)
    return x + radius * d


def _each_unit(d: Tensor) -> Tensor:
    flat = d.flatten(1)
    largest = flat.abs().amax(1, keepdim=True)  # first to one, lest squares underflow
    flat = flat / torch.where(largest > 0, largest, 1.0)
    return torch.nn.functional.normalize(flat, dim=1).reshape(d.shape)
