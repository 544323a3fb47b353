"""Weights that change over training, such as the mix of two losses."""

from __future__ import annotations

import math
from typing import Literal

from medcl.methods.contract import State

Curve = Literal["constant", "linear", "parabolic", "cosine", "step"]


def fade(curve: Curve, state: State) -> float:
    """From 1 at the first step to 0 at the last; t = step / steps.

    constant: 1 · linear: 1 − t · parabolic: 1 − t² · cosine: (1 + cos πt)/2 · step: 1 in the first
    half, 0 in the second. These are the curricula of SC-MIL (Juyal 2024, arXiv 2303.13405).
    """
    t = min(state.step / max(state.steps, 1), 1.0)
    if curve == "constant":
        return 1.0
    if curve == "linear":
        return 1.0 - t
    if curve == "parabolic":
        return 1.0 - t**2
    if curve == "cosine":
        return (1.0 + math.cos(math.pi * t)) / 2.0
    return 1.0 if t < 0.5 else 0.0
