"""The contract of a method: an ``nn.Module`` with a ``step``, without Lightning or a modality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from medcl.nn.distributed import ALONE, Ranks


@dataclass(frozen=True)
class View:
    """One augmented input that a method asks for.

    Attributes:
        kind: passed to the plugin's views ("global", "local", "none" for no augmentation, ...).
        source: 0 for the anchor sample, 1 for another sample of the same patient.
    """

    kind: str = "global"
    source: int = 0


@dataclass(frozen=True)
class State:
    """Progress of training, ``step`` of ``steps`` (optimiser steps), and the other processes."""

    step: int = 0
    steps: int = 1
    ranks: Ranks = ALONE

    @property
    def progress(self) -> float:
        """How much of the training is over, 0 … 1."""
        return self.step / max(self.steps, 1)


@runtime_checkable
class Method(Protocol):
    """The contract of ``medcl.methods``. Built as ``method(encoder, *, ...)``.

    A method that updates something after each optimiser step (momentum copies, queues, prototypes)
    is `Following` too.
    """

    @property
    def encoder(self) -> nn.Module:
        """The module that the run saves: (B, ...) → (B, width)."""
        ...

    @property
    def views(self) -> Sequence[View]:
        """The views that `step` takes, in this order."""
        ...

    @property
    def needs(self) -> Sequence[str]:
        """Keys of the batch, beyond ``patient``, that `step` reads ("table", ...)."""
        ...

    def step(
        self, views: Sequence[Tensor], batch: Mapping[str, Tensor], state: State
    ) -> dict[str, Tensor]:
        """One training step.

        Args:
            views: one tensor (B, ...) for each of ``self.views``.
            batch: ``patient`` (B,) int64 codes, the same on all ranks; ``label`` (B,) where known
                (−1 or NaN where missing); ``site`` (B,) int64 codes, 0 the site with most training
                samples, −1 where unknown; all other keys of the samples.
            state: the progress of training.

        Returns:
            ``loss`` (scalar, with gradient), ``embedding`` (B, width) for the monitors (detached),
            and any further scalars to log.
        """
        ...


@runtime_checkable
class ConstantRate(Protocol):
    """A method that keeps the learning rate of some parameters after the warm-up."""

    @property
    def constant_rate(self) -> Sequence[str]:
        """How their names begin ("predictor.")."""
        ...


@runtime_checkable
class Following(Protocol):
    """A method or classifier with an update after each optimiser step."""

    def after_step(self, state: State) -> None:
        """Update momentum copies, queues or prototypes after an optimiser step."""
        ...


def after_step(part: object, state: State) -> None:
    """Call ``part.after_step`` if the method or classifier has one."""
    if isinstance(part, Following):
        part.after_step(state)


@runtime_checkable
class Paired(Protocol):
    """A method that maps two modalities of a sample (ECG and PPG, image and table) to one space."""

    @property
    def modalities(self) -> Sequence[str]:
        """Names of the two; empty for a wrapper around a method with one modality."""
        ...

    def project(self, batch: Mapping[str, Tensor], modality: str) -> Tensor:
        """One modality of the samples, without augmentation, in the shared space.

        Args:
            batch: what the samples carry, ``x`` without any view taken.
            modality: one of ``modalities``.

        Returns:
            (B, out), a row of zeros where a sample lacks this modality.
        """
        ...


def modalities_of(method: object) -> tuple[str, ...]:
    """Names of a method's modalities, () if it is not `Paired`; ``sides`` is their older name."""
    if not callable(getattr(method, "project", None)):
        return ()
    return tuple(getattr(method, "modalities", getattr(method, "sides", ())))
