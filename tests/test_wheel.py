"""What a user gets from `pip install`: recipes, sample and report template are inside the wheel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parent.parent


PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
LIMIT = 12_000_000  # bytes of a wheel with everything that the demos need


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(REPO)]
    subprocess.run([*PIP, *build], check=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpacked by pip into a folder of its own."""
    target = tmp_path_factory.mktemp("wheel_site")
    subprocess.run([*PIP, "install", "--no-deps", "--target", str(target), str(wheel)], check=True)
    return target


def run(installed: Path, cwd: Path, *arguments: str) -> str:
    """Run Python with the wheel first on the path, away from the checkout."""
    env = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_wheel_is_small(wheel: Path) -> None:
    assert wheel.stat().st_size < LIMIT


@pytest.mark.slow
def test_every_package_is_importable(installed: Path, tmp_path: Path) -> None:
    names = "medcl, medcl_ct, medcl_pathology, medcl_biosignals, medcl_cli"
    where = run(installed, tmp_path, "-c", f"import {names}; print(medcl.__file__)")
    assert Path(where.strip()).is_relative_to(installed)


@pytest.mark.slow
def test_recipes_come_from_inside_the_wheel(installed: Path, tmp_path: Path) -> None:
    listed = json.loads(run(installed, tmp_path, "-m", "medcl_cli.main", "recipes", "--json"))
    names = {recipe["name"] for recipe in listed}
    here = {f"{p.parent.name}/{p.stem}" for p in (REPO / "configs").glob("*/*.yaml")}
    assert here
    assert names >= here
    assert (installed / "medcl" / "configs").is_dir()


@pytest.mark.slow
def test_data_files_are_there(installed: Path) -> None:
    assert list((installed / "medcl" / "report").glob("*.j2"))
    assert list((installed / "medcl_biosignals" / "sample").rglob("*.hea"))
    assert len(list((installed / "medcl_biosignals" / "sample_ptbxl").rglob("*.hea"))) == 309
    here = {p.parent.name for p in (REPO / "plugins").glob("*/released/*/card.json")}
    assert {p.parent.name for p in installed.glob("*/released/*/encoder.safetensors")} == here
    assert list((installed / "medcl" / "templates").rglob("plugin.py.template"))
    assert not (installed / "tests").exists()
