"""The frozen-feature probe: what does an encoder know, and what of that did pretraining bring?

Compared on the same unseen patients: the pretrained encoder, the same architecture with its initial
random weights, each of the plugin's hand-crafted baselines, and pretrained + hand-crafted. Whatever
is fitted is fitted on training patients alone. Given the runs of all folds of a recipe, every
patient is predicted by the run that did not see them, and the predictions are pooled.

::

    RUN/probe/predictions.parquet   id, patient, fold, truth, and every score; written first
    RUN/probe/probe.json            all figures (`ProbeResult`)
    RUN/probe/head.<task>.safetensors   the classifier itself (`medcl.probe.classifier`)
    RUN/probe/manifest.json         what decides them, see `medcl.manifest`
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from medcl import manifest
from medcl.embeddings.embeddings import embed
from medcl.embeddings.sources import LEFT_OUT, combined, left_out, sources, still
from medcl.errors import UsageError
from medcl.io.progress import track
from medcl.labels.target import Target, target
from medcl.plugin import Samples
from medcl.private import command_without_paths
from medcl.probe import external, scoring
from medcl.probe.classifier import keep
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
from medcl.probe.result import PRETRAINED, ProbeResult
from medcl.provenance import commit, versions
from medcl.recipe import Recipe
from medcl.registry import did_you_mean
from medcl.run import TRANSDUCTIVE, Run, load_samples

PREDICTIONS = "predictions.parquet"


def probe(
    runs: Sequence[Run],
    *,
    data: Path | None = None,
    task: str | None = None,
    out: Path | None = None,
    seed: int | None = None,
    batch_size: int = 512,
    device: str = "auto",
    command: str = "",
) -> ProbeResult:
    """Compare frozen features on unseen patients, and write the comparison down.

    Nothing is done if ``out`` already holds it, whole: of the same runs, index, settings and code.

    Args:
        runs: one finished run, or those of several folds of one recipe.
        data: the index; None for the one the first run was trained on. All patients of another
            one test the run, which is then fitted on the training patients of its own.
        task: the labelled problem; None for the recipe's, or the plugin's only one.
        out: the folder; None for RUN/probe, or beside several runs.
        seed: of inner folds, draws and resamples; None for the recipe's.
        batch_size: samples a forward pass.
        device: see `medcl.embeddings.embeddings.embed`.
        command: how this was called, for the record.

    Raises:
        UsageError: if there is no task, no label, or the runs do not belong together.
        MedclError: if a feature is not finite, or a label is none of the task's.
    """
    start = time.perf_counter()
    if not runs:
        raise UsageError("There is no run to probe. Make one: medcl pretrain")
    run = runs[0]
    recipe, settings = run.recipe, run.recipe.probe
    name = _task(run, task)
    seed = recipe.seed if seed is None else seed
    out = out or (run.path / "probe" if len(runs) == 1 else run.path.parent / "probe")
    is_external = data is not None and external.is_outside(run, data)
    where = [run.data, data] if data is not None and is_external else [data or run.data]
    made_of = _made_of(runs, where, name, seed)
    if (there := _done(out, made_of, [(recipe, place) for place in where])) is not None:
        return there
    samples, truth = _labelled(runs, data, name, is_external=is_external)
    made_of[LEFT_OUT] = combined([left_out(recipe, place) for place in where])
    patients = np.asarray(samples.patients)
    parts = folds(runs, patients, unseen="test" if is_external else "")
    code = versions(recipe.plugin) | {"commit": commit() or ""}

    made = _predicted(parts, samples, truth, seed=seed, batch_size=batch_size, device=device)
    if out == run.path / "probe":  # what predict uses is what this folder's figures are of
        keep(run, name, made[0][PRETRAINED].head)
    _save_predictions(out / PREDICTIONS, samples, truth, parts, made)
    tested = np.concatenate([fold.test for fold in parts])
    trained_on = np.unique(np.concatenate([fold.train for fold in parts]))
    scores, differences = scoring.compare(
        truth.at(tested), patients[tested], made, resamples=settings.bootstraps, seed=seed
    )
    result = ProbeResult(
        task=name,
        label=run.plugin.tasks[name].label,
        kind=truth.kind,
        classes=list(truth.classes),
        folds=len(parts),
        train=scoring.side(truth, patients, trained_on),
        test=scoring.side(truth, patients, tested),
        seed=seed,
        resamples=settings.bootstraps,
        scores=scores,
        differences=differences,
        curve=scoring.curve(truth.at(tested), parts, made),
        notes=_given_notes(recipe, is_external) + scoring.notes(truth, patients, parts, scores),
        recipe=recipe.name,
        command=command_without_paths(command),
        commit=code.pop("commit") or None,
        versions=code,
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        seconds=round(time.perf_counter() - start, 1),
        made_from=manifest.digest(made_of),
    )
    text = json.dumps(result.as_dict(), indent=1, ensure_ascii=False, allow_nan=False)
    manifest.write_text(out / "probe.json", text + "\n")
    manifest.bind(out, "probe", made_of)
    return result


def _labelled(
    runs: Sequence[Run], data: Path | None, task: str, *, is_external: bool
) -> tuple[Samples, Target]:
    """The samples that carry a label, and their labels.

    Raises:
        UsageError: if there are none, or several runs are tested on people of another index.
    """
    run = runs[0]
    if is_external and len(runs) > 1:
        raise UsageError(
            f"{data} holds other people than the runs were split by: give one run to test on them."
        )
    if data is not None and is_external:
        samples = external.both(run, data, task)
    else:
        samples = load_samples(run.recipe, data or run.data, task=task)
    truth = target(run.plugin.tasks[task], samples)
    labelled = np.flatnonzero(truth.known)
    if not len(labelled):
        raise UsageError(f"No sample of task '{task}' carries a label.")
    return samples.at(labelled), truth.at(labelled)


def _predicted(
    parts: Sequence[Fold],
    samples: Samples,
    truth: Target,
    *,
    seed: int,
    batch_size: int,
    device: str,
) -> list[dict[str, Predicted]]:
    """What each representation says of the test samples, for each fold."""
    first = parts[0].run
    fractions, patients = first.recipe.probe.fractions, np.asarray(samples.patients)
    fixed = fixed_features(first, samples, batch_size=batch_size, device=device)
    made: list[dict[str, Predicted]] = []
    for number, fold in enumerate(parts):
        label = PRETRAINED if len(parts) == 1 else f"{PRETRAINED}, fold {number + 1}"
        encoder = fold.run.encoder()
        trained = embed(encoder, samples, batch_size=batch_size, device=device, label=label).x
        compared = list(representations(trained, fixed))
        made.append(
            {
                rep: predict(features, truth, patients, fold, fractions=fractions, seed=seed)
                for rep, features in track(compared, "fit", total=len(compared))
            }
        )
    return made


def _task(run: Run, task: str | None) -> str:
    """The task asked for, the recipe's, or the only one.

    Raises:
        UsageError: if that leaves none or several.
    """
    tasks = run.plugin.tasks
    name = task or run.recipe.probe.task or (next(iter(tasks)) if len(tasks) == 1 else None)
    if name is None:
        raise UsageError(f"Say which task to probe: --task. {did_you_mean('', tasks)}")
    if name not in tasks:
        raise UsageError(f"Unknown task '{name}'. {did_you_mean(name, tasks)}")
    return name


def _given_notes(recipe: Recipe, is_external: bool) -> list[str]:
    """What follows from how the runs were made, whatever the figures."""
    if is_external:
        return [external.NOTE]
    return [TRANSDUCTIVE] if recipe.split.pretrain == "all" else []


def _made_of(runs: Sequence[Run], where: Sequence[Path], task: str, seed: int) -> dict[str, object]:
    """What decides a probe, told without building its samples."""
    recipe = runs[0].recipe
    return {
        "runs": [sources(run, place, task) for run in runs for place in where],
        "splits": manifest.digest([sorted(run.split().items()) for run in runs]),
        "task": task,
        "seed": seed,
        "probe": recipe.probe.model_dump(mode="json"),
    }


def _done(
    out: Path, made_of: Mapping[str, object], where: Sequence[tuple[Recipe, Path]]
) -> ProbeResult | None:
    """What the folder holds, if it is just this probe and whole; damage is said."""
    if not (out / PREDICTIONS).is_file() or not (out / "probe.json").is_file():
        return None
    try:
        there = manifest.load(out)
        if there is None or not still(there.made_of, made_of, where):
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
    samples: Samples,
    truth: Target,
    parts: Sequence[Fold],
    made: Sequence[dict[str, Predicted]],
) -> None:
    """Write what was predicted before any of it is scored."""
    tested = np.concatenate([fold.test for fold in parts])
    judged = truth.at(tested)
    columns: dict[str, object] = {
        "id": [samples.ids[p] for p in tested],
        "patient": [samples.patients[p] for p in tested],
        "fold": np.repeat(np.arange(len(parts)), [len(fold.test) for fold in parts]),
        "truth": judged.y if truth.kind == "regression" else judged.names(),
    }
    for rep in made[0]:
        for classifier in (LINEAR, KNN):
            for c, scores in zip(truth.classes, pool(made, rep, classifier).T, strict=True):
                columns[f"{rep}.{classifier}.{c}"] = scores
    with manifest.replacing(path) as temporary:
        pl.DataFrame(columns).write_parquet(temporary)
