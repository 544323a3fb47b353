"""The parts that do the work. Keyword-only parameters are what a recipe may set."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from medcl.plugin import Arrays, Samples


def prepare(
    root: Path, files: Sequence[str], fields: Mapping[str, object], *, scale: float = 16.0
) -> dict[str, np.ndarray]:
    """Decode a writer's CSV once: pixels in 0…1 and the classes."""
    table = np.loadtxt(root / files[0], delimiter=",", ndmin=2, dtype=np.float32)
    pixels = table[:, 1:].reshape(-1, 1, 8, 8) / scale  # (N, 1, 8, 8)
    return {"pixels": pixels, "digit": table[:, 0].astype(np.int64)}


def dataset(items: pl.DataFrame, arrays: Arrays, *, limit: int | None = None) -> Samples:
    """Every digit is a sample; the first ``limit`` of a writer, if that is set."""
    where = [(i, n) for i in items["id"] for n in range(len(arrays(i)["digit"][:limit]))]
    patient = dict(zip(items["id"], items["patient"], strict=True))
    return Samples(
        ids=[f"{item}#{n}" for item, n in where],
        items=[item for item, _ in where],
        patients=[patient[item] for item, _ in where],
        read=partial(_read, where, arrays),
        labels={"digit": np.array([arrays(i)["digit"][n] for i, n in where], dtype=np.int64)},
    )


def _read(
    where: list[tuple[str, int]], arrays: Arrays, positions: np.ndarray
) -> dict[str, np.ndarray]:
    """A batch: {"x": (B, 1, 8, 8)}."""
    return {"x": np.stack([arrays(where[p][0])["pixels"][where[p][1]] for p in positions])}


class Shift(nn.Module):
    """Shift every image by up to ``pixels`` and add noise, the whole batch at once."""

    def __init__(self, *, pixels: float = 1.0, noise: float = 0.1) -> None:
        super().__init__()
        self.pixels, self.noise = pixels, noise

    def forward(self, x: Tensor, generator: torch.Generator, kind: str = "global") -> Tensor:
        """(B, 1, 8, 8) → (B, 1, 8, 8)."""
        if kind == "none":
            return x
        where = torch.eye(2, 3, device=x.device).repeat(len(x), 1, 1)  # (B, 2, 3)
        draw = torch.rand(len(x), 2, generator=generator, device=x.device)
        where[:, :, 2] = (2 * draw - 1) * self.pixels / 4  # the image is 2 units wide
        grid = nn.functional.affine_grid(where, list(x.shape), align_corners=False)
        moved = nn.functional.grid_sample(x, grid, align_corners=False)
        return moved + self.noise * torch.randn(x.shape, generator=generator, device=x.device)


def small(*, channels: int = 16) -> nn.Module:
    """A small convolutional encoder: (B, 1, 8, 8) → (B, 4 · channels)."""
    encoder = nn.Sequential(
        nn.Conv2d(1, channels, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(channels, 4 * channels, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    encoder.width = 4 * channels
    return encoder


def pixels(batch: Mapping[str, np.ndarray]) -> np.ndarray:
    """The hand-crafted features to beat: the pixels themselves. → (B, 64)."""
    return batch["x"].reshape(len(batch["x"]), -1)
