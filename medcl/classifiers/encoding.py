"""Shared by classifiers on an encoder: its width, and the depth of a parameter in it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn


def width(encoder: nn.Module, x: Tensor) -> int:
    """Number of features that the encoder returns for such inputs."""
    training = encoder.training
    with torch.inference_mode():
        features: Tensor = encoder.eval()(x[:2].float())
    encoder.train(training)
    return features.shape[1]


def blocks(module: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The parts with weights, in order of registration; lists are expanded.

    That order is the order of the forward pass in the encoders of medcl and in most others.
    """
    for key, child in module.named_children():
        path = f"{name}{key}."
        if isinstance(child, nn.Sequential | nn.ModuleList):
            yield from blocks(child, path)
        elif any(True for _ in child.parameters()):
            yield path, child


def rates(encoder: nn.Module, decay: float) -> dict[str, float]:
    """Parameter name → ``decay`` to the power of the number of blocks above it, from 1.

    Weights outside all blocks (a class token, positions) get the rate of the first block.
    """
    paths = [path for path, _ in blocks(encoder)]
    out = {}
    for name, _ in encoder.named_parameters():
        level = next((n for n, path in enumerate(paths) if name.startswith(path)), 0)
        out[name] = decay ** (max(1, len(paths)) - level)
    return out
