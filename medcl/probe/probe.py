"""The frozen-feature probe: what does an encoder know, and what of that did pretraining bring?

Compared on the same unseen patients: the pretrained encoder, the same architecture with its initial
random weights, each of the plugin's hand-crafted baselines, and pretrained + hand-crafted. Whatever is
fitted is fitted on training patients alone. Given the runs of all folds of a recipe, every patient
is predicted by the run that did not see them, and the predictions are pooled.

::

    RUN/probe/predictions.parquet   id, patient, fold, truth, and every score; written first
    RUN/probe/probe.json            all figures (`ProbeResult`)
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from medcl.embeddings.embeddings import embed, fingerprint, take
from medcl.errors import UsageError
from medcl.io.atomic import replacing, write_text
from medcl.io.progress import track
from medcl.labels.target import Target, target
from medcl.plugin import Samples
from medcl.private import command_without_paths
from medcl.probe import external, scoring
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

    Nothing is done if ``out`` already holds it: of the same runs, samples, settings and code.

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
    external = data is not None and external.is_outside(run, data)
    samples, truth = _labelled(runs, data, name, external=external)
    patients = np.asarray(samples.patients)
    parts = folds(runs, patients, unseen="test" if external else "")
    code = versions(recipe.plugin) | {"commit": commit() or ""}
    made_from = _made_from(runs, samples, [name, seed, settings.model_dump(mode="json"), code])
    if _done(out, made_from):
        return ProbeResult.load(out)

    made = _predicted(parts, samples, truth, seed=seed, batch_size=batch_size, device=device)
    _save_predictions(out / "predictions.parquet", samples, truth, parts, made)
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
        notes=_given_notes(recipe, external) + scoring.notes(truth, patients, parts, scores),
        recipe=recipe.name,
        command=command_without_paths(command),
        commit=code.pop("commit") or None,
        versions=code,
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        seconds=round(time.perf_counter() - start, 1),
        made_from=made_from,
    )
    text = json.dumps(result.as_dict(), indent=1, ensure_ascii=False, allow_nan=False)
    write_text(out / "probe.json", text + "\n")
    return result


def _labelled(
    runs: Sequence[Run], data: Path | None, task: str, *, external: bool
) -> tuple[Samples, Target]:
    """The samples that carry a label, and their labels.

    Raises:
        UsageError: if there are none, or several runs are tested on people of another index.
    """
    run = runs[0]
    if external and len(runs) > 1:
        raise UsageError(
            f"{data} holds other people than the runs were split by: give one run to test on them."
        )
    if data is not None and external:
        samples = external.both(run, data, task)
    else:
        samples = load_samples(run.recipe, data or run.data, task=task)
    truth = target(run.plugin.tasks[task], samples)
    labelled = np.flatnonzero(truth.known)
    if not len(labelled):
        raise UsageError(f"No sample of task '{task}' carries a label.")
    return take(samples, labelled), truth.at(labelled)


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


def _given_notes(recipe: Recipe, external: bool) -> list[str]:
    """What follows from how the runs were made, whatever the figures."""
    if external:
        return [external.NOTE]
    return [TRANSDUCTIVE] if recipe.split.pretrain == "all" else []


def _made_from(runs: Sequence[Run], samples: Samples, settings: Sequence[object]) -> str:
    """A hash of weights, samples, labels, splits, settings and code; "" for code not committed."""
    text = json.dumps(settings, sort_keys=True)
    if "-dirty" in text:
        return ""
    digest = hashlib.sha256(text.encode())
    for run in runs:
        digest.update(fingerprint(run, samples).encode())
        digest.update(json.dumps(sorted(run.split().items())).encode())
    return digest.hexdigest()


def _done(out: Path, made_from: str) -> bool:
    """Whether the folder holds just this probe."""
    if not made_from or not (out / "predictions.parquet").is_file():
        return False
    try:
        return ProbeResult.load(out).made_from == made_from
    except (UsageError, ValueError):
        return False


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
    with replacing(path) as temporary:
        pl.DataFrame(columns).write_parquet(temporary)
