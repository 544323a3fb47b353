"""Settings that mean one thing are given once and cannot contradict each other.

The first tests find the candidates: parameters of one name in two sections, and parameters
of two sections with one telling default. Each is declared as shared by its plugin, or excepted here
with the reason why the two may differ.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from medcl import plugin as plugins
from medcl import recipe as recipes
from medcl.catalogue import CLASSIFIERS, METHODS
from medcl.errors import UsageError
from medcl.plugin import Plugin, Shared
from medcl.recipe.parse import RENAMED
from medcl.recipe.sections import Named, Recipe
from medcl.registry import parameters, resolve

PLUGINS = ("biosignals", "ct", "pathology")
OPEN = ("prepare", "dataset", "views", "encoder", "method", "classifier")
OWN = "Each part has its own: a number of layers or a width inside that part alone."
LOSS = "Pretraining and training with labels have losses of their own."
EXCEPTED: dict[str, tuple[set[str], str]] = {
    "name": ({"encoder", "optimizer"}, "Which model of timm; which optimizer."),
    "seed": ({"split", "dataset"}, "Draws that must stay the same while others are made anew."),
    "steps": ({"views", "trainer"}, "Named augmentations; optimizer steps."),
    "width": ({"encoder", "method"}, "The embedding's width; a decoder's width inside a method."),
    "depth": ({"encoder", "method", "classifier"}, OWN),
    "heads": ({"encoder", "method", "classifier"}, OWN),
    "prototypes": ({"method", "classifier"}, "Of a run, which the classifier reads and checks."),
    "noise": ({"views", "classifier", "method"},
              "The probability of a view; a deviation of tokens; a share of mistaken patients."),
    "depths": ({"encoder", "method"}, "Blocks of each stage; how many outputs are contrasted."),
    "norm": ({"encoder", "method"}, OWN),
    "hidden": ({"encoder", "method", "classifier"}, OWN),
    "out": ({"method", "classifier"}, OWN),
    "blocks": ({"encoder", "method"}, "Residual blocks of a stage; hidden blocks of patches."),
    "layers": ({"classifier", "encoder", "method"},
               "A number of layers; those LoRA adapts; those averaged."),
    "dropout": ({"encoder", "method", "classifier"}, OWN),
    "precision": ({"trainer", "finetune"}, "Of pretraining; of training with labels."),
    "settings": ({"method", "classifier"}, "Of what the part wraps."),
    "objective": ({"method", "classifier"}, LOSS),
    "curve": ({"method", "classifier"}, LOSS),
    "self_supervised": ({"method", "classifier"}, LOSS),
    "mask_same_patient": ({"method", "classifier"}, LOSS),
    "weight": ({"method", "classifier"}, LOSS),
    "alpha": ({"method", "classifier"}, "The share of a loss; of a Beta distribution."),
    "temperature": ({"method", "classifier"}, LOSS),
    "queue": ({"method", "classifier"}, LOSS),
    "momentum": ({"optimizer", "method", "classifier"}, "Of SGD; of a slow copy of the encoder."),
    "stride": ({"dataset", "encoder"}, "Seconds between windows; samples of a convolution."),
    "kernel": ({"views", "encoder"}, "Probability of a view; taps of a convolution."),
    "scale": ({"dataset", "encoder", "method", "trainer", "views"},
              "Of windows and values; of cosines; settings by the archive; a view's probability."),
    "crop": ({"prepare", "views"}, "Cutting air away once; the probability of a view."),
    "clip": ({"prepare", "optimizer"}, "Seconds of saturation, or bounds in HU; a gradient norm."),
    "phase": ({"prepare", "views"}, "How a filter runs; the probability of a view."),
    "size": ({"prepare", "dataset", "views", "encoder"},
             "Views are cut out of samples, and samples out of what was prepared: each may be "
             "smaller. One that does not fit huggingface2d fails at the first batch."),
    "window": ({"views", "encoder"},
               "The probability of a view; what the encoder sees, which is views.shown."),
    "neighbours": ({"dataset", "monitor", "method"},
                   "Slices or µm beside a sample; neighbours of kNN; a teacher's nearest."),
    "kind": ({"dataset", "finetune"}, "Of sample; of a label."),
    "classes": ({"dataset", "method", "finetune"},
                "finetune.classes orders the label of finetune, which may be another than that of "
                "pretraining; dataset.classes and method.classes are declared."),
    "method": ({"prepare", "method"}, "How tissue is found; the method that is wrapped."),
    "positives": ({"dataset", "method"},
                  "Which sample a partner is, if asked for; whether a partner is asked for."),
    "contrast": ({"views", "method", "classifier"}, "Strength of a view; weight of a loss."),
    "label": ({"method", "finetune"},
              "The key in a batch that a method reads; the column that finetune predicts."),
    "reach": ({"dataset", "encoder"}, "Of partners, in mm; of attention, in slices."),
    "every": ({"dataset", "monitor", "method"}, "Slices; steps between evaluations or rounds."),
    "warmup": ({"optimizer", "method"}, "Of the learning rate; of a temperature."),
    "batch_size": ({"trainer", "finetune"}, "Pretraining and training with labels differ."),
    "bootstraps": ({"probe", "finetune"}, "Of the probe; of a study."),
    "folds": ({"split", "finetune"}, "Of pretraining; of a study, which may be on other data."),
    "weights": ({"encoder", "method", "trainer"},
                "In a format of others; of a teacher; those that training begins from."),
    "devices": ({"finetune", "trainer"},
                "Pretraining and training with labels differ."),
    "missing": ({"classifier", "dataset"},
                "What lacks a value; a share that is hidden in training."),
    "frozen": ({"classifier", "method"},
               "Heads alone are trained; steps that a layer is held."),
    "task": ({"probe", "finetune"}, "What is probed; what is trained, which may be another."),
}  # fmt: skip
ALIKE: dict[frozenset[str], str] = {
    frozenset({"classifier.self_supervised", "method.self_supervised"}): LOSS,
}
"""Defaults of two sections that are alike by chance."""


def parts(plugin: Plugin) -> Iterator[tuple[str, Any]]:
    """Section → everything that it may configure, for one plugin."""
    for section in ("prepare", "dataset", "views"):
        yield section, resolve(getattr(plugin, section))
    tables = (plugin.encoders, {**METHODS, **plugin.methods}, {**CLASSIFIERS, **plugin.classifiers})
    for section, table in zip(OPEN[3:], tables, strict=True):
        for target in table.values():
            yield section, resolve(target)


def settings(plugin: Plugin) -> dict[str, set[str]]:
    """Name of a setting → the sections that have one of that name."""
    found: dict[str, set[str]] = {}
    for section, fn in parts(plugin):
        for name in parameters(fn):
            found.setdefault(name, set()).add(section)
    for section, field in Recipe.model_fields.items():
        if section not in OPEN and hasattr(field.annotation, "model_fields"):
            for name in field.annotation.model_fields:
                found.setdefault(name, set()).add(section)
    return found


def declared(plugin: Plugin, one: str, other: str) -> bool:
    return any({one, other} <= {*shared.source, *shared.to} for shared in plugin.shared)


@pytest.mark.parametrize("plugin", PLUGINS)
def test_one_name_in_two_sections_is_shared_or_excepted(plugin: str) -> None:
    modality = plugins.get(plugin)
    missing = []
    for name, sections in settings(modality).items():
        allowed = EXCEPTED.get(name, (set(), ""))[0]
        for one, other in combinations(sorted(sections), 2):
            pair = f"{one}.{name}", f"{other}.{name}"
            if not declared(modality, *pair) and not {one, other} <= allowed:
                missing.append(" and ".join(pair))
    assert not missing, "declare them in Plugin.shared, or except them here with the reason"


@pytest.mark.parametrize("plugin", PLUGINS)
def test_one_telling_default_in_two_sections_is_shared_or_excepted(plugin: str) -> None:
    """The way in which views.shown and encoder.window are found, which have two names."""
    modality = plugins.get(plugin)
    held: dict[Any, set[str]] = {}
    for section, fn in parts(modality):
        for name, parameter in parameters(fn).items():
            value = parameter.default
            large = isinstance(value, float) and value >= 50 and value != 100
            if large or (
                isinstance(value, tuple) and len(value) > 1 and max(map(str, value)) > "1"
            ):
                held.setdefault(value, set()).add(f"{section}.{name}")
    missing = [
        (one, other)
        for keys in held.values()
        for one, other in combinations(sorted(keys), 2)
        if one.partition(".")[0] != other.partition(".")[0]
        and not declared(modality, one, other)
        and frozenset({one, other}) not in ALIKE
    ]
    assert not missing


def test_every_exception_has_a_reason() -> None:
    assert all(len(reason) > 10 for _, reason in EXCEPTED.values())
    used = {name for plugin in PLUGINS for name in settings(plugins.get(plugin))}
    assert set(EXCEPTED) <= used, "an exception of no setting"


def value_of(recipe: Recipe, key: str) -> Any:
    section, _, name = key.partition(".")
    held = getattr(recipe, section) or {}
    return held.arguments.get(name) if isinstance(held, Named) else dict(held).get(name)


def pairs(name: str) -> list[tuple[Shared, str]]:
    """The declared settings that a recipe has, each with the one that follows."""
    recipe = recipes.load(name)
    return [
        (shared, key)
        for shared in plugins.get(recipe.plugin).shared
        for key in shared.to
        if key.count(".") == 1
        and value_of(recipe, key) is not None
        and all(getattr(recipe, source.partition(".")[0]) is not None for source in shared.source)
        and (shared.value is None
             or shared.value(*(value_of(recipe, s) for s in shared.source)) is not None)
    ]  # fmt: skip


def another(value: Any) -> Any:
    if isinstance(value, str):
        return "mr" if value == "ct" else "ct"
    return [*value[:-1], value[-1] + 1] if isinstance(value, tuple) and value else (
        [3] if isinstance(value, tuple) else value + 1
    )  # fmt: skip


ALL = [name for name in recipes.available() if name.partition("/")[0] in PLUGINS]


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_a_contradiction_is_refused_and_names_both(name: str) -> None:
    recipe = recipes.load(name)
    for shared, key in pairs(name):
        there, wrong = value_of(recipe, key), another(value_of(recipe, key))
        said = [f"{s}={_yaml(value_of(recipe, s))}" for s in shared.source]
        assert recipes.load(name, [*said, f"{key}={_yaml(there)}"]) == recipe
        with pytest.raises(UsageError) as caught:
            recipes.load(name, [*said, f"{key}={_yaml(wrong)}"])
        message = str(caught.value)
        assert f"'{key}' = {wrong!r}" in message or f"'{key}' = {float(wrong)!r}" in message
        assert any(f"'{source}' = " in message for source in shared.source)
        assert "\n" not in message


def _yaml(value: Any) -> str:
    plain = list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump(plain, default_flow_style=True).removesuffix("...\n").strip()


@pytest.mark.slow
def test_every_declared_pair_is_met_in_a_recipe_or_a_test() -> None:
    """So that the test above does not pass by being empty."""
    met = {(name.partition("/")[0], key) for name in ALL for _, key in pairs(name)}
    assert met >= {
        ("biosignals", "views.fs"), ("biosignals", "encoder.channels"),
        ("biosignals", "method.channels"), ("biosignals", "method.classes"),
        ("biosignals", "method.categories"), ("biosignals", "method.numeric"),
        ("ct", "views.shown"), ("ct", "encoder.channels"), ("ct", "method.categories"),
        ("ct", "method.numeric"), ("pathology", "method.classes"),
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_a_recipe_says_it_once(name: str) -> None:
    raw = yaml.safe_load(recipes.find(name).read_text(encoding="utf-8"))
    for shared, key in pairs(name):
        section, _, inner = key.partition(".")
        followed = inner in (raw.get(section) or {})
        given = any(
            s.partition(".")[2] in (raw.get(s.partition(".")[0]) or {}) for s in shared.source
        )
        assert not (followed and given), f"{key} and {shared.source}"


def test_one_setting_moves_all() -> None:
    loaded = recipes.load("biosignals/mitbih", ["prepare.fs=250", "prepare.leads=[MLII]"])
    assert loaded.views["fs"] == 250
    assert loaded.part("encoder").arguments["channels"] == 1
    assert recipes.load("ct/simclr-2d", ["encoder.window=[40,400]"]).views["shown"] == (40, 400)
    slabs = recipes.load("ct/simclr-2d", ["dataset.neighbours=2"])
    assert slabs.part("encoder").arguments["channels"] == 5


def test_a_follower_alone_moves_its_source() -> None:
    loaded = recipes.load("ct/simclr-2d", ["views.shown=[40, 400]"])
    assert loaded.part("encoder").arguments["window"] == (40, 400)


def test_the_sentence_says_what_to_do() -> None:
    with pytest.raises(UsageError) as caught:
        recipes.load("biosignals/mitbih", ["prepare.fs=250", "views.fs=100"])
    assert str(caught.value) == (
        "'views.fs' = 100.0 contradicts 'prepare.fs' = 250.0: both are the sampling rate in Hz. "
        "Give 'prepare.fs' alone, and leave 'views.fs' out."
    )
    sentence = r"'encoder.channels' = 3 contradicts 'prepare.leads' = .*, which gives 2: both are"
    with pytest.raises(UsageError, match=sentence):
        recipes.load("biosignals/mitbih", ["encoder.channels=3"])


def test_what_a_wrapped_method_is_told_must_agree_too() -> None:
    section = "method={name: harmonised, method: tip, settings: {categories: [%s], numeric: 1}}"
    recipes.load("biosignals/tip-ecg", [section % "2"])
    with pytest.raises(UsageError, match="'method.settings.categories' = .3. contradicts"):
        recipes.load("biosignals/tip-ecg", [section % "3"])


BEFORE = Path(__file__).parent / "recipes_e9a4e34.yaml"


def test_recipes_that_say_it_twice_still_open() -> None:
    """As runs hold them that were made before: written by `dump` at commit e9a4e34."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, text in yaml.safe_load(BEFORE.read_text(encoding="utf-8")).items():
            before = yaml.safe_load(text)
            opened = yaml.safe_load(recipes.dump(recipes.parse(before, recorded=True)))
            for section, values in before.items():
                for key, value in values.items() if isinstance(values, dict) else ():
                    where = f"{section}.{key}"
                    present = RENAMED.get(where, where).split(".")[1]
                    assert opened[section][present] == value, f"{name}: {where}"


def test_a_run_that_was_made_with_a_contradiction_opens_and_says_so() -> None:
    raw = yaml.safe_load(recipes.dump(recipes.load("biosignals/mitbih")))
    raw["prepare"]["fs"] = 250.0
    with pytest.raises(UsageError, match="'views.fs' = 100.0 contradicts"):
        recipes.parse(raw)
    with pytest.warns(UserWarning, match="'views.fs' = 100.0 contradicts 'prepare.fs' = 250.0"):
        opened = recipes.parse(raw, ["dataset.seconds=3"], recorded=True)
    assert (opened.prepare["fs"], opened.views["fs"]) == (250.0, 100.0), "as it was trained"
    with pytest.raises(UsageError, match="'views.fs' = 100.0 contradicts"):
        recipes.parse(raw, ["prepare.fs=125"], recorded=True)


def test_a_plugin_without_shared_settings_is_left_as_it_is() -> None:
    assert inspect.signature(Plugin).parameters["shared"].default == ()
