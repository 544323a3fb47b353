"""A real data set of bags, and a small recipe for it."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from bags_in_memory import MUSK, of_bags

from medcl import recipe as recipes
from medcl.plugin import Samples
from medcl.recipe import Recipe


@pytest.fixture(scope="session")
def musk() -> tuple[Samples, np.ndarray]:
    """MUSK 1 (real; CC BY 4.0): 92 bags, whether each is a musk."""
    bags: dict[str, list[list[float]]] = {}
    y: dict[str, int] = {}
    for row in csv.reader(MUSK.read_text(encoding="utf-8").splitlines()):
        bags.setdefault(row[0], []).append([float(v) for v in row[2:-1]])
        y[row[0]] = int(float(row[-1].rstrip(".")))
    samples = of_bags([np.array(rows, np.float32) for rows in bags.values()])
    return samples, np.array([y[name] for name in bags])


@pytest.fixture
def recipe() -> Recipe:
    """A small recipe that classifies bags."""
    return recipes.parse(
        {
            "name": "small",
            "plugin": "pathology",
            "classifier": {"name": "mil", "aggregator": "abmil", "layers": [32]},
            "optimizer": {"lr": 1e-2, "schedule": "constant", "warmup": 0},
            "finetune": {
                "label": "y",
                "epochs": 4,
                "batch_size": 16,
                "standardise": True,
                "folds": 3,
                "bootstraps": 100,
            },
        }
    )
