"""``medcl finetune``: from an index or a run, and labels, to figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from medcl import manifest
from medcl import plugin as plugins
from medcl import recipe as recipes
from medcl.archive.index import Index
from medcl.archive.scanning import LABEL
from medcl.classifiers.contract import declared
from medcl.embeddings.embeddings import usable
from medcl.errors import UsageError
from medcl.finetune.fold_training import Work
from medcl.finetune.folds import of_run
from medcl.finetune.opened import PRETRAINED
from medcl.finetune.result import FinetuneResult
from medcl.finetune.study import labelled, study
from medcl.labels import table as tables
from medcl.labels import target as targets
from medcl.labels.auxiliary import beside, further
from medcl.plugin import Samples
from medcl.private import command_without_paths, remember
from medcl.recipe import Recipe
from medcl.registry import did_you_mean
from medcl.run import Run, prepared, samples_of

UNTRAINED = "The features are those of an UNTRAINED encoder (random weights)."
SPLIT = "split"
"""The column of a split's table that says train, validation or test."""


@dataclass(frozen=True)
class Source:
    """What is trained: a recipe on an index, beginning with a run's encoder if there is one."""

    recipe: Recipe
    data: Path
    run: Run | None = None


def opened(
    path: Path,
    recipe: str | Path | Mapping[str, Any] | Recipe | None,
    settings: Sequence[str] = (),
) -> Source:
    """An index with a recipe; or a run, whose data and encoder stay as they are.

    Of a run, ``classifier``, ``finetune`` and ``optimizer`` come from ``recipe``; without one they
    are LP-FT and the defaults.

    Raises:
        UsageError: if the folder is neither, an index comes without a recipe, or a recipe is for
            another plugin.
    """
    if not (path / "recipe.yaml").is_file():
        index = Index.open(path)
        if recipe is None:
            raise UsageError("Say how to train on this index: -r RECIPE. See medcl recipes.")
        chosen = recipes.given(recipe, settings)
        if chosen.plugin != index.plugin_name:
            raise UsageError(
                f"Recipe '{chosen.name}' is for plugin '{chosen.plugin}', and {path} was indexed "
                f"by '{index.plugin_name}'."
            )
        return Source(chosen, path)
    run = Run.open(path)
    raw: dict[str, Any] = run.recipe.model_dump(mode="json")
    raw |= {"classifier": {"name": "lp-ft"}, "optimizer": {}}
    if recipe is not None:
        given = recipes.given(recipe).model_dump(mode="json")
        if given["plugin"] != raw["plugin"]:
            raise UsageError(
                f"Recipe '{given['name']}' is for plugin '{given['plugin']}', and {path} for "
                f"'{raw['plugin']}'."
            )
        raw |= {name: given[name] for name in ("name", "classifier", "finetune", "optimizer")}
    return Source(recipes.parse(raw, settings, recorded=True), run.data, run)


