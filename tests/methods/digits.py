"""scikit-learn's digits (real, 8×8), tiny encoders, and a bare training loop."""

from __future__ import annotations

import math
import sys
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medcl.methods.contract import Method, State, View, after_step
from medcl.nn.s4d import S4DStack
from medcl.nn.vit import ViT

RATE = 2e-3  # falls to zero over the last quarter
BATCH = 64
TRAIN = 1297  # the other 500 are held out


class Convolutions(nn.Module):
    """(B, 1, 8, 8) → (B, widths[-1]), with its pyramid shown."""

    channels = 1

    def __init__(self, widths: tuple[int, ...], strides: tuple[int, ...]) -> None:
        super().__init__()
        self.width, self.stage_widths = widths[-1], widths
        self.strides = tuple(math.prod(strides[: n + 1]) for n in range(len(strides)))
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
            )
            for before, after, stride in zip((1, *widths), widths, strides, strict=False)
        )

    def stages(self, x: Tensor) -> list[Tensor]:
        shown = []
        for layer in self.layers:
            x = layer(x)
            shown.append(x)
        return shown

    def pool(self, stage: Tensor) -> Tensor:
        return stage.mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.stages(x)[-1])


def cnn() -> Convolutions:
    return Convolutions((16, 32, 32), (1, 2, 1))


def pyramid() -> Convolutions:
    return Convolutions((16, 32), (1, 2))


def vit() -> nn.Module:
    return ViT(channels=1, patch=(2, 2), width=32, depth=2, heads=2)


class Ink(ViT):
    """`vit` of ink in black and white: so that patches differ by more than their positions."""

    def prepared(self, x: Tensor) -> Tensor:
        return 8 * (x - 0.3)


def ink() -> nn.Module:
    return Ink(channels=1, patch=(2, 2), width=32, depth=2, heads=2)


class Rows(nn.Module):
    """A picture as a sequence of its rows: (B, 1, 8, 8) → (B, 32), each row after those above."""

    width = local_width = context_width = 32
    causal = True

    def __init__(self) -> None:
        super().__init__()
        self.row = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32))
        self.stack = S4DStack(32, 2, 4, causal=True)

    def local(self, x: Tensor) -> Tensor:
        return self.row(x.flatten(1, 2))

    def context(self, local: Tensor) -> Tensor:
        return self.stack(local.transpose(1, 2)).transpose(1, 2)

    def pool(self, context: Tensor) -> Tensor:
        return context.mean(dim=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.context(self.local(x)))


@cache
def digits() -> tuple[Tensor, Tensor]:
    """Pictures (1797, 1, 8, 8) in [0, 1], shuffled, and their labels (1797,)."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    pictures = torch.tensor(x, dtype=torch.float).reshape(-1, 1, 8, 8) / 16
    return pictures[order], torch.tensor(y)[order]


def table(x: Tensor) -> Tensor:
    """A table that goes with each picture: which quarter holds most ink (categorical), and ink by
    row (numeric), a tenth of it missing."""
    quarters = F.avg_pool2d(x, 4).flatten(1).argmax(dim=1, keepdim=True).float()
    ink = x.mean(dim=3).flatten(1)  # (B, 8)
    columns = torch.cat([quarters, (ink - 0.3) / 0.25], dim=1)
    return torch.where(torch.rand_like(columns) < 0.1, torch.nan, columns)


def augment(x: Tensor, view: View) -> Tensor:
    """A shift by at most one pixel, a brightness, noise; a local view is a 6×6 crop of it."""
    theta = torch.zeros(len(x), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = 1.0
    theta[:, :, :2] += torch.empty(len(x), 2, 2).uniform_(-0.15, 0.15)
    theta[:, :, 2] = torch.empty(len(x), 2).uniform_(-0.25, 0.25)
    x = F.grid_sample(x, F.affine_grid(theta, list(x.shape), False), align_corners=False)
    x = x * torch.empty(len(x), 1, 1, 1).uniform_(0.7, 1.3) + 0.05 * torch.randn_like(x)
    return x[..., 1:7, 1:7] if view.kind == "local" else x


def draw(batch: int = BATCH) -> tuple[Tensor, dict[str, Tensor]]:
    """Samples and what they carry: every second label is missing, each sample its own patient,
    of one of two sites."""
    pictures, labels = digits()
    at = torch.randint(TRAIN, (batch,))
    label = labels[at].clone()
    label[torch.rand(batch) < 0.5] = -1
    carried = {"patient": at, "label": label, "table": table(pictures[at]), "site": at % 2}
    carried["teacher"] = pictures[at].flatten(1)  # as good as any features of digits: kNN 0.98
    return pictures[at], carried


def optimiser(method: nn.Module) -> torch.optim.Optimizer:
    moving = [p for p in method.parameters() if p.requires_grad]
    return torch.optim.AdamW(moving, lr=RATE, weight_decay=1e-4)


def train(
    method: nn.Module,
    moving: torch.optim.Optimizer,
    start: int,
    stop: int,
    steps: int,
    rate: float = RATE,
    material: Any = sys.modules[__name__],
) -> list[dict[str, Tensor]]:
    """The bare loop a method is written for; returns what each step returned.

    ``material`` is what it is trained on: this module, or what offers the same.
    """
    assert isinstance(method, Method)
    method.train()
    results = []
    for n in range(start, stop):
        state = State(n, steps)
        for group in moving.param_groups:
            group["lr"] = rate * min(1.0, 4 * (1 - n / steps))
        x, batch = material.draw()
        views = [material.augment(x, view) for view in method.views]
        result = method.step(views, batch, state)
        moving.zero_grad()
        result["loss"].backward()
        moving.step()
        after_step(method, state)
        results.append({name: value.detach() for name, value in result.items()})
    return results


@torch.no_grad()
def embed(encoder: nn.Module) -> Tensor:
    return encoder.eval()(digits()[0])


def knn_accuracy(features: Tensor, neighbours: int = 5) -> float:
    """Held-out accuracy of cosine k nearest neighbours."""
    x, y = F.normalize(features - features[:TRAIN].mean(dim=0), dim=1), digits()[1]
    nearest = (x[TRAIN:] @ x[:TRAIN].T).topk(neighbours).indices
    votes = F.one_hot(y[nearest], 10).sum(dim=1).argmax(dim=1)
    return (votes == y[TRAIN:]).float().mean().item()
