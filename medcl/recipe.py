"""Recipes: one YAML per published method and modality, with a strict schema.

The modality-free sections are the models below. The sections ``prepare``, ``dataset``, ``views``,
``encoder``, ``method`` and ``classifier`` are checked against the signatures of the functions they
configure. A recipe that only classifies (``medcl finetune``) needs neither encoder nor method.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import to_jsonable_python

from medcl import plugin as plugins
from medcl.errors import UsageError
from medcl.registry import checked, did_you_mean, explain, lookup, resolve


class Section(BaseModel):
    """A strict part of a recipe: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid")


class Named(BaseModel):
    """A registered thing and its keyword arguments, side by side: ``{name: simclr, ...}``."""

    model_config = ConfigDict(extra="allow")
    name: str

    @property
    def arguments(self) -> dict[str, Any]:
        """Everything but the name."""
        return dict(self.model_extra or {})


def _number_as_text(value: object) -> object:
    """YAML reads 16 as a number; as a choice it is a word."""
    return str(value) if isinstance(value, int) else value


LEFT_OUT = "PATH"
"""What a recipe says in place of a file or folder that is not to be shown; see `medcl.private`."""

Beta = Annotated[float, Field(ge=0, lt=1)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Precision = Annotated[Literal["32", "bf16", "16"], BeforeValidator(_number_as_text)]


class Optimizer(Section):
    """How the weights move."""

    name: Literal["adamw", "adam", "sgd", "lars"] = "adamw"
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    momentum: float = Field(0.9, ge=0, lt=1)  # sgd and lars
    betas: tuple[Beta, Beta] = (0.9, 0.999)  # adam and adamw
    warmup: float = Field(0.05, ge=0, le=1)  # share of all steps, linear
    schedule: Literal["cosine", "constant"] = "cosine"
    final_lr: float = Field(0.0, ge=0)  # where the cosine ends
    clip: float | None = Field(None, gt=0)  # gradient norm


class Trainer(Section):
    """How long, how large, on what."""

    steps: int = Field(1000, gt=0)  # optimiser steps
    batch_size: int = Field(256, gt=1)  # samples a process sees before a forward pass
    accumulate: int = Field(1, gt=0)
    precision: Precision = "32"
    devices: int = Field(1, gt=0)
    nodes: int = Field(1, gt=0)
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    sync_batchnorm: bool = True  # only matters with several devices
    workers: int = Field(0, ge=0)  # loader processes
    checkpoint_every: int = Field(200, gt=0)
    log_every: int = Field(10, gt=0)


class Split(Section):
    """Who is trained on. Always by patient (or site), never by sample."""

    by: Literal["patient", "site"] = "patient"
    test: float = Field(0.3, gt=0, lt=1)  # share of patients; ignored where folds is set
    folds: int | None = Field(None, ge=2)
    fold: int = Field(0, ge=0)
    stratify: str | None = None  # a label column of the index
    given: str | None = None  # a column that says train or test: a published split
    seed: int = 0
    # "all": pretraining learns from test patients too, without their labels. For an archive that is
    # to be embedded itself; figures then say nothing about people of another one.
    pretrain: Literal["train", "all"] = "train"

    def drawn(self) -> dict[str, Any]:
        """What `medcl.archive.splits.split` takes."""
        return self.model_dump(exclude={"pretrain"})

    @field_validator("fold")
    @classmethod
    def _is_one_of_the_folds(cls, fold: int, info: ValidationInfo) -> int:
        folds = info.data.get("folds")
        if folds is None and fold > 0:
            raise ValueError("there are no folds: set split.folds too")
        if folds is not None and fold >= folds:
            raise ValueError(f"with split.folds = {folds} the folds are 0 to {folds - 1}")
        return fold


class Monitor(Section):
    """The online kNN probe and the collapse monitors."""

    every: int = Field(100, gt=0)  # steps
    samples: int = Field(1024, gt=15)  # embedded at each look
    neighbours: int = Field(20, gt=0)


class Probe(Section):
    """The frozen-feature evaluation."""

    task: str | None = None
    dataset: dict[str, Any] = Field(default_factory=dict)  # over the task's own settings
    fractions: tuple[Fraction, ...] = (0.01, 0.1, 1.0)  # of labelled training patients
    bootstraps: int = Field(1000, ge=100)
    baselines: tuple[str, ...] | None = None  # None: all of the plugin's


class Also(Section):
    """A further label to learn from, such as what a header says; nobody is measured by it."""

    kind: Literal["auto", "binary", "multiclass", "ordinal", "regression"] = "auto"
    weight: float = Field(0.3, gt=0)  # of its loss, beside 1 of the label that is wanted
    noisy: bool = False  # may be wrong: a loss that wrong labels mislead less


class Finetune(Section):
    """Training with labels. Who is tested, where not by ``folds``, says the section ``split``."""

    task: str | None = None  # one of the plugin's; else label and kind say what is to be learnt
    label: str | None = None  # a column of the labels, or of the index; of survival, the time
    event: str | None = None  # of survival: the column that says whether it was seen
    kind: Literal[
        "auto", "binary", "multiclass", "multilabel", "ordinal", "regression", "cox", "hazard"
    ] = "auto"
    classes: tuple[str, ...] = ()  # in this order; of multilabel, the columns
    intervals: int = Field(4, ge=2)  # of hazard: quantiles of the training patients' times
    epochs: int = Field(50, gt=0)
    batch_size: int = Field(16, gt=0)  # samples or bags
    loss: Literal["ce", "weighted", "focal", "robust"] = "ce"  # robust: to labels that are wrong
    also: dict[str, Also] = Field(
        default_factory=dict
    )  # further columns of the labels, or the index
    sampler: Literal["shuffled", "balanced"] = "shuffled"
    standardise: bool = False  # features, by mean and deviation of the training samples
    unlabelled: bool = False  # learn from samples without a label too: classifier semi-supervised
    tree: tuple[str, ...] = ()  # columns that say the class less exactly, the coarsest first
    soft: tuple[str, ...] = ()  # columns of probabilities, one for each class in their order
    validation: float = Field(0.15, ge=0, lt=1)  # share of the training patients
    monitor: Literal["loss", "balanced_accuracy", "auroc"] = "loss"  # of validation: best is kept
    patience: int | None = Field(None, gt=0)  # epochs without a better one before it stops
    folds: int | None = Field(None, ge=2)
    repeats: int = Field(1, gt=0)  # of all folds, each drawn anew
    bootstraps: int = Field(1000, ge=100)


class Recipe(Section):
    """Everything that decides a run, except where the data lie."""

    name: str
    about: str = ""
    paper: str = ""
    plugin: str
    seed: int = 0
    prepare: dict[str, Any] = Field(default_factory=dict)
    dataset: dict[str, Any] = Field(default_factory=dict)
    views: dict[str, Any] = Field(default_factory=dict)
    encoder: Named | None = None
    method: Named | None = None
    classifier: Named | None = None
    optimizer: Optimizer = Optimizer()
    trainer: Trainer = Trainer()
    split: Split = Split()
    monitor: Monitor = Monitor()
    probe: Probe = Probe()
    finetune: Finetune = Finetune()

    def part(self, name: Literal["encoder", "method", "classifier"]) -> Named:
        """A section that what is asked for cannot do without.

        Raises:
            UsageError: if the recipe has none.
        """
        found: Named | None = getattr(self, name)
        if found is None:
            use = "pretrained" if name == "classifier" else "trained with labels: medcl finetune"
            raise UsageError(f"Recipe '{self.name}' has no section '{name}': it can only be {use}.")
        return found


def own_recipes() -> Path:
    """medcl's ``configs``: inside the package when it was installed from a wheel."""
    here = Path(__file__).parent
    return here / "configs" if (here / "configs").is_dir() else here.parent / "configs"


def available() -> dict[str, Path]:
    """Recipe name (``plugin/file-stem``) → its file; medcl's own, then each plugin's."""
    own = sorted(own_recipes().glob("*/*.yaml"))
    known = {f"{path.parent.name}/{path.stem}": path for path in own}
    for name, found in plugins.discover().items():
        if isinstance(found, plugins.Plugin) and found.recipes:
            theirs = sorted(found.recipes.glob("*.yaml"))
            known |= {f"{name}/{path.stem}": path for path in theirs}
    return known


@dataclass(frozen=True)
class Entry:
    """A recipe's headline, as its file gives it; of a broken file, what is wrong with it."""

    about: str
    paper: str


def describe() -> dict[str, Entry]:
    """Every available recipe's headline. Reads the files without validating or importing."""
    listed = {}
    for name, path in available().items():
        try:
            raw = _read(path)
        except (UsageError, OSError) as error:  # somebody's plugin; the others can be listed
            listed[name] = Entry(f"Broken: {error}", "")
        else:
            listed[name] = Entry(str(raw.get("about", "")), str(raw.get("paper", "")))
    return listed


def find(name: str) -> Path:
    """The YAML file of a recipe, given its name or a path.

    Raises:
        UsageError: if there is no such file or recipe; suggests the nearest name.
    """
    if Path(name).is_file():
        return Path(name)
    known = available()
    same = [key for key in known if key.split("/")[-1] == name]
    if len(same) > 1:
        raise UsageError(f"Several recipes are called '{name}': say {' or '.join(same)}.")
    key = same[0] if same else name
    if key not in known:
        raise UsageError(f"No recipe or file '{name}'. {did_you_mean(name, known)}")
    return known[key]


def load(name: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe by name or path, apply ``section.key=value`` overrides, and validate all of it.

    Raises:
        UsageError: for a missing file, broken YAML, an unknown key (names the nearest), or a value
            of the wrong type.
    """
    return parse(_read(find(str(name))), overrides)


def given(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    settings: Sequence[str] | Mapping[str, Any] = (),
) -> Recipe:
    """A recipe by name or path, as a mapping, or as it is, with settings laid over it.

    Args:
        recipe: see `load` and `parse`.
        settings: ``section.key=value`` as on the command line, or a mapping
            ``{"section.key": value}``.
    """
    if isinstance(settings, Mapping):
        settings = overrides(settings)
    if isinstance(recipe, Recipe):
        return parse(recipe.model_dump(mode="json"), settings) if settings else recipe
    if isinstance(recipe, Mapping):
        return parse(dict(recipe), settings)
    return load(recipe, settings)


def overrides(settings: Mapping[str, Any]) -> list[str]:
    """``{"section.key": value}`` as the command line has it: ``["section.key=value"]``."""
    plain = to_jsonable_python(dict(settings), fallback=str)
    return [f"{key}={yaml.safe_dump(v, default_flow_style=True)}" for key, v in plain.items()]


def text(path: Path) -> str:
    """The text of a recipe's file.

    Raises:
        UsageError: if it is no text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"{path} is no text file, so it holds no recipe.") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        raw = yaml.safe_load(text(path))
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{path} is not valid YAML: {reason}") from None
    if not isinstance(raw, dict):
        raise UsageError(f"{path} holds no recipe: it should be a mapping of sections.")
    return raw


def parse(raw: dict[str, Any], overrides: Sequence[str] = ()) -> Recipe:
    """Validate a recipe given as a mapping. See `load`."""
    raw = copy.deepcopy(raw)
    for override in overrides:
        _apply(raw, override)
    raw = _sections(raw, Recipe, "")
    try:
        recipe = Recipe.model_validate(raw)
    except ValidationError as error:
        raise UsageError(explain(error)) from None
    return _fill_in(recipe)


def _fill_in(recipe: Recipe) -> Recipe:
    """Check the open sections against the functions they configure; write the defaults out."""
    plugin = plugins.get(recipe.plugin)
    for section in ("encoder", "method") if recipe.classifier is None else ():
        if getattr(recipe, section) is None:
            raise UsageError(f"'{section}' is missing: set it in the recipe or with -s {section}=…")
    if recipe.method is not None and recipe.encoder is None:
        raise UsageError("'encoder' is missing: the method needs one: -s encoder.name=…")
    for task in (recipe.probe.task, recipe.finetune.task):
        if task is not None and task not in plugin.tasks:
            hint = did_you_mean(task, plugin.tasks)
            raise UsageError(f"Unknown task '{task}' of plugin '{plugin.name}'. {hint}")
    for baseline in recipe.probe.baselines or ():
        if baseline not in plugin.baselines:
            hint = did_you_mean(baseline, plugin.baselines)
            raise UsageError(f"Unknown baseline '{baseline}' in probe.baselines. {hint}")
    named: dict[str, Named | None] = {"encoder": None, "method": None, "classifier": None}
    if recipe.encoder is not None:
        encoder = lookup(plugin.encoders, recipe.encoder.name, "encoder")
        named["encoder"] = _named(encoder, recipe.encoder, "encoder")
    if recipe.method is not None:
        named["method"] = _named(method_factory(recipe), recipe.method, "method")
    if recipe.classifier is not None:
        classifier = classifier_factory(recipe)
        named["classifier"] = _named(classifier, recipe.classifier, "classifier")
    dataset = _checked(resolve(plugin.dataset), recipe.dataset, "dataset")
    return recipe.model_copy(
        update={
            "prepare": _checked(resolve(plugin.prepare), recipe.prepare, "prepare"),
            "dataset": dataset,
            "probe": _probe(recipe.probe, plugin, dataset),
            "views": _checked(resolve(plugin.views), recipe.views, "views"),
            **named,
        }
    )


def _checked(fn: Any, values: dict[str, Any], where: str) -> dict[str, Any]:
    """As `medcl.registry.checked`; files and folders as seen from anywhere, not from here alone."""
    found = checked(fn, values, where)
    return {
        name: Path(os.path.abspath(value.expanduser()))
        if isinstance(value, Path) and value != Path(LEFT_OUT)
        else value
        for name, value in found.items()
    }


def _named(factory: Any, section: Named, where: str) -> Named:
    """The section with all of its factory's defaults written out."""
    arguments = _checked(factory, section.arguments, where)
    return Named.model_validate({"name": section.name, **arguments})


def _probe(probe: Probe, plugin: plugins.Plugin, dataset: dict[str, Any]) -> Probe:
    """Check ``probe.dataset`` as it will be used: over the task's settings and the recipe's."""
    tasks = plugin.tasks
    settings = {**dataset, **(tasks[probe.task].dataset if probe.task else {}), **probe.dataset}
    used = _checked(resolve(plugin.dataset), settings, "probe.dataset")
    return probe.model_copy(update={"dataset": {key: used[key] for key in probe.dataset}})


def method_factory(recipe: Recipe) -> Any:
    """The recipe's method: medcl's own, or one that its plugin brings."""
    from medcl.methods import METHODS

    known = {**METHODS, **plugins.get(recipe.plugin).methods}
    return lookup(known, recipe.part("method").name, "method")


def classifier_factory(recipe: Recipe) -> Any:
    """The recipe's classifier: medcl's own, or one that its plugin brings."""
    from medcl.finetune import CLASSIFIERS

    known = {**CLASSIFIERS, **plugins.get(recipe.plugin).classifiers}
    return lookup(known, recipe.part("classifier").name, "classifier")


def _sections(raw: dict[str, Any], model: type[BaseModel], where: str) -> dict[str, Any]:
    """Refuse unknown keys of the fixed sections, naming the nearest; an empty section is ``{}``."""
    out = dict(raw)
    for key, value in raw.items():
        if key not in model.model_fields:
            hint = did_you_mean(str(key), model.model_fields)
            raise UsageError(f"Unknown key '{where}{key}'. {hint}")
        kind = model.model_fields[key].annotation
        fixed = isinstance(kind, type) and issubclass(kind, BaseModel)
        if value is None and (fixed or get_origin(kind) is dict):
            out[key] = {}
        elif isinstance(kind, type) and issubclass(kind, Section) and isinstance(value, dict):
            out[key] = _sections(value, kind, f"{where}{key}.")
    return out


def nested(overrides: Sequence[str]) -> dict[str, Any]:
    """Overrides such as ``a.b=value`` as one mapping; ``a.b=@file.yaml`` takes a file's contents.

    Raises:
        UsageError: for one of another form, a value that is no YAML, or a file that is not there.
    """
    raw: dict[str, Any] = {}
    for override in overrides:
        path, _, value = override.partition("=")
        if value.startswith("@"):
            try:
                text = Path(value[1:]).read_text(encoding="utf-8")
                value = yaml.safe_dump(yaml.safe_load(text), default_flow_style=True)
            except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
                reason = type(error).__name__
                raise UsageError(f"{value[1:]} cannot be read as YAML ({reason}).") from None
            override = f"{path}={value}"
        _apply(raw, override)
    return raw


def _apply(raw: dict[str, Any], override: str) -> None:
    """Set one ``a.b=value``; the value is read as YAML."""
    path, separator, value = override.partition("=")
    if not separator or not path:
        raise UsageError(f"'{override}' is not of the form section.key=value.")
    *parents, last = path.split(".")
    node = raw
    for parent in parents:
        if node.get(parent) is None:  # missing, or a section left empty
            node[parent] = {}
        node = node[parent]
        if not isinstance(node, dict):
            raise UsageError(f"'{path}' cannot be set: '{parent}' is a value, not a section.")
    node[last] = _value(value)


def _value(given: str) -> Any:
    try:
        value = yaml.safe_load(given)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"'{given}' is not a YAML value: {reason}") from None
    if isinstance(value, str) and value == given:  # not in quotes: YAML 1.1 reads 1e-3 as text
        try:
            return float(value)
        except ValueError:
            return value
    return value


def dump(recipe: Recipe, shown: Callable[[dict[str, Any]], Any] | None = None) -> str:
    """The recipe as YAML, all defaults written out; ``shown`` makes of its values others."""
    values = recipe.model_dump()
    data = to_jsonable_python(values if shown is None else shown(values))
    if recipe.classifier is None:  # nothing is trained with labels
        del data["classifier"], data["finetune"]
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
