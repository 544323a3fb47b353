"""Stateless randomness: every draw is a function of the seed and the position in training."""

from __future__ import annotations

import zlib

import numpy as np
import torch

MODEL, ORDER, STEP, VIEW, ONLINE, DRAW = range(6)
"""Streams: a first number for `derive`, so that two uses of the same place never share a seed."""


def derive(seed: int, *position: int) -> int:
    """A 63-bit seed for one position: ``derive(seed, VIEW, micro_batch, rank, view)``."""
    return int(np.random.SeedSequence((seed, *position)).generate_state(1, np.uint64)[0] >> 1)


def generator(device: torch.device, seed: int, *position: int) -> torch.Generator:
    """A torch generator on ``device`` for one position, see `derive`."""
    return torch.Generator(device).manual_seed(derive(seed, *position))


def reseed(device: torch.device, seed: int, *position: int) -> None:
    """Seed torch's global generators, which dropout uses.

    `torch.manual_seed` is slower than a small training step: without CUDA it formats a stack trace
    at every call.
    """
    number = derive(seed, *position)
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        torch.cuda.manual_seed(number)


def host_uniform(random: torch.Generator | None) -> float:
    """A number in 0–1 for the host, a function of where ``random`` stands (None: torch's own).

    For what decides a shape: a number drawn on a device would have to be waited for. A generator
    does not move on, so that draws on a device and on a processor stay in step.
    """
    if random is None:
        return float(torch.rand((), device="cpu").numpy())
    state = random.get_state().numpy().tobytes()
    return float(np.random.default_rng(zlib.crc32(state)).random())
