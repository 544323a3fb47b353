"""Weights that change over training, such as the mix of two losses."""

from __future__ import annotations

import math
from typing import Literal

from medcl.methods.contract import State

Curve = Literal["linear", "parabolic", "cosine", "step"]


def fade(curve: Curve, state: State) -> float:
    """From 1 at the first step to 0 at the last; t = step / steps.

    linear: 1 − t · parabolic: 1 − t² · cosine: (1 + cos πt)/2 · step: 1 in the first half, then 0.
    These are the curricula of SC-MIL (Juyal 2024, arXiv 2303.13405).
    """
    t = min(state.step / max(state.steps, 1), 1.0)
    if curve == "linear":
        return 1.0 - t
    if curve == "parabolic":
        return 1.0 - t**2
    if curve == "cosine":
        return (1.0 + math.cos(math.pi * t)) / 2.0
    return 1.0 if t < 0.5 else 0.0


def between(ends: tuple[float, float], curve: Curve, state: State) -> float:
    """A value along ``curve``, from ``ends[0]`` at the first step to ``ends[1]`` at the last."""
    first, last = ends
    return last + (first - last) * fade(curve, state)