def finetune(
    source: Source,
    out: Path,
    *,
    labels: Path | Sequence[Path] | None = None,
    split: Path | None = None,
    imbalance: float | None = None,
    instances: bool = False,
    key_column: str | None = None,
    patient_column: str | None = None,
    workers: int = 1,
    device: str = "auto",
    command: str = "",
) -> FinetuneResult:
    """Train the recipe's classifier with labels, in folds, and measure it on unseen patients.

    Args:
        source: see `opened`. Of a run without folds and a given split, its own test patients are
            tested.
        out: the study's folder; the same again goes on where it stopped.
        labels: tables, see `medcl.labels.table.read`; None for what the samples carry. Where
            they name patients and sites, these take the place of the index's.
        split: such a table with a column ``split``: train, validation or test.
        imbalance: negatives for each positive patient to leave in training.
        instances: write down what each instance of the test bags counted for.
        key_column, patient_column: of the tables, where they have none of the usual names.
        workers: processes.
        device: "cpu", "cuda", ..., or "auto".
        command: how this was called, for the record.

    Raises:
        UsageError: for a recipe without classifier, a missing label, or another study in ``out``.
        MedclError: for labels of the wrong kind, a patient on two sides of a given split, or a
            training that failed.
    """
    recipe, data, run = source.recipe, source.data, source.run
    _can_learn_from_them(recipe)
    index = Index.open(data)
    name = _task(recipe, labels)
    items = prepared(recipe, data, workers=max(2, workers))
    samples = samples_of(recipe, items, task=name)
    found = tables.Labels()
    if labels:
        found = tables.read(
            labels,
            index,
            among=frozenset(samples.items),
            key_column=key_column,
            patient_column=patient_column,
        )
    own = list(samples.labels)
    samples = tables.add(samples, found, index, recipe.finetune.also)
    task = None if name is None else plugins.get(recipe.plugin).tasks[name]
    if task is not None:  # the probe's, where the recipe names none: the study remembers which
        recipe = _with(recipe, task=name)
    elif recipe.finetune.label is None and recipe.finetune.kind != "multilabel":
        recipe = _with_label(recipe, [*found.columns] or own)
    given = _given(recipe, samples, index, split, run)
    of_index = samples.patients  # whom the run knows
    samples = tables.told_patients(samples, found)
    others = recipe.finetune.unlabelled
    random = any(facts.get("untrained") for facts in samples.facts.values())
    truth = targets.finetune_target(samples, recipe.finetune, task)
    samples, truth, rows, without = labelled(samples, truth, others=others)
    notes = [UNTRAINED] * random
    notes += [note for note in (*found.notes, items.left_out(), items.noticed()) if note]
    if without and not others:
        what = "items have" if without > 1 else "item has"
        notes.append(
            f"{without:,} {what} no label and {'were' if without > 1 else 'was'} left out."
        )
    given = None if given is None else [given[row] for row in rows]
    of_index = [of_index[row] for row in rows]
    unnamed = tables.nobody(index, found) & set(samples.items)
    notes += [_unnamed(len(unnamed), len(set(samples.items)), plugins.get(recipe.plugin).item)] * (
        len(unnamed) > 0
    )
    also, more = further(samples, recipe.finetune)
    told = beside(samples, truth, recipe.finetune) | more
    device = usable(device)
    known = int(truth.known.sum())
    if run is not None and _saw(run, of_index[:known], given and given[:known]):
        notes.append("Pretraining saw the tested patients too, though without labels.")
    place = dict(index.items.select("id", "site").iter_rows())
    result = study(
        Work(samples, truth, recipe, out, run.path if run else None, device, instances, told, also),
        [found.sites.get(item, place.get(item)) for item in samples.items],
        label=task.label if task else recipe.finetune.label or ", ".join(truth.classes),
        given=given,
        imbalance=imbalance,
        notes=notes,
        unknown_patients=len(unnamed),
        workers=workers,
        command=command_without_paths(command),
    )
    if run is not None:  # which may be gone when the study is asked about new people
        with manifest.replacing(out / PRETRAINED) as temporary:
            seen = sorted(run.pretrained_on())
            pl.DataFrame({"patient": seen}, {"patient": pl.String}).write_parquet(temporary)
    remember(out, data=data, run=run.path if run else None, command=command)
    return result


def _can_learn_from_them(recipe: Recipe) -> None:
    """Refuse what the classifier would not look at.

    Raises:
        UsageError: for samples without a label, soft labels or a tree, and a classifier without use
            for them.
    """
    name, settings = recipe.part("classifier").name, recipe.finetune
    can = declared(recipes.classifier_factory(recipe))
    if settings.also and not can.auxiliary:
        raise UsageError(
            f"finetune.also: the classifier '{name}' learns one label. Set classifier.name to "
            "full, lp-ft, contrast or semi-supervised."
        )
    asked = [word for word in ("tree", "soft") if getattr(settings, word)]
    asked += ["unlabelled"] if settings.unlabelled and not settings.also else []
    if asked and not can.views:
        raise UsageError(
            f"finetune.{asked[0]}: the classifier '{name}' learns from labels alone. Set "
            "classifier.name to semi-supervised."
        )


