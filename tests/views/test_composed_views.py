"""Views from an ordered list of named augmentations: ``views.steps``."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from stops import counted

from medcl import augmentations
from medcl import plugin as plugins
from medcl import recipe as recipes
from medcl.errors import UsageError
from medcl.registry import described, parameters, resolve

PLUGINS = ("biosignals", "ct", "pathology")
SHAPE = {"biosignals": (8, 12, 120), "ct": (6, 1, 6, 16, 16), "pathology": (6, 3, 24, 24)}
ALL = [(p, name) for p in PLUGINS for name in plugins.get(p).augmentations]
SIMPLE = {"biosignals": "noise", "ct": "noise", "pathology": "tone"}


def sample(plugin: str) -> torch.Tensor:
    x = torch.randn(SHAPE[plugin], generator=torch.Generator().manual_seed(1))
    return {"biosignals": x, "ct": 300 * x, "pathology": torch.sigmoid(x)}[plugin]


def views(plugin: str, *steps: dict[str, Any], **beside: Any) -> Any:
    return resolve(plugins.get(plugin).views)(steps=steps, **beside)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module of the user's in an installed package."""
    (tmp_path / "my_views.py").write_text(
        "import torch\n"
        "def louder(x, generator=None, *, gain: float = 2.0):\n    return gain * x\n"
        "def hertz(x, generator, *, fs: float):\n    return x + fs\n"
        "def others(x, generator, *, batch):\n    return x * 0 + len(batch)\n"
        "def shorter(x, generator):\n    return x[..., 1:]\n"
        "def alone(x):\n    return x\n"
        "number = 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "my_views"
    sys.modules.pop("my_views", None)


@pytest.mark.parametrize(("plugin", "name"), ALL)
def test_each_augmentation_says_what_it_is(plugin: str, name: str) -> None:
    function = resolve(plugins.get(plugin).augmentations[name])
    text = inspect.getdoc(function) or ""
    source = text.partition("Args:")[0]
    assert re.search(r"arXiv \d{4}\.\d{4,5}|doi 10\.|[Oo]urs|[Cc]ommon practice", source), "source"
    assert list(inspect.signature(function).parameters)[:2] == ["x", "generator"]
    texts = described(function)
    for setting, parameter in parameters(function).items():
        assert texts.get(setting), f"{setting} has no description"
        default = parameter.default
        if isinstance(default[0] if isinstance(default, tuple) else default, float):
            assert re.search(r"\d|above", texts[setting]), f"{setting} has no range"


@pytest.mark.parametrize("p", [0.5, 1.0])
@pytest.mark.parametrize(("plugin", "name"), ALL)
def test_no_augmentation_waits_for_a_device(plugin: str, name: str, p: float) -> None:
    module, x = views(plugin, {"name": name, "p": p}), sample(plugin)
    for kind in ("global", "local"):
        with counted() as stops:
            made = module(x, seeded(), kind)
        assert not stops
        assert torch.isfinite(made).all()


@pytest.mark.parametrize(("plugin", "name"), ALL)
def test_each_augmentation_works_by_its_name(plugin: str, name: str) -> None:
    x = sample(plugin)
    before = x.clone()
    module = views(plugin, {"name": name})
    made = module(x, seeded())
    assert torch.equal(x, before), "the batch is left as it is"
    assert made.shape == x.shape
    assert made.dtype == x.dtype
    assert torch.isfinite(made).all()
    assert torch.equal(made, module(x, seeded())), "one seed, one view"
    assert not torch.equal(made, x), "it does something"
    never = views(plugin, {"name": name, "p": 0.0})(x, seeded())
    torch.testing.assert_close(never, x)
    assert module(x).shape == x.shape, "without a generator"


def test_the_default_order_as_a_list_is_the_same_to_the_last_bit() -> None:
    """Of signals, where the fixed order and a list go the same way."""
    factory = resolve(plugins.get("biosignals").views)
    names = ("time_warp", "magnitude_warp", "scale", "noise", "baseline", "mains", "cutout")
    defaults = {name: p.default for name, p in parameters(factory).items()}
    steps = [{"name": name, "p": defaults[name]} for name in names]
    x = sample("biosignals")
    for kind in ("global", "local", "none"):
        listed = factory(steps=steps, fs=100.0)(x, seeded(3), kind)
        assert torch.equal(listed, factory(fs=100.0)(x, seeded(3), kind))


def test_the_order_is_that_of_the_list(own: str) -> None:
    louder, cut = {"name": f"{own}:louder", "gain": 3.0}, {"name": f"{own}:hertz"}
    x = sample("biosignals")
    assert torch.equal(views("biosignals", louder, cut, fs=50.0)(x, seeded()), 3 * x + 50)
    assert torch.equal(views("biosignals", cut, louder, fs=50.0)(x, seeded()), 3 * (x + 50))


@pytest.mark.parametrize("plugin", PLUGINS)
def test_ones_own_function_stands_between_named_ones(plugin: str, own: str) -> None:
    named = {"name": SIMPLE[plugin]}
    steps = [named, {"name": f"{own}:louder", "gain": 2.0}, named]
    x = sample(plugin)
    assert views(plugin, *steps)(x, seeded()).shape == x.shape
    recipe = recipes.load(
        {"biosignals": "simclr-ecg", "ct": "ct/simclr-3d", "pathology": "simclr-tiles"}[plugin],
        [f"views={{steps: {yaml.safe_dump(steps, default_flow_style=True)}}}"],
    )
    assert recipe.views["steps"][1] == {"name": f"{own}:louder", "p": 1.0, "gain": 2.0}
    assert resolve(plugins.get(plugin).views)(**recipe.views)(x, seeded()).shape == x.shape
    assert recipes.parse(yaml.safe_load(recipes.dump(recipe))) == recipe


@pytest.mark.parametrize("plugin", PLUGINS)
def test_a_coin_chooses_samples(plugin: str, own: str) -> None:
    x = sample(plugin).repeat(40, *(1,) * (sample(plugin).dim() - 1))
    made = views(plugin, {"name": f"{own}:louder", "p": 0.25, "gain": 3.0})(x, seeded())
    changed = (made != x).flatten(1).any(1)
    assert 0.15 < changed.float().mean() < 0.35
    assert torch.equal(made[changed], 3 * x[changed])
    assert torch.equal(made[~changed], x[~changed])


@pytest.mark.parametrize("plugin", PLUGINS)
def test_a_function_may_ask_for_the_whole_batch(plugin: str, own: str) -> None:
    x = sample(plugin)
    made = views(plugin, {"name": f"{own}:others", "p": 0.5})(x, seeded())
    changed = (made != x).flatten(1).any(1)
    assert changed.any()
    assert (made[changed] == len(x)).all()


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ("[{name: time_wrap}]", "Unknown augmentation 'time_wrap'. Did you mean 'time_warp'?"),
        ("[{name: noise, levl: 1}]", "Unknown key 'views.steps.0.levl'. Did you mean 'level'?"),
        ("[{name: noise, level: -1}]", "'views.steps.0.level' = -1"),
        ("[{name: noise, level: loud}]", "'views.steps.0.level' = 'loud'"),
        ("[{name: noise, p: 1.5}]", "'views.steps.0.p' = 1.5"),
        ("[{name: crop, share: [0.9, 0.1]}]", "'views.steps.0.share' = [0.9, 0.1]: the smaller"),
        ("[noise]", "'views.steps.0' = 'noise': a step is {name: …, p: …}"),
        ("[{p: 1}]", "a step is {name: …, p: …}"),
        ("noise", "'views.steps' is a list of steps"),
        ("[{name: noise}, {name: baseline, fs: 50}]",
         "'views.steps.1.fs' = 50 contradicts 'views.fs' = 125.0"),
        ("[{name: nowhere_at_all:f}]", "no 'nowhere_at_all' is there"),
        ("[{name: math:nothing}]", "math has no 'nothing'"),
        ("[{name: data/evil.py:f}]", "give module:function, not a file"),
        ("[{name: '../evil:f'}]", "give module:function, not a file"),
        ("[{name: my_views:alone}]", "'my_views:alone' is no augmentation: it is not a function"),
        ("[{name: my_views:number}]", "'my_views:number' is no augmentation"),
    ],
)  # fmt: skip
def test_a_wrong_step_is_one_helpful_sentence(steps: str, message: str, own: str) -> None:
    with pytest.raises(UsageError) as caught:
        recipes.load("simclr-ecg", [f"views={{steps: {steps}}}"])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_step_that_says_what_stands_beside_it_agrees() -> None:
    loaded = recipes.load("simclr-ecg", ["views={steps: [{name: baseline, fs: 125}]}"])
    assert "fs" not in loaded.views["steps"][0], "it has it from views.fs"
    assert loaded.views["fs"] == 125.0, "and views.fs from prepare.fs"


