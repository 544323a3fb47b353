"""Real digits dealt out to invented writers (synthetic persons), and a finished run on them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from medcl import plugin as plugins
from medcl.run import Run

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "toy_plugin")]


@pytest.fixture(scope="session", autouse=True)
def toy() -> plugins.Plugin:
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
