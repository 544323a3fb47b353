"""Optimisers and the learning rate of a recipe."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
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
    constant: Sequence[str] = (),
) -> tuple[Optimizer, LambdaLR]:
    """The optimiser of ``model`` and its schedule over ``steps`` optimiser steps.

    Args:
        model: whose parameters are trained.
        settings: of the recipe.
        steps: optimiser steps.
        rate: a factor on the learning rate by the name of a parameter.
        constant: how the names of parameters begin whose learning rate stays after the warm-up.
    """
    held = [p for n, p in model.named_parameters() if n.startswith(tuple(constant))]
    parameters = [
        {**group, "constant": stays}
        for group in groups(model, settings.weight_decay)
        for stays in ((False, True) if held else (False,))
    ]
    if held:
        chosen = set(held)
        for group in parameters:
            group["params"] = [p for p in group["params"] if (p in chosen) == group["constant"]]
    if rate is not None:
        parameters = _by_rate(model, parameters, settings.lr, rate)
    optimizer = _optimizer(parameters, settings)
    return optimizer, Schedule(optimizer, settings, steps)


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
        for f in sorted({factor[p] for p in group["params"]}, reverse=True)
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


class Schedule(LambdaLR):
    """`schedule` of each group's learning rate, and `decay_schedule` of its weight decay."""

    def __init__(self, optimizer: Optimizer, settings: recipes.Optimizer, steps: int) -> None:
        self.decay = decay_schedule(settings, steps)
        falling = schedule(settings, steps)
        staying = schedule(settings.model_copy(update={"schedule": "constant"}), steps)
        factors = [staying if group["constant"] else falling for group in optimizer.param_groups]
        super().__init__(optimizer, factors)

    def state_dict(self) -> dict[str, Any]:
        """As of any scheduler, which has no functions in it: they come from the recipe."""
        return {k: v for k, v in super().state_dict().items() if k != "decay"}

    def get_lr(self) -> list[float]:  # type: ignore[override]
        """The rates of this step; sets the weight decay of those that have one."""
        for group in self.optimizer.param_groups:
            if group["adapt"]:
                group["weight_decay"] = self.decay(self.last_epoch)
        return [float(rate) for rate in super().get_lr()]


def decay_schedule(settings: recipes.Optimizer, steps: int) -> Callable[[int], float]:
    """The weight decay at optimiser step t = 0 … steps − 1: a half cosine between its two ends.

    DINO (Caron 2021, arXiv 2104.14294) lets it rise from 0.04 to 0.4.
    """
    first, last = settings.weight_decay, settings.final_weight_decay
    if last is None:
        return lambda t: first

    def decay(t: int) -> float:
        done = min(1.0, t / max(1, steps - 1))
        return last + (first - last) * 0.5 * (1 + math.cos(math.pi * done))

    return decay


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