def _unnamed(count: int, items: int, what: str) -> str:
    """What a reader must know where the patients of some items are not known."""
    some = f"each {what}" if count == items else f"each of {count:,} of {items:,} {what}s"
    return (
        f"Patients are unknown: {some} was taken for a patient of its own, and those of one "
        "patient may lie on both sides. Name them in a column patient (case_id, …) of --labels, or "
        "with medcl index --table or --patient-from."
    )


def _task(recipe: Recipe, labels: Path | Sequence[Path] | None) -> str | None:
    """The plugin's task that is learnt: the recipe's; the probe's, where nothing else is said."""
    asked = recipe.finetune
    if asked.task is not None:
        return asked.task
    said = bool(labels) or asked.label is not None or asked.kind != "auto"
    return None if said else recipe.probe.task


def _with_label(recipe: Recipe, columns: Sequence[str]) -> Recipe:
    """The only label column, or the one called label, if nothing says which one is meant."""
    asked = recipe.finetune
    others = (SPLIT, recipe.split.given, *asked.tree, *asked.soft, *asked.also)
    columns = [name for name in columns if name not in others]
    if len(columns) != 1:
        columns = [name for name in columns if name.lower() == "label"]
    return _with(recipe, label=columns[0]) if len(columns) == 1 else recipe


def _with(recipe: Recipe, **settings: str | None) -> Recipe:
    """The recipe with some settings of ``finetune``."""
    chosen = recipe.finetune.model_copy(update=settings)
    return recipe.model_copy(update={"finetune": chosen})


def _saw(run: Run, patients: Sequence[str], given: Sequence[str] | None) -> bool:
    """Whether somebody is tested whom the encoder was pretrained on."""
    trained = run.pretrained_on()
    sides = given if given is not None else ["test"] * len(patients)  # of folds all are tested
    return any(
        side.strip().lower() == "test" and who in trained
        for who, side in zip(patients, sides, strict=True)
    )


def _given(
    recipe: Recipe, samples: Samples, index: Index, split: Path | None, run: Run | None
) -> list[str] | None:
    """A split that is not drawn here, by sample.

    Raises:
        UsageError: if a table without the column, or no column at all, is to say it.
    """
    if split is not None:
        table = tables.read(split, index)
        if SPLIT not in table.columns:
            raise UsageError(f"{split} has no column '{SPLIT}' that says train or test.")
        return [str(table.rows.get(item, {}).get(SPLIT) or "") for item in samples.items]
    name = recipe.split.given
    if name is not None:
        name = name.removeprefix(LABEL)
        if name in samples.labels:
            return [str(value) for value in np.asarray(samples.labels[name])]
        if name in index.items.columns:
            part = dict(index.items.select("id", name).iter_rows())
            return [str(part.get(item)) for item in samples.items]
        hint = did_you_mean(name, [*samples.labels, *index.items.columns])
        raise UsageError(f"split.given: neither the labels nor the index have '{name}'. {hint}")
    if run is not None and recipe.finetune.folds is None:
        return of_run(samples.patients, run.split())
    return None


def imbalanced(
    source: Source, out: Path, ratios: Sequence[float], **asked: Any
) -> list[FinetuneResult]:
    """The same study with ever fewer positive patients to learn from, each in ``out/1toN``."""
    return [finetune(source, out / f"1to{r:g}", imbalance=r, **asked) for r in ratios]


def ratios(text: str) -> tuple[float, ...]:
    """``"1,5,10"`` as numbers.

    Raises:
        UsageError: if it is something else, or one is not above 0.
    """
    try:
        found = tuple(float(word) for word in text.split(","))
    except ValueError:
        found = ()
    if not found or min(found) <= 0:
        raise UsageError(
            f"--imbalance {text}: give negatives for each positive, such as 1,5,10,50."
        )
    return found
