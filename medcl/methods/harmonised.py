"""Gradient harmonisation: removes conflicts between the gradients of a method's losses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from medcl.catalogue import METHODS
from medcl.errors import UsageError
from medcl.methods.contract import Method, Paired, State, after_step, modalities_of
from medcl.methods.schedule import Curve, between
from medcl.registry import checked, lookup

PART = "loss_"
"""Prefix under which a method with several losses also returns each one, with gradient; ``loss``
is their sum."""


def realign(gradients: Tensor) -> Tensor:
    """Each of (L, P) gradients without its components that oppose the other gradients: (L, P).

    Where g_i·g_j < 0: g_i ← g_i − (g_i·g_j / ‖g_j‖²)·g_j, with the original g_j.
    """
    aligned = gradients.clone()
    for i in range(len(gradients)):
        for j in range(len(gradients)):
            other = gradients[j]
            opposed = (aligned[i] @ other).clamp(max=0.0)
            square = (other @ other).clamp_min(torch.finfo(other.dtype).tiny)
            if i != j:
                aligned[i] -= opposed / square * other
    return aligned


def agreement(gradients: Tensor) -> Tensor:
    """The smallest cosine between any two of (L, P) gradients: scalar."""
    unit = nn.functional.normalize(gradients, dim=1)
    i, j = torch.triu_indices(len(unit), len(unit), offset=1)
    return (unit @ unit.T)[i, j].min()


def _sum(gradients: Iterable[Tensor | None]) -> Tensor | float:
    """The sum of the gradients that exist; zero if no loss reaches the parameter."""
    return sum((g for g in gradients if g is not None), 0.0)


class Harmonised(nn.Module):
    """Wu 2022, arXiv 2211.02077, around any method that has several losses.

    Gradients with respect to shared parameters are projected onto the normal plane of those they
    conflict with (`realign`); parameters of a single loss keep their gradient. With ``agree``, a
    batch whose losses agree less (in cosine) than the threshold is skipped: the curriculum. The
    paper does this for samples, we do it for batches, since each sample would cost a backward pass.

    Costs one backward pass per loss. Under 16-bit floats prefer bf16: these gradients are not
    scaled.

    Args:
        encoder: (B, ...) → (B, width).
        method: a registered method with several losses ("tip", "can", ...).
        settings: its settings.
        agree: threshold at the first and the last step, from −1 (everything) to 1; or None.
        curve: of the threshold from the first to the last step.

    Raises:
        UsageError: at the first step, if the method has only one loss.
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        method: str = "tip",
        settings: dict[str, Any] | None = None,
        agree: tuple[float, float] | None = None,
        curve: Curve = "linear",
    ) -> None:
        super().__init__()
        factory = lookup(METHODS, method, "method")
        arguments = checked(factory, settings or {}, "method.settings")
        self.method: Method = factory(encoder, **arguments)
        self.name, self.agree, self.curve = method, agree, curve

    @property
    def encoder(self) -> nn.Module:
        """The wrapped method's encoder."""
        return self.method.encoder

    @property
    def views(self) -> Sequence[Any]:
        """The wrapped method's views."""
        return self.method.views

    @property
    def needs(self) -> Sequence[str]:
        """The wrapped method's needs."""
        return self.method.needs

    @property
    def modalities(self) -> Sequence[str]:
        """The wrapped method's modalities, if it has two."""
        return modalities_of(self.method)

    def project(self, batch: Mapping[str, Tensor], modality: str) -> Tensor:
        """The wrapped method's projection."""
        return cast(Paired, self.method).project(batch, modality)

    def step(
        self, views: Sequence[Tensor], batch: Mapping[str, Tensor], state: State
    ) -> dict[str, Tensor]:
        """See `medcl.methods.contract.Method.step`; adds ``agreement``, a cosine, to the logs."""
        result = self.method.step(views, batch, state)
        losses = [value for key, value in result.items() if key.startswith(PART)]
        if len(losses) < 2:
            raise UsageError(f"Method '{self.name}' has one loss: nothing to harmonise.")
        parameters = [p for p in self.parameters() if p.requires_grad]
        each = [
            torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
            for loss in losses
        ]
        shared = [n for n in range(len(parameters)) if all(grads[n] is not None for grads in each)]
        flat = torch.stack([torch.cat([grads[n].flatten() for n in shared]) for grads in each])
        flat = state.ranks.mean(flat)  # (L, P); the same decision on every rank
        cosine = agreement(flat)
        targets = [_sum(grads[n] for grads in each) for n in range(len(parameters))]
        pieces = realign(flat).sum(dim=0).split([parameters[n].numel() for n in shared])
        for n, piece in zip(shared, pieces, strict=True):
            targets[n] = piece.view_as(parameters[n])
        weight = self._weight(cosine, state)
        # A loss of the same value, with the harmonised gradient.
        surrogate = torch.stack(
            [(p * (weight * target)).sum() for p, target in zip(parameters, targets, strict=True)]
        ).sum()
        loss = result["loss"].detach() + surrogate - surrogate.detach()
        logs = {key: value.detach() for key, value in result.items() if key != "loss"}
        return {**logs, "loss": loss, "agreement": cosine.detach()}

    def _weight(self, cosine: Tensor, state: State) -> Tensor:
        """1 if the losses agree at least as much as the threshold, else 0."""
        if self.agree is None:
            return torch.ones_like(cosine)
        return (cosine >= between(self.agree, self.curve, state)).to(cosine.dtype)

    def after_step(self, state: State) -> None:
        """The wrapped method's update."""
        after_step(self.method, state)