@pytest.mark.parametrize("setting", ["noise: 0.5", "cutout: 0.8"])
def test_settings_of_the_fixed_order_beside_steps_are_refused(setting: str) -> None:
    """One that is its default, 0.8, too: it would do nothing."""
    with pytest.raises(UsageError, match="has no effect beside views.steps.*stand fs, local_share"):
        recipes.load("simclr-ecg", [f"views={{steps: [{{name: noise}}], {setting}}}"])


def test_so_are_they_in_python() -> None:
    with pytest.raises(UsageError, match=r"views\.gamma has no effect beside views\.steps"):
        views("ct", {"name": "noise"}, gamma=0.5)
    with pytest.raises(UsageError, match="Unknown key 'views.steps.0.hu2'"):
        views("ct", {"name": "noise", "hu2": 0.5})


@pytest.mark.parametrize("plugin", PLUGINS)
def test_another_shape_is_refused(plugin: str, own: str) -> None:
    module = views(plugin, {"name": f"{own}:shorter"})
    with pytest.raises(UsageError, match=r"'my_views:shorter' made \(.*was asked for"):
        module(sample(plugin), seeded())


def test_no_code_runs_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "evil_views.py").write_text("raise SystemExit('it ran')\n")
    (tmp_path / "evil_package").mkdir()
    (tmp_path / "evil_package" / "__init__.py").write_text("raise SystemExit('it ran')\n")
    monkeypatch.chdir(tmp_path)
    for place in ("", str(tmp_path), "."):
        monkeypatch.setattr(sys, "path", [place, *sys.path])
        for name in ("evil_views:f", "evil_package.inner:f"):
            with pytest.raises(UsageError, match="lies in the working folder only"):
                recipes.load("simclr-ecg", [f"views={{steps: [{{name: {name}}}]}}"])


