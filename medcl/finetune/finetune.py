"""``medcl finetune``: train a classifier on an index or a run with labels, and measure it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from medcl import manifest, released
from medcl import plugin as plugins
from medcl import recipe as recipes
from medcl.archive import outcomes
from medcl.archive.index import Index
from medcl.archive.scanning import LABEL
from medcl.classifiers.contract import declared
from medcl.embeddings.embeddings import usable
from medcl.errors import UsageError
from medcl.finetune.fold_training import Work
from medcl.finetune.folds import of_run
from medcl.finetune.opened import NAMED, PRETRAINED
from medcl.finetune.result import FinetuneResult
from medcl.finetune.study import labelled, study
from medcl.labels import table as tables
from medcl.labels import target as targets
from medcl.labels.auxiliary import further, tree_and_soft
from medcl.nn.distributed import check_launched
from medcl.plugin import Samples
from medcl.private import command_without_paths, keep_sites, remember
from medcl.recipe import Recipe
from medcl.registry import did_you_mean
from medcl.run import Run, prepared, samples_of

UNTRAINED = "The features are those of an UNTRAINED encoder (random weights)."
SPLIT = "split"
"""The column of a split's table: train, validation or test."""


@dataclass(frozen=True)
class Source:
    """A recipe on an index, starting from a run's encoder if there is one."""

    recipe: Recipe
    data: Path
    run: Run | None = None


def opened(
    path: Path,
    recipe: str | Path | Mapping[str, Any] | Recipe | None,
    settings: Sequence[str] = (),
    *,
    data: Path | None = None,
) -> Source:
    """Open an index with a recipe; or a run, with its data and encoder.

    ``data`` is another index than the run's own, for its encoder.

    For a run, ``classifier``, ``finetune`` and ``optimizer`` come from ``recipe``; without one they
    are LP-FT and the defaults.

    Raises:
        UsageError: if the folder is neither, an index has no recipe, or the recipe is for another
            plugin.
    """
    path = released.place(path)
    if not (path / "recipe.yaml").is_file():
        if data is not None:
            raise UsageError(f"{path} is no run: --data goes with a run or a released encoder.")
        index = Index.open(path)
        if recipe is None:
            raise UsageError("Give a recipe for this index: -r RECIPE. See medcl recipes.")
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
    if data is not None:  # a published split is a column of the run's own index
        raw["split"] = {**raw["split"], "given": None}
    if recipe is not None:
        other = recipes.given(recipe).model_dump(mode="json")
        if other["plugin"] != raw["plugin"]:
            raise UsageError(
                f"Recipe '{other['name']}' is for plugin '{other['plugin']}', and {path} for "
                f"'{raw['plugin']}'."
            )
        raw |= {name: other[name] for name in ("name", "classifier", "finetune", "optimizer")}
        if other["classifier"] is not None and learns_masks(recipes.given(recipe)):
            raw |= {name: other[name] for name in ("dataset", "views", "trainer")}
    chosen = recipes.parse(raw, settings, recorded=True)
    return Source(chosen, run.data if data is None else data, run)


