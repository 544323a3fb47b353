"""Optimisers and the learning rate of a recipe."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from medcl import recipe as recipes


def build(
    model: nn.Module,
    settings: recipes.Optimizer,
    steps: int,
    *,
    rate: Callable[[str], float] | None = None,
) -> tuple[Optimizer, LambdaLR]:
    """The optimiser of ``model`` and its schedule over ``steps`` optimiser steps.

    ``rate`` gives a factor on the learning rate by the name of a parameter.
    """
    parameters = groups(model, settings.weight_decay)
    if rate is not None:
        parameters = _by_rate(model, parameters, settings.lr, rate)
    optimizer = _optimizer(parameters, settings)
    factor = schedule(settings, steps)
    return optimizer, LambdaLR(optimizer, factor)


def groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Trainable parameters in two groups: norms, biases and scalars get no weight decay.

    These are the parameters with fewer than two dimensions. LARS does not adapt them either.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    weights = [p for p in trained if p.ndim > 1]
    unregularised = [p for p in trained if p.ndim <= 1]
    return [
        {"params": weights, "weight_decay": weight_decay, "adapt": True},
        {"params": unregularised, "weight_decay": 0.0, "adapt": False},
    ]


def _by_rate(
    model: nn.Module, parameters: list[dict[str, Any]], lr: float, rate: Callable[[str], float]
) -> list[dict[str, Any]]:
    """The groups, split by learning rate."""
    factor = {parameter: rate(name) for name, parameter in model.named_parameters()}
    return [
        {**group, "params": [p for p in group["params"] if factor[p] == f], "lr": lr * f}
        for group in parameters
        for f in sorted({factor[p] for p in group["params"]})
    ]


def _optimizer(parameters: list[dict[str, Any]], settings: recipes.Optimizer) -> Optimizer:
    match settings.name:
        case "adamw":
            return AdamW(parameters, lr=settings.lr, betas=settings.betas)
        case "adam":
            return Adam(parameters, lr=settings.lr, betas=settings.betas)
        case "sgd":
            return SGD(parameters, lr=settings.lr, momentum=settings.momentum)
        case "lars":
            return LARS(parameters, lr=settings.lr, momentum=settings.momentum)


def schedule(settings: recipes.Optimizer, steps: int) -> Callable[[int], float]:
    """The factor on ``settings.lr`` at optimiser step t = 0 … steps − 1.

    Linear warm-up over the first w = round(warmup · steps) steps, (t + 1) / w; then constant, or a
    half cosine from 1 at t = w to ``final_lr`` / ``lr`` at the last step (Loshchilov & Hutter 2017,
    arXiv 1608.03983).
    """
    warm = round(settings.warmup * steps)
    end = settings.final_lr / settings.lr

    def factor(t: int) -> float:
        if t < warm:
            return (t + 1) / warm
        if settings.schedule == "constant":
            return 1.0
        done = min(1.0, (t - warm) / max(1, steps - 1 - warm))
        return end + (1 - end) * 0.5 * (1 + math.cos(math.pi * done))

    return factor


class LARS(Optimizer):
    """Layer-wise adaptive rate scaling (You, Gitman & Ginsburg 2017, arXiv 1708.03888).

    With weight w, gradient g, decay λ, momentum μ and trust η:
    ``d = g + λw; d ← d · η‖w‖/‖d‖ (adapted groups); v ← μv + d; w ← w − lr·v``.

    The paper puts lr inside v and divides by ‖g‖ + λ‖w‖; this is the form that SimCLR, BYOL and
    Barlow Twins used. A group with ``adapt=False`` is SGD with momentum.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 1e-3,
    ) -> None:
        super().__init__(
            parameters,
            {
                "lr": lr,
                "momentum": momentum,
                "weight_decay": weight_decay,
                "trust": trust,
                "adapt": True,
            },
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update; returns what ``closure`` returns."""
        result = None
        if closure is not None:
            with torch.enable_grad():
                result = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, weight.grad, group)
        return result

    def _update(self, weight: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        change = grad.add(weight, alpha=group["weight_decay"])
        if group["adapt"]:
            weight_norm, change_norm = weight.norm(), change.norm()
            ratio = group["trust"] * weight_norm / change_norm
            # A zero weight or gradient has no direction to scale: take the plain step.
            scaled = (weight_norm > 0) & (change_norm > 0)
            change = change * torch.where(scaled, ratio, torch.ones_like(ratio))
        state = self.state[weight]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(weight)
        weight.sub_(state["momentum"].mul_(group["momentum"]).add_(change), alpha=group["lr"])
