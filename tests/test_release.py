"""What a release needs: the recipe of conda and CI's matrix say what pyproject.toml says."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

REPO = Path(__file__).parent.parent
PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONDA = {"torch": "pytorch", "soundfile": "pysoundfile", "openslide-bin": "openslide"}
"""PyPI's name → conda-forge's, where they differ."""


def test_conda_asks_for_what_pip_asks_for() -> None:
    text = re.sub(r"{%.*?%}|#.*", "", (REPO / "conda" / "meta.yaml").read_text(encoding="utf-8"))
    recipe = yaml.safe_load(re.sub(r"{{ ?(\w+) ?}}", r"\1", text))
    run = dict(line.split(maxsplit=1) for line in recipe["requirements"]["run"])
    assert run.pop("python") == PROJECT["requires-python"]
    wanted = {}
    for line in PROJECT["dependencies"]:
        name, bounds = re.fullmatch(r"([\w-]+)(.*)", line).groups()  # type: ignore[union-attr]
        wanted[CONDA.get(name, name.lower())] = bounds
    assert run == wanted


def test_ci_runs_every_python_that_the_classifiers_name() -> None:
    jobs = yaml.safe_load((REPO / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    named = [c.rpartition(" ")[2] for c in PROJECT["classifiers"] if "Python :: 3." in c]
    assert jobs["test"]["strategy"]["matrix"]["python"] == named
    steps = [step.get("run", "") for job in jobs.values() for step in job["steps"]]
    for command in ("python -m build", "twine check --strict dist/*", "make docs"):
        assert command in steps
    assert any("tests/from_wheel.sh" in step for step in steps)


@pytest.mark.parametrize("name", ["mkdocs-material", "mkdocstrings[python]"])
def test_the_extra_docs_is_part_of_dev(name: str) -> None:
    extras = PROJECT["optional-dependencies"]
    for extra in ("docs", "dev"):
        assert any(line.startswith(name) for line in extras[extra]), extra