def learns_masks(recipe: Recipe) -> bool:
    """True if the recipe's classifier learns a class for every position: see `medcl.dense`."""
    if recipe.classifier is None:
        return False
    return declared(recipes.classifier_factory(recipe)).takes == "masks"


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
        source: see `opened`. For a run, its own test patients are the test part unless folds or a
            split are given.
        out: the study's folder; the same call resumes an interrupted study.
        labels: tables, see `medcl.labels.table.read`; None for the samples' own labels. Patients
            and sites that they name replace the index's.
        split: a table with a column ``split``: train, validation or test.
        imbalance: negatives for each positive patient to keep in training.
        instances: True to write the contribution of each instance of the test bags.
        key_column, patient_column: of the tables, if they have none of the usual names.
        workers: processes.
        device: "cpu", "cuda", ..., or "auto".
        command: the command line, for the record.

    Raises:
        UsageError: for a recipe without classifier, a missing label, or another study in ``out``.
        MedclError: for labels of the wrong kind, a patient in two parts of a given split, or a
            failed training.
    """
    check_launched(devices=1, nodes=1)
    recipe, data, run = source.recipe, source.data, source.run
    _refuse_unused_labels(recipe)
    index = Index.open(data)
    name = _task(recipe, labels)
    items = prepared(recipe, data, workers=max(2, workers))
    samples = samples_of(recipe, items, task=name)
    table = tables.Labels()
    if labels:
        table = tables.read(
            labels,
            index,
            among=frozenset(samples.items),
            key_column=key_column,
            patient_column=patient_column,
        )
    became = outcomes.table(
        index, plugins.get(recipe.plugin), recipe.prepare, items, named=table.patients
    )
    own = list(samples.labels)
    samples = tables.add(samples, table, index, recipe.finetune.auxiliary)
    task = None if name is None else plugins.get(recipe.plugin).tasks[name]
    if task is not None:  # the probe's, if the recipe names none: the study records it
        recipe = _with(recipe, task=name)
    elif recipe.finetune.label is None and recipe.finetune.kind != "multilabel":
        recipe = _with_label(recipe, [*table.columns] or own)
    given = given_split(recipe, samples, index, split, run)
    of_index = samples.patients  # as the run knows them
    samples = tables.with_patients(samples, table)
    others = recipe.finetune.unlabelled
    random = any(facts.get("untrained") for facts in samples.facts.values())
    target = targets.finetune_target(samples, recipe.finetune, task)
    samples, target, rows, without = labelled(samples, target, others=others)
    notes = [UNTRAINED] * random
    notes += [note for note in (*table.notes, items.left_out(), items.noticed()) if note]
    if without and not others:
        what = "items have" if without > 1 else "item has"
        notes.append(
            f"{without:,} {what} no label and {'were' if without > 1 else 'was'} left out."
        )
    given = None if given is None else [given[row] for row in rows]
    of_index = [of_index[row] for row in rows]
    unnamed = tables.without_patient(index, table) & set(samples.items)
    notes += [
        unnamed_patients(len(unnamed), len(set(samples.items)), plugins.get(recipe.plugin).item)
    ] * (len(unnamed) > 0)
    auxiliary_labels, values = further(samples, recipe.finetune)
    auxiliary = tree_and_soft(samples, target, recipe.finetune) | values
    device = usable(device)
    known = int(target.known.sum())
    if run is not None and saw(run, of_index[:known], given and given[:known]):
        notes.append("Pretraining used the test patients too, without labels.")
    site_of = dict(index.items.select("id", "site").iter_rows())
    result = study(
        Work(
            samples,
            target,
            recipe,
            out,
            run.path if run else None,
            device,
            instances,
            auxiliary,
            auxiliary_labels,
        ),
        [table.sites.get(item, site_of.get(item)) for item in samples.items],
        label=task.label if task else recipe.finetune.label or ", ".join(target.classes),
        given=given,
        imbalance=imbalance,
        notes=notes,
        unknown_patients=len(unnamed),
        sample=plugins.get(recipe.plugin).item
        if len(set(samples.items)) == len(samples)
        else "sample",
        outcomes=[outcome.row() for outcome in became],
        workers=workers,
        command=command_without_paths(command),
    )
    if run is not None:  # it may be gone when the study predicts new patients
        with manifest.replacing(out / PRETRAINED) as temporary:
            seen = sorted(run.pretrained_on())
            pl.DataFrame({"patient": seen}, {"patient": pl.String}).write_parquet(temporary)
    named = {pair for pair in zip(of_index, samples.patients, strict=True) if pair[0] != pair[1]}
    if named:  # new recordings come without the table
        with manifest.replacing(out / NAMED) as temporary:
            columns = {"indexed": pl.String, "patient": pl.String}
            pl.DataFrame(sorted(named), columns, orient="row").write_parquet(temporary)
    remember(out, data=data, run=run.path if run else None, command=command)
    if names := {**index.site_names(), **table.site_names}:
        keep_sites(out, names)
    return result


def _refuse_unused_labels(recipe: Recipe) -> None:
    """Refuse labels that the classifier does not use.

    Raises:
        UsageError: for unlabelled samples, soft labels, a tree or auxiliary labels, if the
            classifier does not use them.
    """
    name, settings = recipe.part("classifier").name, recipe.finetune
    can = declared(recipes.classifier_factory(recipe))
    if settings.auxiliary and not can.auxiliary:
        raise UsageError(
            f"finetune.auxiliary: the classifier '{name}' learns one label. Set classifier.name to "
            "full, lp-ft, contrast or semi-supervised."
        )
    asked = [word for word in ("tree", "soft") if getattr(settings, word)]
    asked += ["unlabelled"] if settings.unlabelled and not settings.auxiliary else []
    if asked and not can.views:
        raise UsageError(
            f"finetune.{asked[0]}: the classifier '{name}' learns from labels alone. Set "
            "classifier.name to semi-supervised."
        )


def unnamed_patients(count: int, items: int, what: str) -> str:
    """Note on items whose patients are unknown."""
    some = f"each {what}" if count == items else f"each of {count:,} of {items:,} {what}s"
    return (
        f"Patients are unknown: {some} was taken for a patient of its own, and those of one "
        "patient may lie on both sides. Name them in a column patient (case_id, …) of --labels, or "
        "with medcl index --table or --patient-from."
    )


def _task(recipe: Recipe, labels: Path | Sequence[Path] | None) -> str | None:
    """The plugin's task to train: the recipe's, or the probe's if no label is set."""
    asked = recipe.finetune
    if asked.task is not None:
        return asked.task
    label_set = bool(labels) or asked.label is not None or asked.kind != "auto"
    return None if label_set else recipe.probe.task


