"""Randomness without state: every draw is a function of the seed and of where training is."""

from __future__ import annotations

import numpy as np
import torch

MODEL, ORDER, STEP, VIEW, ONLINE, DRAW = range(6)
"""Streams: a first number for `derive`, so that two uses of the same place never share a seed."""


def derive(seed: int, *place: int) -> int:
    """A 63-bit seed for one place: ``derive(seed, VIEW, micro_batch, rank, view)``."""
    return int(np.random.SeedSequence((seed, *place)).generate_state(1, np.uint64)[0] >> 1)


def generator(device: torch.device, seed: int, *place: int) -> torch.Generator:
    """A torch generator on ``device`` for one place."""
    return torch.Generator(device).manual_seed(derive(seed, *place))


def reseed(device: torch.device, seed: int, *place: int) -> None:
    """Set torch's own generators, which dropout draws from.

    Not `torch.manual_seed`: where CUDA is not in use, it formats a stack trace at every call, which
    takes longer than a small training step.
    """
    number = derive(seed, *place)
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        torch.cuda.manual_seed(number)
