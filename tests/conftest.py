"""Shared between test folders: where real data lie, and a toy plugin installed as a third party."""

from __future__ import annotations

import csv
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from medcl import plugin as plugins
from medcl import recipe as recipes
from medcl.io import roots
from medcl.plugin import Samples
from medcl.recipe import Recipe
from medcl.run import Run

sys.path.insert(0, str(Path(__file__).parent / "toy_plugin"))

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the suite runs one process per core

# On a slow or busy machine an example may take long, and nothing is wrong: no deadlines.
settings.register_profile(
    "medcl",
    max_examples=int(os.environ.get("MEDCL_EXAMPLES", "40")),  # of each property: CI has 20 minutes
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("medcl")

# Processes of tests are forked from one that has loaded these: they take longer than the tests.
multiprocessing.set_forkserver_preload(["medcl.engine.pretrain", "sklearn.datasets"])

REPO = Path(__file__).parent.parent
SHARED = REPO.parent / "shared" / "data"


@pytest.fixture(autouse=True)
def _places() -> Iterator[None]:
    """A command in a test's own process leaves what --archive and --data said to no other test."""
    yield
    for variable in (roots.ARCHIVE, roots.DATA, roots.RUN):
        os.environ.pop(variable, None)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The larger real data sets beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the larger real data sets in {SHARED}, which are not here")
    return SHARED


@pytest.fixture(scope="session")
def install() -> Callable[[Path, Path], None]:
    """Install a package into a folder of its own: (source, target)."""

    def run(source: Path, target: Path) -> None:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        pip += ["--no-build-isolation", "--disable-pip-version-check"]
        subprocess.run([*pip, "--target", str(target), str(source)], check=True)

    return run


@pytest.fixture(scope="session")
def third_party(
    tmp_path_factory: pytest.TempPathFactory, install: Callable[[Path, Path], None]
) -> dict[str, str]:
    """An environment in which the toy plugin is installed, from its own package, elsewhere."""
    target = tmp_path_factory.mktemp("site")
    install(REPO / "tests" / "toy_plugin", target)
    places = [str(target), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(places), "COLUMNS": "200"}


@pytest.fixture(scope="session", autouse=True)
def toy() -> Iterator[plugins.Plugin]:
    """The toy plugin, known to medcl in this process without being installed."""
    from medcl_toy.plugin import plugin

    patch = pytest.MonkeyPatch()
    others = plugins.discover
    patch.setattr(plugins, "discover", lambda: {**others(), "toy": plugin})
    yield plugin
    patch.undo()


@pytest.fixture(scope="session")
def digits_index(toy: plugins.Plugin, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from toy_run import make_index

    return make_index(tmp_path_factory.mktemp("synthetic_writers"))


@pytest.fixture(scope="session")
def digits_run(digits_index: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    from toy_run import make_run

    return make_run(digits_index, tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="session")
def musk() -> tuple[Samples, np.ndarray]:
    """MUSK 1 (real; CC BY 4.0): 92 bags, whether each is a musk."""
    from bags_in_memory import MUSK, of_bags

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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The demo first: half a minute in one piece, for which the other processes would wait."""
    items.sort(key=lambda item: item.path.name != "test_demo.py")