def _with_label(recipe: Recipe, columns: Sequence[str]) -> Recipe:
    """If no label is set: the only label column, or the one named label."""
    asked = recipe.finetune
    others = (SPLIT, str(recipe.split.given), *asked.tree, *asked.soft, *asked.auxiliary)
    column = tables.only(columns, others)
    return recipe if column is None else _with(recipe, label=column)


def _with(recipe: Recipe, **settings: str | None) -> Recipe:
    """The recipe with some settings of ``finetune``."""
    chosen = recipe.finetune.model_copy(update=settings)
    return recipe.model_copy(update={"finetune": chosen})


def saw(run: Run, patients: Sequence[str], given: Sequence[str] | None) -> bool:
    """True if the encoder was pretrained on a test patient."""
    trained = run.pretrained_on()
    parts = (
        given if given is not None else ["test"] * len(patients)
    )  # with folds, all are test patients
    return any(
        part.strip().lower() == "test" and patient in trained
        for patient, part in zip(patients, parts, strict=True)
    )


def given_split(
    recipe: Recipe, samples: Samples, index: Index, split: Path | None, run: Run | None
) -> list[str] | None:
    """A given split, by sample; None to draw one.

    Raises:
        UsageError: if the table lacks the column, or no column has its name.
    """
    if split is not None:
        table = tables.read(split, index)
        if SPLIT not in table.columns:
            raise UsageError(
                f"{split} has no column '{SPLIT}' of train or test, and no columns train and test."
            )
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
        split_of = run.split()
        if not split_of.keys().isdisjoint(samples.patients):  # else another index's
            return of_run(samples.patients, split_of)
    return None


def ratios(text: str) -> tuple[float, ...]:
    """``"1,5,10"`` as numbers.

    Raises:
        UsageError: if the text is not numbers, or one is not above 0.
    """
    try:
        numbers = tuple(float(word) for word in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) <= 0:
        raise UsageError(
            f"--imbalance {text}: give negatives for each positive, such as 1,5,10,50."
        )
    return numbers
