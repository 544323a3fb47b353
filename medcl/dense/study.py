"""``medcl finetune`` with masks: networks from a run's encoder and from nothing, measured.

::

    OUT/recipe.yaml       the recipe, every default written out
    OUT/manifest.json     what the study is made of; written first
    OUT/networks/…        each training: see `medcl.dense.fold`
    OUT/cases.parquet     start, repeat, fold, id, patient, class, dice, surface_dice, voxels
    OUT/pretrained.parquet  patient: those that the run was pretrained on, if there is one
    OUT/dense.json        all figures: `medcl.dense.result.DenseResult`

A second call trains the missing networks only and gives the same figures.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from medcl import manifest
from medcl import recipe as recipes
from medcl.archive.index import Index
from medcl.dense import fold
from medcl.dense.fold import CASES, Start, Work
from medcl.dense.measure import MEASURES
from medcl.dense.result import MEAN, DenseResult, Figures
from medcl.embeddings.embeddings import usable
from medcl.errors import MedclError, UsageError
from medcl.finetune.finetune import Source, given_split, saw
from medcl.finetune.fold_training import FACTS
from medcl.finetune.folds import Part, parts
from medcl.finetune.opened import PRETRAINED
from medcl.finetune.study import claim, digest, of_encoder
from medcl.io.atomic import locked
from medcl.io.failure import Failure
from medcl.io.pmap import pmap
from medcl.metrics import figures
from medcl.metrics.bootstrap import Resampled, bootstrap
from medcl.metrics.metrics import Counted, Measures
from medcl.plugin import Samples
from medcl.private import command_without_paths, remember
from medcl.provenance import commit, versions
from medcl.reading import read_json, read_table
from medcl.run import prepared, samples_of

_REMEDY = "Run the same medcl finetune again, or take another --out."


def segment(
    source: Source,
    out: Path,
    *,
    split: Path | None = None,
    workers: int = 1,
    device: str = "auto",
    command: str = "",
) -> DenseResult:
    """Train the recipe's network with masks, in folds, and measure it on unseen patients.

    With a run, each training is made twice: from its encoder, and from new weights with the same
    patches, so that their paired difference is what pretraining gains.

    Args:
        source: see `medcl.finetune.finetune.opened`. For a run, its own test patients are the test
            part unless folds or a split are given.
        out: the study's folder; the same call resumes an interrupted study.
        split: a table with a column ``split``: train, validation or test.
        workers: networks trained in parallel.
        device: "cpu", "cuda", ..., or "auto".
        command: the command line, for the record.

    Raises:
        UsageError: if no image has a mask, or another study is in ``out``.
        MedclError: if there are too few patients, or a training failed.
    """
    recipe, run = source.recipe, source.run
    index = Index.open(source.data)
    items = prepared(recipe, source.data, workers=max(2, workers))
    samples = samples_of(recipe, items, task=recipe.finetune.task)
    samples, without = masked(samples)
    notes = [note for note in (items.left_out(), items.noticed()) if note]
    if without:
        plural = "images have" if without > 1 else "image has"
        notes.append(
            f"{without:,} {plural} no mask and {'were' if without > 1 else 'was'} left out."
        )
    given = given_split(recipe, samples, index, split, run)
    if run is not None and saw(run, samples.patients, given):
        notes.append("Pretraining used the test patients too, without masks.")
    site_of = dict(index.items.select("id", "site").iter_rows())
    work = Work(samples, recipe, out, run.path if run else None, usable(device))
    sites = [site_of.get(item) for item in samples.items]
    drawn = parts(samples.patients, sites, [""] * len(samples), recipe, given)
    busy = f"Another process is training into {out}. Wait for it, or take another --out."
    with locked(out / ".lock", busy):
        made_from = claim(out, recipe, _made_of(work, drawn))
        starts: list[Start] = ["pretrained", "untrained"] if run else ["untrained"]
        jobs = [(start, part) for part in drawn for start in starts]
        _train(work, [job for job in jobs if not work.done(*job)], workers)
        cases = _cases(work, jobs)
        with manifest.replacing(out / CASES) as temporary:
            cases.write_parquet(temporary)
    result = _result(work, drawn, starts, cases, notes, made_from, command_without_paths(command))
    result.save(out)
    if run is not None:
        with manifest.replacing(out / PRETRAINED) as temporary:
            seen = sorted(run.pretrained_on())
            pl.DataFrame({"patient": seen}, {"patient": pl.String}).write_parquet(temporary)
    remember(out, data=source.data, run=run.path if run else None, command=command)
    return result


def masked(samples: Samples) -> tuple[Samples, int]:
    """The samples with a mask, and the number of those without.

    Raises:
        UsageError: if there is none, or the dataset gives none.
    """
    if not samples.mask_classes or "masked" not in samples.labels or samples.draw is None:
        raise UsageError(
            "This dataset gives no masks, which the classifier learns from: set dataset.kind to "
            "one that does (of ct: whole)."
        )
    rows = np.flatnonzero(np.asarray(samples.labels["masked"]))
    if not len(rows):
        raise UsageError(
            "No image has a mask. Masks lie beside their images, in one of the layouts that "
            "the plugin knows; medcl index says which masks it could not join to an image."
        )
    if len(samples.mask_classes) < 2:
        raise UsageError("The masks draw nothing: every voxel is background.")
    return samples.at(rows), len(samples) - len(rows)


def _made_of(work: Work, drawn: Sequence[Part]) -> dict[str, str | None]:
    return {
        "recipe": manifest.digest(recipes.dump(work.recipe)),
        "samples": digest(work.samples.ids, work.samples.patients),
        "encoder": None if work.run is None else of_encoder(work.run),
        "labels": digest(work.samples.mask_classes),
        "folds": digest(*([p.train, p.validation, p.test] for p in drawn)),
    }


def _train(work: Work, pending: Sequence[tuple[Start, Part]], workers: int) -> None:
    failed: list[tuple[tuple[Start, Part], Failure]] = []
    one = partial(fold.run_one, work)
    for job, outcome in pmap(one, pending, workers=workers, label="networks"):
        if isinstance(outcome, Failure):
            failed.append((job, outcome))
    if failed:
        (start, part), first = failed[0]
        raise MedclError(
            f"{len(failed)} of {len(pending)} trainings failed; {start}-{part.name}: {first.reason}"
        )


def _cases(work: Work, jobs: Sequence[tuple[Start, Part]]) -> pl.DataFrame:
    frames = []
    for start, part in jobs:
        frame = read_table(work.folder(start, part) / CASES, _REMEDY)
        where = {"start": start, "repeat": part.repeat, "fold": part.fold}
        frames.append(frame.select(*(pl.lit(v).alias(n) for n, v in where.items()), pl.all()))
    return pl.concat(frames)


def _result(
    work: Work,
    drawn: Sequence[Part],
    starts: Sequence[Start],
    cases: pl.DataFrame,
    notes: Sequence[str],
    made_from: str,
    command: str,
) -> DenseResult:
    recipe, samples = work.recipe, work.samples
    classes, settings = list(samples.mask_classes[1:]), recipe.finetune
    over = {
        start: _resampled(cases, start, classes, settings.bootstraps, recipe.seed)
        for start in starts
    }
    facts = [
        read_json(work.folder(start, part) / FACTS, _REMEDY) for part in drawn for start in starts
    ]
    tested = cases.filter(pl.col("start") == starts[0]).unique(["id", "class"])
    patients = np.asarray(samples.patients)
    count = tested["patient"].n_unique()
    repeats = settings.repeats
    notes = [*notes, *figures.few_patients(count)]
    if not all(len(part.validation) for part in drawn):
        notes.append("There is no validation part: the last epoch is kept.")
    return DenseResult(
        classifier=recipe.part("classifier").name,
        classes=classes,
        starts=list(starts),
        figures={start: _figures(one, classes) for start, one in over.items()},
        difference=_difference(over["pretrained"], over["untrained"], classes)
        if len(starts) > 1
        else {},
        train_patients=len(np.unique(patients[np.concatenate([p.train for p in drawn])])),
        test_patients=count,
        test_images=tested["id"].n_unique(),
        drawn={
            name: tested.filter((pl.col("class") == name) & (pl.col("drawn") > 0)).height
            for name in classes
        },
        folds=len({part.fold for part in drawn}),
        repeats=repeats,
        tolerance=settings.tolerance,
        notes=notes,
        trainings=len(facts),
        epochs=float(np.mean([f["epochs"] for f in facts])),
        best=float(np.mean([f["best"] for f in facts])),
        resamples=settings.bootstraps,
        seed=recipe.seed,
        recipe=recipe.name,
        command=command,
        commit=commit(),
        versions=versions(recipe.plugin),
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        seconds=round(sum(f["seconds"] for f in facts), 1),
        made_from=made_from,
    )


def _resampled(
    cases: pl.DataFrame, start: Start, classes: Sequence[str], resamples: int, seed: int
) -> Resampled:
    """Means over images by class, and over classes; an image's figure is a mean over repeats."""
    mine = cases.filter(pl.col("start") == start)
    values = {
        measure: mine.with_columns(pl.col(measure).fill_nan(None))
        .group_by("id", "patient", "class")
        .agg(pl.col(measure).mean())
        .pivot("class", index=["id", "patient"], values=measure)
        .sort("id")
        for measure in MEASURES
    }
    patients = values["dice"]["patient"].to_numpy()

    def measures(weight: Counted) -> Measures:
        out = {}
        for name, frame in values.items():
            table = frame.select(classes).to_numpy().astype(np.float64)  # (images, classes)
            defined = np.isfinite(table)
            with np.errstate(invalid="ignore", divide="ignore"):
                by_class = np.stack(
                    [
                        weight.total(np.where(defined[:, c], table[:, c], 0.0))
                        / weight.total(defined[:, c].astype(np.float64))
                        for c in range(len(classes))
                    ]
                )
            occurring = defined.any(axis=0)  # a class that no test image has is not measured
            out[name] = by_class[occurring].mean(axis=0)
            out[f"class_{name}"] = by_class
        return out

    return bootstrap(measures, patients, resamples=resamples, seed=seed)


def _figures(over: Resampled, classes: Sequence[str]) -> Figures:
    return {
        measure: {
            MEAN: over.interval(measure),
            **{name: over.interval(f"class_{measure}", n) for n, name in enumerate(classes)},
        }
        for measure in MEASURES
    }


def _difference(one: Resampled, other: Resampled, classes: Sequence[str]) -> Figures:
    """Paired differences: both starts are measured on the same resamples of patients."""
    return {
        measure: {
            MEAN: one.minus(other, measure),
            **{name: one.minus(other, f"class_{measure}", n) for n, name in enumerate(classes)},
        }
        for measure in MEASURES
    }
