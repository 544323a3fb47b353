"""What a method is: an ``nn.Module`` with a ``step``. It knows neither Lightning nor a modality."""

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
        kind: handed to the plugin's views ("global", "local", "none" for the sample as it is, ...).
        source: 0 for the anchor sample, 1 for another sample of the same patient.
    """

    kind: str = "global"
    source: int = 0


@dataclass(frozen=True)
class State:
    """Where training is: ``step`` of ``steps`` (optimiser steps), and the other processes."""

    step: int = 0
    steps: int = 1
    ranks: Ranks = ALONE


@runtime_checkable
class Method(Protocol):
    """The contract of ``medcl.methods``. Built as ``method(encoder, *, ...)``.

    Attributes:
        encoder: the module that is kept at the end: (B, ...) → (B, width).
        views: the views that `step` is given, in this order.
        needs: what every sample must carry, beyond ``patient``, for `step` to work ("table", ...).
    """

    encoder: nn.Module
    views: Sequence[View]
    needs: Sequence[str]

    def step(
        self, views: Sequence[Tensor], batch: Mapping[str, Tensor], state: State
    ) -> dict[str, Tensor]:
        """One training step.

        Args:
            views: one tensor (B, ...) for each of ``self.views``.
            batch: ``patient`` (B,) int64 codes, the same on all ranks; ``label`` (B,) where known
                (−1 or NaN where missing); ``site`` (B,) int64 codes, 0 the one with most training
                samples, −1 where unknown; whatever else the samples carry.
            state: where training is.

        Returns:
            ``loss`` (scalar, with gradient), ``embedding`` (B, width) for the monitors (detached),
            and any further scalars to log.
        """
        ...

    def after_step(self, state: State) -> None:
        """Called after the optimiser moved: momentum copies, queues, prototypes."""
        ...


@runtime_checkable
class Paired(Protocol):
    """A method that sees two sides of every sample (ECG and PPG, picture and table) in one space.

    Attributes:
        sides: what the two are called; none where a method around another finds it has none.
    """

    sides: Sequence[str]

    def project(self, batch: Mapping[str, Tensor], side: str) -> Tensor:
        """One side of samples as they are, in the space that both share.

        Args:
            batch: what the samples carry, ``x`` without any view taken.
            side: one of ``sides``.

        Returns:
            (B, out), a row of zeros where a sample has not this side.
        """
        ...