@pytest.mark.parametrize("slices", ["volume", "consistent", "independent"])
def test_views_of_volumes_have_the_size_asked_for(slices: str) -> None:
    x = sample("ct")
    steps = [{"name": "noise"}, {"name": "crop", "p": 0.5}, {"name": "blur"}, {"name": "window"}]
    for listed in (steps, steps[2:]):
        module = views("ct", *listed, slices=slices, size=(4, 8, 8), local_size=(4, 6, 6))
        assert module(x, seeded()).shape == (6, 1, 4, 8, 8)
        assert module(x, seeded(), "local").shape == (6, 1, 4, 6, 6)
        assert module(x, seeded(), "none") is x


def test_consistent_slices_are_turned_alike_and_independent_ones_are_not() -> None:
    x = sample("ct")[:, :, :1].repeat(1, 1, 4, 1, 1)
    step = {"name": "rotate", "degrees": 45.0}
    alike = views("ct", step, slices="consistent")(x, seeded())
    torch.testing.assert_close(alike, alike[:, :, :1].expand_as(alike))
    each = views("ct", step, slices="independent")(x, seeded())
    assert not torch.allclose(each[:, :, 0], each[:, :, 1])
    with pytest.raises(UsageError, match="tilt needs volumes"):
        views("ct", {"name": "tilt"}, slices="consistent")(x, seeded())


def test_tiles_have_the_size_asked_for_and_stains_come_from_the_batch() -> None:
    x = sample("pathology")
    steps = [{"name": "mix", "p": 0.5, "by": "reinhard"}, {"name": "crop", "p": 0.5}]
    module = views("pathology", *steps, {"name": "symmetry"}, size=16)
    assert module(x, seeded()).shape == (6, 3, 16, 16)
    assert module(x, seeded(), "local").shape == (6, 3, 8, 8)
    assert module(x, seeded(), "none").shape == (6, 3, 16, 16)


@pytest.mark.parametrize("plugin", PLUGINS)
def test_without_a_generator_numbers_come_from_torchs_own(plugin: str) -> None:
    for module in (resolve(plugins.get(plugin).views)(), views(plugin, {"name": SIMPLE[plugin]})):
        torch.manual_seed(5)
        first = module(sample(plugin))
        torch.manual_seed(5)
        assert torch.equal(first, module(sample(plugin)))
        assert not torch.equal(first, module(sample(plugin)))


def test_the_list_for_people_names_all_with_their_settings() -> None:
    for plugin in PLUGINS:
        listed = augmentations.listed(plugins.get(plugin))
        assert list(listed) == list(plugins.get(plugin).augmentations)
        assert all(found.about and all(found.settings.values()) for found in listed.values())
        assert not {"fs", "shown", "size", "batch"} & {
            s for f in listed.values() for s in f.settings
        }
