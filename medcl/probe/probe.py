"""The frozen-feature probe: measures an encoder's features, and the gain from pretraining.

On the same unseen patients it compares the pretrained encoder, the same architecture with random
initial weights, each of the plugin's hand-crafted baselines, and pretrained + hand-crafted.
All models are fitted on training patients alone. Given the runs of all folds of a recipe, each
patient is predicted by the run that did not see that patient, and the predictions are pooled.

::

    RUN/probe/predictions.parquet   id, patient, fold, truth, and every score; written first
    RUN/probe/probe.json            all figures (`ProbeResult`)
    RUN/probe/head.<task>.safetensors   the classifier itself (`medcl.probe.classifier`)
    RUN/probe/manifest.json         their inputs, see `medcl.manifest`
    RUN/probe/<label>/              the same of a user's own label, with its head.safetensors
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medcl import manifest
from medcl.embeddings import head
from medcl.embeddings.embeddings import embed
from medcl.embeddings.sources import LEFT_OUT, combined, left_out, sources, still
from medcl.errors import UsageError
from medcl.io.progress import track
from medcl.labels import target as targets
from medcl.private import command_without_paths
from medcl.probe import external, own_labels, scoring
from medcl.probe.classifier import save
from medcl.probe.folds import (
    KNN,
    LINEAR,
    Fold,
    Predicted,
    fixed_features,
    folds,
    pool,
    predict,
    representations,
)
from medcl.probe.own_labels import Labelled, OwnLabels
from medcl.probe.result import PRETRAINED, ProbeResult
from medcl.provenance import commit, versions
from medcl.recipe import Recipe
from medcl.registry import did_you_mean
from medcl.run import TRANSDUCTIVE, Run, load_samples

PREDICTIONS, HEAD = "predictions.parquet", "head.safetensors"


def probe(
    runs: Sequence[Run],
    *,
    data: Path | None = None,
    task: str | None = None,
    labels: OwnLabels | None = None,
    out: Path | None = None,
    seed: int | None = None,
    batch_size: int = 512,
    device: str = "auto",
    command: str = "",
) -> ProbeResult:
    """Compare frozen features on unseen patients, and write the results.

    Does nothing if ``out`` already holds intact results of the same runs, index, settings and code.

    Args:
        runs: one finished run, or those of several folds of one recipe.
        data: the index; None for the first run's own. With another index, all its patients are
            the test set, and the classifier is fitted on the run's own training patients.
        task: the labelled problem; None for the recipe's, or the plugin's only one. With
            ``labels``, the task whose samples they label; None for those of pretraining.
        labels: a user's own, see `medcl.probe.own_labels`. With another index, of other patients,
            classifiers are fitted on its training patients and tested on its test patients.
        out: the folder; None for RUN/probe, or ``probe`` next to several runs; of own labels,
            a folder of the label's name in it.
        seed: of inner folds, draws and resamples; None for the recipe's.
        batch_size: samples per forward pass.
        device: see `medcl.embeddings.embeddings.embed`.
        command: the command line, for the record.

    Raises:
        UsageError: if there is no task, no label, or the runs do not belong together.
        MedclError: if a feature is not finite, or a label is not among the task's classes.
    """
    start = time.perf_counter()
    if not runs:
        raise UsageError("There is no run to probe. Make one: medcl pretrain")
    run = runs[0]
    recipe, settings = run.recipe, run.recipe.probe
    name = _task(run, task) if labels is None else None
    seed = recipe.seed if seed is None else seed
    is_external = data is not None and labels is None and external.is_external(run, data)
    where = [run.data, data] if data is not None and is_external else [data or run.data]
    given = None if labels is None else own_labels.labelled(run, where[0], task, labels)
    if out is None:
        out = run.path / "probe" if len(runs) == 1 else run.path.parent / "probe"
        out = out if given is None else out / file_name(given.label)
    made_of = _made_of(runs, where, name or task, seed)
    if labels is not None:
        made_of["labels"] = labels.made_of()
    if (stored := _stored(out, made_of, [(recipe, index) for index in where])) is not None:
        return stored
    if name is not None:
        given = _labelled(runs, data, name, is_external=is_external)
    assert given is not None
    target, patients = given.target, given.patients
    made_of[LEFT_OUT] = combined([left_out(recipe, index) for index in where])
    parts = folds(
        runs,
        given.of_index,
        unseen="test" if is_external else "",
        split=None if labels is None else own_labels.split_of(run, where[0]),
    )
    parts, straddling = _disjoint(parts, patients)
    code = versions(recipe.plugin) | {"commit": commit() or ""}

    predictions = _predicted(parts, given, seed=seed, batch_size=batch_size, device=device)
    fitted = predictions[0][PRETRAINED].head
    if labels is not None:
        head.save(out / HEAD, fitted, manifest.digest(made_of))
    elif out == run.path / "probe":  # predict uses the classifier that these figures describe
        save(run, given.label, fitted)
    _save_predictions(out / PREDICTIONS, given, parts, predictions)
    tested = np.concatenate([fold.test for fold in parts])
    trained_on = np.unique(np.concatenate([fold.train for fold in parts]))
    scores, differences = scoring.compare(
        target.at(tested), patients[tested], predictions, resamples=settings.bootstraps, seed=seed
    )
    result = ProbeResult(
        task=given.label,
        label=given.label if name is None else run.plugin.tasks[name].label,
        kind=target.kind,
        classes=list(target.classes),
        folds=len(parts),
        train=scoring.counts(target, patients, trained_on),
        test=scoring.counts(target, patients, tested),
        seed=seed,
        resamples=settings.bootstraps,
        scores=scores,
        differences=differences,
        curve=scoring.label_efficiency(target.at(tested), parts, predictions),
        notes=[
            *_given_notes(recipe, is_external),
            *given.notes,
            *straddling,
            *scoring.notes(target, patients, parts, scores),
        ],
        recipe=recipe.name,
        command=command_without_paths(command),
        commit=code.pop("commit") or None,
        versions=code,
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        seconds=round(time.perf_counter() - start, 1),
        made_from=manifest.digest(made_of),
        by=given.by,
        positive=target.classes[1] if target.kind == "binary" else None,
    )
    text = json.dumps(result.as_dict(), indent=1, ensure_ascii=False, allow_nan=False)
    manifest.write_text(out / "probe.json", text + "\n")
    manifest.bind(out, "probe", made_of)
    return result


def _labelled(runs: Sequence[Run], data: Path | None, task: str, *, is_external: bool) -> Labelled:
    """The samples of a task that carry a label, and their labels.

    Raises:
        UsageError: if there are none, or several runs are given with another index.
    """
    run = runs[0]
    if is_external and len(runs) > 1:
        raise UsageError(
            f"{data} holds other patients than the runs' splits: give one run to test on them."
        )
    if data is not None and is_external:
        samples = external.own_and_external(run, data, task)
    else:
        samples = load_samples(run.recipe, data or run.data, task=task)
    return own_labels.by_sample(samples, targets.target(run.plugin.tasks[task], samples), task)


def _predicted(
    parts: Sequence[Fold], given: Labelled, *, seed: int, batch_size: int, device: str
) -> list[dict[str, Predicted]]:
    """For each fold, the predictions of each representation on the test units."""
    first, samples = parts[0].run, given.samples
    fractions, patients = first.recipe.probe.fractions, given.patients
    fixed = {
        name: given.pooled(x)
        for name, x in fixed_features(first, samples, batch_size=batch_size, device=device).items()
    }
    predictions: list[dict[str, Predicted]] = []
    for number, fold in enumerate(parts):
        label = PRETRAINED if len(parts) == 1 else f"{PRETRAINED}, fold {number + 1}"
        encoder = fold.run.encoder()
        trained = embed(encoder, samples, batch_size=batch_size, device=device, label=label).x
        compared = list(representations(given.pooled(trained), fixed))
        predictions.append(
            {
                rep: predict(features, given.target, patients, fold, fractions=fractions, seed=seed)
                for rep, features in track(compared, "fit", total=len(compared))
            }
        )
    return predictions


def _disjoint(parts: Sequence[Fold], patients: NDArray) -> tuple[list[Fold], list[str]]:
    """The folds without test units of training patients, and a note if there were any.

    A table of labels may say that two patients of the index are one.

    Raises:
        UsageError: if nothing is left to test on.
    """
    out, dropped = [], 0
    for fold in parts:
        fresh = ~np.isin(patients[fold.test], patients[fold.train])
        dropped += int((~fresh).sum())
        out.append(replace(fold, test=fold.test[fresh]))
    if not all(len(fold.test) for fold in out):
        raise UsageError(
            "By the patients of the table, all test patients are training patients too: index the "
            "archive with that table (medcl index --table), and pretrain on that index."
        )
    note = (
        f"{dropped:,} test samples were left out: by the table, their patients are in the training "
        "part too."
    )
    return out, [note] if dropped else []


def file_name(label: str) -> str:
    """A label as the name of a folder."""
    return re.sub(r"[^\w.+-]+", "_", label).strip(".") or "label"


def _task(run: Run, task: str | None) -> str:
    """The task given, the recipe's, or the plugin's only one.

    Raises:
        UsageError: if there is none, or several.
    """
    tasks = run.plugin.tasks
    name = task or run.recipe.probe.task or (next(iter(tasks)) if len(tasks) == 1 else None)
    if name is None:
        raise UsageError(f"Name the task to probe: --task. {did_you_mean('', tasks)}")
    if name not in tasks:
        raise UsageError(f"Unknown task '{name}'. {did_you_mean(name, tasks)}")
    return name


def _given_notes(recipe: Recipe, is_external: bool) -> list[str]:
    """Notes that follow from how the runs were pretrained."""
    if is_external:
        return [external.NOTE]
    return [TRANSDUCTIVE] if recipe.split.pretrain == "all" else []


def _made_of(
    runs: Sequence[Run], where: Sequence[Path], task: str | None, seed: int
) -> dict[str, object]:
    """Inputs that determine a probe, read without building its samples."""
    recipe = runs[0].recipe
    return {
        "runs": [sources(run, index, task) for run in runs for index in where],
        "splits": manifest.digest([sorted(run.split().items()) for run in runs]),
        "task": task,
        "seed": seed,
        "probe": recipe.probe.model_dump(mode="json"),
    }


def _stored(
    out: Path, made_of: Mapping[str, object], where: Sequence[tuple[Recipe, Path]]
) -> ProbeResult | None:
    """The folder's results, if they are intact and of these inputs; damage gives a warning."""
    if not (out / PREDICTIONS).is_file() or not (out / "probe.json").is_file():
        return None
    try:
        recorded = manifest.load(out)
        if recorded is None or not still(recorded.made_of, made_of, where):
            return None
        manifest.check(out / PREDICTIONS, "")
        return ProbeResult.load(out)
    except manifest.DamagedError as error:
        manifest.warn(f"{str(error).partition('. ')[0]}. It is made anew.")
    except UsageError:  # another version's
        pass
    return None


def _save_predictions(
    path: Path,
    given: Labelled,
    parts: Sequence[Fold],
    predictions: Sequence[dict[str, Predicted]],
) -> None:
    """Write the predictions before scoring."""
    target = given.target
    tested = np.concatenate([fold.test for fold in parts])
    test_target = target.at(tested)
    columns: dict[str, object] = {
        "id": [given.ids[p] for p in tested],
        "patient": given.patients[tested].tolist(),
        "fold": np.repeat(np.arange(len(parts)), [len(fold.test) for fold in parts]),
        "truth": test_target.y if target.kind == "regression" else test_target.names(),
    }
    for rep in predictions[0]:
        for classifier in (LINEAR, KNN):
            for c, scores in zip(target.classes, pool(predictions, rep, classifier).T, strict=True):
                columns[f"{rep}.{classifier}.{c}"] = scores
    with manifest.replacing(path) as temporary:
        pl.DataFrame(columns).write_parquet(temporary)
