"""Recipes: strict, helpful, and every shipped one valid."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from medcl import plugin as plugins
from medcl import recipe as recipes
from medcl.errors import UsageError


@pytest.mark.slow
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
        ("optimizer.betas=[2, 2]", "'optimizer.betas.0' = 2"),
        ("split.fold=3", "'split.fold' = 3: there are no folds: set split.folds too."),
        ("trainer.precision=64", "'trainer.precision' = '64'"),
        ("probe.fractions=[0.1, 1.5]", "'probe.fractions.1' = 1.5"),
        ("probe.fractions=[0]", "'probe.fractions.0' = 0"),
        ("probe.dataset.sf=100", "Unknown key 'probe.dataset.sf'"),
        ("probe.dataset={seconds: many}", "'probe.dataset.seconds' = 'many'"),
        ("probe.baselines=[hvr]", "Unknown baseline 'hvr' in probe.baselines."),
        ("seed=[1", "is not a YAML value"),
        ("plugin=biosignal", "No plugin named 'biosignal'. Did you mean 'biosignals'?"),
    ],
)
def test_a_wrong_setting_is_one_helpful_sentence(override: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        recipes.load("biosignals/demo", [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("classifier.agregator=max", "Did you mean 'aggregator'?"),
        ("classifier.name=mill", "Unknown classifier 'mill'. Did you mean 'mil'?"),
        ("finetune.epoch=3", "Unknown key 'finetune.epoch'. Did you mean 'epochs'?"),
        ("finetune.loss=weigthed", "'finetune.loss' = 'weigthed'"),
        ("finetune.task=tissu", "Unknown task 'tissu' of plugin 'pathology'"),
        ("classifier=null", "'encoder' is missing: set it in the recipe or with -s encoder=…"),
        ("method.name=simclr", "'encoder' is missing: the method needs one"),
    ],
)
def test_a_recipe_that_classifies_is_checked_too(override: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        recipes.load("pathology/abmil", [override])
    assert message in str(caught.value)


def test_what_only_classifies_says_so() -> None:
    with pytest.raises(UsageError, match="has no section 'method': it can only be trained with"):
        recipes.load("pathology/abmil").part("method")
    with pytest.raises(UsageError, match="has no section 'classifier': it can only be pretrained"):
        recipes.load("biosignals/demo").part("classifier")
    assert "finetune" not in recipes.dump(recipes.load("biosignals/demo"))


def test_overrides_are_read_as_yaml() -> None:
    settings = ["optimizer.lr=1e-3", "optimizer.clip=null", "probe.fractions=[0.5, 1.0]"]
    loaded = recipes.load("biosignals/demo", settings)
    assert loaded.optimizer.lr == 0.001
    assert loaded.optimizer.clip is None
    assert loaded.probe.fractions == (0.5, 1.0)


@pytest.mark.parametrize("value", ["16", "'16'"])
def test_a_precision_may_look_like_a_number(value: str) -> None:
    assert recipes.load("biosignals/demo", [f"trainer.precision={value}"]).trainer.precision == "16"


def test_files_and_folders_are_meant_from_here_wherever_they_are_read_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for given, meant in [
        ("bags", tmp_path / "bags"),
        ("../bags", tmp_path.parent / "bags"),
        ("~/bags", tmp_path / "home" / "bags"),
        ("PATH", Path("PATH")),  # of a run that came without its private folder
    ]:
        recipe = recipes.load("pathology/abmil", [f"dataset.bags={given}"])
        assert recipe.dataset["bags"] == meant
    recipe = recipes.load("pathology/simclr-tiles", ["encoder.weights=w.safetensors"])
    assert recipe.part("encoder").arguments["weights"] == tmp_path / "w.safetensors"


def test_a_fold_is_one_of_the_folds() -> None:
    assert recipes.load("biosignals/mitbih", ["split.fold=4"]).split.fold == 4
    with pytest.raises(UsageError, match=r"with split.folds = 5 the folds are 0 to 4\.$"):
        recipes.load("biosignals/mitbih", ["split.fold=5"])


def test_an_empty_section_is_one_without_settings() -> None:
    raw = yaml.safe_load(recipes.find("biosignals/demo").read_text(encoding="utf-8"))
    for section in ("views", "optimizer", "trainer"):
        raw[section] = None
    raw["probe"]["dataset"] = None
    loaded = recipes.parse(raw)
    assert loaded == recipes.parse({**raw, "views": {}, "optimizer": {}, "trainer": {}})
    assert loaded.probe.dataset == {}
    assert raw["views"] is None, "what was given is left as it was"


def test_a_setting_may_lie_in_an_empty_section(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        "name: x\nplugin: biosignals\nencoder: {name: resnet1d}\nmethod: {name: simclr}\ntrainer:\n"
    )
    assert recipes.load(mine, ["trainer.steps=7"]).trainer.steps == 7


def test_the_settings_of_the_probe_are_those_of_the_dataset() -> None:
    loaded = recipes.load("biosignals/demo", ["probe.dataset={seconds: 4}"])
    assert loaded.probe.dataset == {"seconds": 4}


def test_a_broken_recipe_of_a_plugin_is_named_and_the_others_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, content in {"empty": b"", "broken": b"a: [1", "binary": b"\xff\xfe\x00"}.items():
        (tmp_path / f"{name}.yaml").write_bytes(content)
    mine = replace(plugins.get("biosignals"), recipes=tmp_path)
    monkeypatch.setattr(plugins, "discover", lambda: {"biosignals": mine})
    listed = recipes.describe()
    for name in ("empty", "broken", "binary"):
        assert listed[f"biosignals/{name}"].about.startswith("Broken: "), name
        assert "\n" not in listed[f"biosignals/{name}"].about
    assert not listed["biosignals/demo"].about.startswith("Broken")


def test_the_short_name_finds_it() -> None:
    assert recipes.find("mitbih") == recipes.find("biosignals/mitbih")
    with pytest.raises(UsageError, match="called 'demo': say biosignals/demo or ct/demo"):
        recipes.find("demo")


def test_an_unknown_recipe_suggests_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean 'biosignals/demo'"):
        recipes.find("biosignals/dmeo")


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1")
    with pytest.raises(UsageError, match="not valid YAML"):
        recipes.load(broken)
    broken.write_bytes(b"\x89PNG\xff\x00")
    with pytest.raises(UsageError, match="is no text file"):
        recipes.load(broken)
    broken.write_text("just words")
    with pytest.raises(UsageError, match="holds no recipe"):
        recipes.load(broken)
    broken.write_text("name: x\nplugin: biosignals\nmethod: {name: simclr}\n")
    with pytest.raises(UsageError, match="'encoder' is missing"):
        recipes.load(broken)
