"""Recipes: strict, helpful, and every shipped one valid."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from medcl import recipe as recipes
from medcl.errors import UsageError


@pytest.mark.parametrize("name", list(recipes.available()))
def test_every_shipped_recipe_is_valid(name: str) -> None:
    loaded = recipes.load(name)
    assert name.startswith(f"{loaded.plugin}/")
    assert loaded.about, "a recipe says what it is"
    assert recipes.parse(yaml.safe_load(recipes.dump(loaded))) == loaded


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimiser.lr=1", "Unknown key 'optimiser'. Did you mean 'optimizer'?"),
        ("optimizer.learning_rate=1", "Unknown key 'optimizer.learning_rate'"),
        ("trainer.step=5", "Unknown key 'trainer.step'. Did you mean 'steps'?"),
        ("trainer.steps=many", "'trainer.steps' = 'many'"),
        ("optimizer.lr=-1", "'optimizer.lr' = -1"),
        ("method.temprature=1", "Unknown key 'method.temprature'. Did you mean 'temperature'?"),
        ("method.name=simclrr", "Unknown method 'simclrr'. Did you mean 'simclr'?"),
        ("encoder.name=resnet", "Unknown encoder 'resnet'"),
        ("probe.task=amii", "Unknown task 'amii'"),
        ("prepare.sf=100", "Unknown key 'prepare.sf'"),
        ("seed.a=1", "'seed' is a value, not a section"),
        ("seed", "is not of the form section.key=value"),
        ("plugin=biosignal", "No plugin named 'biosignal'. Did you mean 'biosignals'?"),
    ],
)
def test_a_wrong_setting_is_one_helpful_sentence(override: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        recipes.load("biosignals/demo", [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_overrides_are_read_as_yaml() -> None:
    settings = ["optimizer.lr=1e-3", "optimizer.clip=null", "probe.fractions=[0.5, 1.0]"]
    loaded = recipes.load("biosignals/demo", settings)
    assert loaded.optimizer.lr == 0.001
    assert loaded.optimizer.clip is None
    assert loaded.probe.fractions == (0.5, 1.0)


def test_the_short_name_finds_it() -> None:
    assert recipes.find("demo") == recipes.find("biosignals/demo")


def test_an_unknown_recipe_suggests_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean 'biosignals/demo'"):
        recipes.find("biosignals/dmeo")


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1")
    with pytest.raises(UsageError, match="not valid YAML"):
        recipes.load(broken)
    broken.write_text("just words")
    with pytest.raises(UsageError, match="holds no recipe"):
        recipes.load(broken)
    broken.write_text("name: x\nplugin: biosignals\nmethod: {name: simclr}\n")
    with pytest.raises(UsageError, match="'encoder' is missing"):
        recipes.load(broken)
