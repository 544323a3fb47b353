"""Every setting of every recipe says what it means, and ``medcl recipes NAME --full`` shows it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from medcl import plugin as plugins
from medcl import recipe as recipes
from medcl.catalogue import CLASSIFIERS, METHODS
from medcl.recipe.sections import Named, Recipe
from medcl.registry import described, parameters, resolve
from medcl_cli.main import app

PLUGINS = ("biosignals", "ct", "pathology")
ALL = [name for name in recipes.available() if name.partition("/")[0] in PLUGINS]


def keys(recipe: Recipe) -> Iterator[str]:
    """Everything that can be set, as ``section.key``."""
    for section in Recipe.model_fields:
        value: Any = getattr(recipe, section)
        yield section
        if isinstance(value, Named):
            yield from (f"{section}.{name}" for name in ("name", *value.arguments))
        elif hasattr(value, "model_dump") or isinstance(value, dict):
            yield from (f"{section}.{name}" for name in dict(value))


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_every_setting_has_a_description(name: str) -> None:
    recipe = recipes.load(name)
    texts = recipes.descriptions(recipe)
    assert [key for key in keys(recipe) if not texts.get(key, "").strip()] == []


@pytest.mark.parametrize("plugin", PLUGINS)
def test_so_has_every_setting_of_every_part(plugin: str) -> None:
    """Of those too that no recipe of ours uses."""
    found = plugins.get(plugin)
    targets = [found.prepare, found.dataset, found.views, found.compose]
    for table in (found.encoders, found.methods, found.classifiers, METHODS, CLASSIFIERS):
        targets += table.values()
    for target in targets:
        function = resolve(target)
        texts = described(function)
        missing = [name for name in parameters(function) if not texts.get(name, "").strip()]
        assert not missing, target


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_a_recipe_with_its_descriptions_is_still_that_recipe(name: str) -> None:
    recipe = recipes.load(name)
    text = recipes.annotated(recipe)
    assert recipes.parse(yaml.safe_load(text)) == recipe
    assert max(map(len, (line for line in text.splitlines() if "#" in line[:4]))) <= 100


def test_it_is_what_the_command_prints() -> None:
    shown = CliRunner().invoke(app, ["recipes", "mitbih", "--full"])
    assert shown.exit_code == 0
    lines = shown.stdout.splitlines()
    at = lines.index("  fs: 100.0")
    assert lines[at - 1].startswith("  # Sampling rate of the result in Hz")
    assert "  # Learning rate after the warm-up, above 0." in lines
    follower = lines.index("  fs: 100.0", at + 1)
    assert "Follows prepare.fs: leave it out." in lines[follower - 1]


def test_steps_and_further_labels_are_described() -> None:
    steps = recipes.load("simclr-ecg", ["views={steps: [{name: noise}]}"])
    assert "module:function" in recipes.descriptions(steps)["views.steps"]
    assert recipes.parse(yaml.safe_load(recipes.annotated(steps))) == steps
    both = recipes.load("pathology/abmil", ["finetune.auxiliary={sex: {weight: 0.1}}"])
    assert recipes.descriptions(both)["finetune.auxiliary.sex.weight"].startswith(
        "Weight of its loss"
    )


def test_docstrings_are_read_as_they_are_written() -> None:
    def example(x: int, *, low: float, high: float, mode: str = "a", last: int = 0) -> None:
        """An example.

        Args:
            x: not set by a recipe.
            low, high: bounds in Hz,
                above 0: the smaller first.
            mode: "a" or "b":

                the second line of it.
            last: of all.

        Returns:
            nothing: at all.
        """

    texts = described(example)
    assert texts["low"] == texts["high"] == "bounds in Hz, above 0: the smaller first."
    assert texts["mode"] == '"a" or "b": the second line of it.'
    assert texts["last"] == "of all."
    assert set(texts) == {"x", "low", "high", "mode", "last"}


def test_the_augmentations_are_listed_on_the_command_line() -> None:
    shown = CliRunner().invoke(app, ["views", "biosignals"])
    assert shown.exit_code == 0
    assert "time_warp\tPlay faster and slower" in shown.stdout
    one = CliRunner().invoke(app, ["views", "ct", "elastic", "--json"])
    assert '"strength": 0.2' in one.stdout
