"""The parts' types: mypy checks every registered part, and refuses a wrong one."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from medcl import plugin as plugins
from medcl.classifiers import CLASSIFIERS
from medcl.classifiers.contract import Declares, declared, head_of
from medcl.methods import METHODS
from medcl.plugin import Plugin
from medcl.plugin_check.declaration import POSITIONAL, parts
from medcl.registry import resolve

REPO = Path(__file__).parent.parent
OURS = ("biosignals", "ct", "pathology")


def test_every_registered_part_is_in_the_file_that_mypy_checks() -> None:
    text = (REPO / "tests" / "typed_parts.py").read_text(encoding="utf-8")
    named = [*METHODS.values(), *CLASSIFIERS.values()]
    for name in OURS:
        named += [target for _, _, target in parts(plugins.get(name))]
    for target in named:
        found = re.search(rf"\b{re.escape(target.replace(':', '.'))}\b[,\]]", text)
        assert found, f"add {target} to typed_parts.py"


def test_every_lazy_part_of_a_plugin_is_known_to_the_check() -> None:
    lazy = {f.name for f in fields(Plugin) if "Lazy" in str(f.type)}
    others = {"augmentations", "compose", "findings"}  # tests/views and the policies check these
    assert lazy == set(POSITIONAL) | others


WRONG = """
from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from torch import nn

from medcl import contract
from medcl.plugin import Arrays, Samples


def prepare(root: Path, files: Sequence[str], *, fs: float) -> dict[str, np.ndarray]: ...
def dataset(items: pl.DataFrame, arrays: Arrays, *, size: int) -> list[str]: ...
def encoder(*, folder: Path) -> int: ...
def baseline(batch: Sequence[float]) -> np.ndarray: ...
class Method(nn.Module):
    def step(self, views: Any) -> int: ...


_prepare: contract.Prepare = prepare
_dataset: contract.Dataset = dataset
_encoder: contract.EncoderFactory = encoder
_baseline: contract.Baseline = baseline
_method: contract.MethodFactory = Method
"""


@pytest.mark.slow
def test_mypy_refuses_wrong_parts(tmp_path: Path) -> None:
    file = tmp_path / "wrong_parts.py"
    file.write_text(WRONG)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", str(REPO / "pyproject.toml"), str(file)],
        cwd=REPO,
        capture_output=True,
        text=True,
    )
    lines = WRONG.splitlines()
    at = {n for n, line in enumerate(lines, 1) if line.startswith("_")}
    found = {int(x.split(":")[1]) for x in done.stdout.splitlines() if "error: Incompatible" in x}
    assert at <= found, done.stdout


@pytest.mark.parametrize("name", [*CLASSIFIERS, "mil", "sc-mil", "ins"])
def test_every_classifier_declares_itself(name: str) -> None:
    known = {**CLASSIFIERS, **plugins.get("pathology").classifiers}
    said = declared(resolve(known[name]))
    assert said is resolve(known[name]).declares
    assert said.encoder == (name in CLASSIFIERS)
    masks = name in ("unet", "voxel-linear")
    assert said.takes == ("masks" if masks else "samples" if name in CLASSIFIERS else "bags")
    assert (said.head is None) == (masks or name == "tip")  # tip has three


def test_a_classifier_of_before_is_still_read_by_its_first_parameter_and_attributes() -> None:
    from torch import nn

    from medcl.methods.views import pair

    class Old(nn.Module):
        views = pair("instance")
        learns_also = True

        def __init__(self, encoder: nn.Module, example: object, outputs: object) -> None:
            super().__init__()
            self.head = nn.Sequential(nn.Linear(2, 3))
            self.encoder = encoder

    class Bags(nn.Module):
        def __init__(self, example: object, outputs: object) -> None:
            super().__init__()

    assert declared(Old) == Declares(True, None, pair("instance"), True)
    assert declared(Bags) == Declares(False, None)
    old = Old(nn.Identity(), None, None)
    assert head_of(old) is old.head
    assert head_of(Bags(None, None)) is None
