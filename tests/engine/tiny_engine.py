"""A complete small modality for the engine's tests: scikit-learn's digits (real, 8×8 scans).

Forty "patients" hold the digits p, p + 40, p + 80, …; one .npy file each, pixels and class.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tiny_archive
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy, normalize

from medcl import plugin as plugins
from medcl import recipe as recipes
from medcl.errors import UsageError
from medcl.methods.contract import View
from medcl.nn.weights import load
from medcl.objectives.info_nce import info_nce
from medcl.plugin import CONTRACT, Plugin, Samples, Task

HERE = "tiny_engine"


def archive(folder: Path, patients: int = 40) -> Path:
    """Write the archive's files."""
    digits = load_digits()
    table = np.concatenate([digits.data / 16, digits.target[:, None]], axis=1).astype(np.float32)
    folder.mkdir(parents=True)
    for p in range(patients):
        np.save(folder / f"p{p:02}.npy", table[p::patients])
    return folder


def index(folder: Path) -> Path:
    """Archive and index of it, below ``folder``; returns the index."""
    from medcl.archive.index import build

    build(archive(folder / "archive"), folder / "index", TINY)
    return folder / "index"


def dataset(
    items,
    arrays,
    *,
    digit: bool = True,
    extra: int = 0,
    label: str = "digit",
    beside: Path | None = None,
):
    """``digit``: with labels, called ``label``; ``extra``: how many samples of each patient to
    keep, 0 for all; ``beside``: a folder that must be there."""
    if beside is not None and not beside.is_dir():
        raise UsageError(f"dataset.beside: there is no folder {beside}.")
    parts = [(row, arrays(row["id"])) for row in items.sort("id").iter_rows(named=True)]
    parts = [(row, {k: np.asarray(v)[: extra or None] for k, v in a.items()}) for row, a in parts]
    x = np.concatenate([a["x"] for _, a in parts])
    items_of = [row["id"] for row, a in parts for _ in a["x"]]
    patients = [row["patient"] for row, a in parts for _ in a["x"]]
    labels = {label: np.concatenate([a["digit"] for _, a in parts])} if digit else {}
    ids = [f"{item}:{i}" for i, item in enumerate(items_of)]
    return Samples(ids, items_of, patients, partial(read, x), labels)


def read(x, rows):
    return {"x": x[rows]}


class Noise(nn.Module):
    def __init__(self, *, sigma: float = 0.2) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, x, generator, kind="global"):
        if self.sigma == 0:
            return x
        noise = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        return x + self.sigma * noise


class MLP(nn.Module):
    def __init__(
        self,
        *,
        width: int = 32,
        norm: bool = True,
        dropout: float = 0.1,
        weights: Path | None = None,
    ) -> None:
        super().__init__()
        self.width = width
        self.body = nn.Sequential(
            nn.Linear(64, 64),
            nn.BatchNorm1d(64) if norm else nn.Identity(),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(64, width),
        )
        if weights is not None:
            load(self, weights)

    def forward(self, x):
        return self.body(x)


class Momentum(nn.Module):
    """InfoNCE against a momentum copy and a queue: every kind of state that a method can have."""

    needs = ()

    def __init__(
        self, encoder: nn.Module, *, partner: bool = False, break_at: int = -1, queue: int = 256
    ) -> None:
        super().__init__()
        self.views = [View(), View(source=int(partner))]
        self.encoder = encoder
        self.break_at = break_at
        self.copy = type(encoder)(width=encoder.width)
        self.copy.load_state_dict(encoder.state_dict())
        self.copy.requires_grad_(False)
        self.register_buffer("queue", normalize(torch.randn(queue, encoder.width), dim=1))

    def step(self, views, batch, state):
        x = self.encoder(views[0])
        q = normalize(x, dim=1)
        with torch.no_grad():
            k = normalize(self.copy(views[1]), dim=1)
        logits = torch.cat([(q * k).sum(1, keepdim=True), q @ self.queue.T], dim=1) / 0.2
        loss = cross_entropy(logits, torch.zeros(len(q), dtype=torch.long, device=q.device))
        self.queue = torch.cat([k.float(), self.queue])[: len(self.queue)]
        if state.step == self.break_at and state.ranks.rank == state.ranks.world - 1:
            loss = loss * torch.nan
        return {"loss": loss, "embedding": x.detach(), "top": logits.detach()[:, 0].mean()}

    @torch.no_grad()
    def after_step(self, state):
        for slow, fast in zip(self.copy.parameters(), self.encoder.parameters(), strict=True):
            slow.lerp_(fast, 0.1)


class Contrast(nn.Module):
    """InfoNCE over the batches of all ranks."""

    views = (View(), View())
    needs = ()

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def step(self, views, batch, state):
        x, y = (self.encoder(view) for view in views)
        loss = info_nce(x, y, temperature=0.2, ranks=state.ranks)
        return {"loss": loss, "embedding": x.detach()}

    def after_step(self, state):
        pass


class Needy(Contrast):
    needs = ("table",)


class Collapsing(nn.Module):
    """Pulls positives together and nothing else: it really collapses."""

    views = (View(), View())
    needs = ()

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def step(self, views, batch, state):
        x, y = (self.encoder(view) for view in views)
        pull = (x - y).square().mean() + (x - x.mean(0).detach().roll(1)).square().mean()
        return {"loss": pull, "embedding": x.detach()}

    def after_step(self, state):
        pass


TINY = Plugin(
    name="tiny",
    summary="scikit-learn digits",
    contract=CONTRACT,
    units=tiny_archive.units,
    scan=tiny_archive.scan,
    prepare="tiny_archive:prepare",
    dataset=f"{HERE}:dataset",
    views=f"{HERE}:Noise",
    encoders={"mlp": f"{HERE}:MLP"},
    methods={
        "tiny_momentum": f"{HERE}:Momentum",
        "tiny_contrast": f"{HERE}:Contrast",
        "tiny_collapsing": f"{HERE}:Collapsing",
        "tiny_needy": f"{HERE}:Needy",
    },
    tasks={"digit": Task("digit", "multiclass", {"digit": True})},
)


def install(patch=setattr) -> None:
    """Make the plugin known in this process. ``patch`` as monkeypatch.setattr."""
    patch(plugins, "discover", lambda: {"tiny": TINY})


def recipe(overrides: dict[str, Any] | None = None) -> recipes.Recipe:
    """A recipe that trains in about a second; ``overrides`` by section."""
    raw: dict[str, Any] = {
        "name": "tiny",
        "plugin": "tiny",
        "encoder": {"name": "mlp"},
        "method": {"name": "tiny_momentum"},
        "optimizer": {"lr": 1e-3},
        "trainer": {
            "steps": 60,
            "batch_size": 64,
            "checkpoint_every": 20,
            "log_every": 5,
            "accelerator": "cpu",
        },
        "monitor": {"every": 25, "samples": 256},
    }
    for section, values in (overrides or {}).items():
        raw[section] = {**raw.get(section, {}), **values} if isinstance(values, dict) else values
    return recipes.parse(raw)


def broken_off(partner: bool) -> recipes.Recipe:
    """The recipe of the resume tests: accumulation, dropout, batch norm, momentum copy, queue."""
    settings = {"accumulate": 2, "steps": 50}
    return recipe({"method": {"partner": partner}, "trainer": settings})
