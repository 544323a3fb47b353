"""All folds of a recipe, trained, pooled and measured.

::

    OUT/recipe.yaml           the recipe, every default written out: see `medcl.private`
    OUT/manifest.json         what the folds are made of; written first
    OUT/folds/r0f3/           each training: see `medcl.finetune.fold_training`
    OUT/predictions.parquet   id, patient, repeat, fold, truth and every score
    OUT/pretrained.parquet    patient: those that the run was pretrained on, if there is one
    OUT/named.parquet         indexed, patient: keys of the index, if the labels name patients
    OUT/finetune.json         all figures: `medcl.finetune.result.FinetuneResult`

A second call trains the missing folds only and gives the same figures.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml
from numpy.typing import NDArray

from medcl import manifest
from medcl import recipe as recipes
from medcl.errors import MedclError, UsageError
from medcl.finetune import fold_training, scoring
from medcl.finetune.fold_training import SCORE, Work
from medcl.finetune.folds import Part, parts, thinned, with_unlabelled
from medcl.finetune.result import FinetuneResult
from medcl.finetune.scoring import Predicted
from medcl.io.atomic import locked
from medcl.io.failure import Failure
from medcl.io.pmap import pmap
from medcl.labels import target as targets
from medcl.labels.target import Target
from medcl.metrics import figures
from medcl.metrics.table import SplitCounts
from medcl.plugin import Samples
from medcl.private import read_recipe, write_recipe
from medcl.provenance import commit, versions
from medcl.reading import read_json, read_table
from medcl.recipe import Recipe
from medcl.run import Run

STUDY = "study.json"
"""Held the inputs of the folds, before manifests."""
ENCODER = "encoder.safetensors"
_REMEDY = "Run the same medcl finetune again, or take another --out."


def study(
    work: Work,
    sites: Sequence[str | None],
    *,
    label: str,
    given: Sequence[str] | None = None,
    imbalance: float | None = None,
    notes: Sequence[str] = (),
    unknown_patients: int = 0,
    sample: str = "sample",
    outcomes: Sequence[Mapping[str, Any]] = (),
    workers: int = 1,
    command: str = "",
) -> FinetuneResult:
    """Train all missing folds of ``work``, and measure their predictions.

    Args:
        work: samples with their labels (unlabelled ones last), the recipe, and the output folder.
        sites: (N,) site of each sample.
        label: name of the label.
        given: (N,) a split by sample, see `medcl.finetune.folds.parts`.
        imbalance: negatives for each positive patient to keep in training; two classes only.
        notes: for the reader of the figures.
        unknown_patients: items without a known patient; each counts as one patient.
        sample: what a sample is called, in the singular.
        outcomes: what became of the archive, see `medcl.archive.outcomes`.
        workers: processes, each training one fold.
        command: the command line, for the record.

    Raises:
        UsageError: if ``out`` holds another study, or another process works on it.
        MedclError: if folds failed: names the first one and their number.
    """
    recipe, samples = work.recipe, work.samples
    patients = np.asarray(samples.patients)
    known = int(work.target.known.sum())  # these come first
    of_label = None if given is None else given[:known]
    strata = work.target.at(np.arange(known)).strata()
    drawn = parts(samples.patients[:known], sites[:known], strata, recipe, of_label)
    if imbalance is not None:
        if work.target.kind != "binary":
            raise UsageError("--imbalance is for two classes: it thins the second one.")
        positive = work.target.y == 1
        drawn = [thinned(p, samples.patients, positive, imbalance, recipe.seed) for p in drawn]
    rest = np.arange(known, len(samples))
    by = recipe.split.by
    drawn = [with_unlabelled(p, rest, samples.patients, sites, by, given) for p in drawn]
    busy = f"Another process is training into {work.out}. Wait for it, or take another --out."
    with locked(work.out / ".lock", busy):
        made_from = _claim(work, drawn)
        pending = [part for part in drawn if not work.done(part)]
        _train(work, pending, workers)
        predictions = [_predicted(work, part) for part in drawn]
        _save_predictions(work, drawn)
    facts = [read_json(work.folder(part) / fold_training.FACTS, _REMEDY) for part in drawn]
    settings = recipe.finetune
    result = FinetuneResult(
        classifier=recipe.part("classifier").name,
        label=label,
        kind=work.target.kind,
        classes=list(work.target.classes),
        folds=len({part.fold for part in drawn}),
        repeats=settings.repeats,
        train=_counts(work.target, patients, [p.train for p in drawn]),
        test=_counts(work.target, patients, [p.test for p in drawn]),
        figures=scoring.scored(
            work.target, patients, predictions, resamples=settings.bootstraps, seed=recipe.seed
        ),
        notes=[*notes, *_notes(work.target, patients, drawn)],
        imbalance=imbalance,
        trainings=len(drawn),
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
        unknown_patients=unknown_patients,
        sample=sample,
        outcomes=[dict(row) for row in outcomes],
    )
    result.save(work.out)
    return result


def _train(work: Work, pending: Sequence[Part], workers: int) -> None:
    failed: list[tuple[Part, Failure]] = []
    one = partial(fold_training.train, work)
    for part, outcome in pmap(one, pending, workers=workers, label="folds"):
        if isinstance(outcome, Failure):
            failed.append((part, outcome))
    if failed:
        part, first = failed[0]
        raise MedclError(
            f"{len(failed)} of {len(pending)} trainings failed; {part.name}: {first.reason}"
        )


def _claim(work: Work, drawn: Sequence[Part]) -> str:
    """Bind the folder to this study.

    Raises:
        UsageError: if it holds another one; names what differs.
    """
    made_of: dict[str, str | None] = {
        "recipe": manifest.digest(recipes.dump(work.recipe)),
        "samples": digest(work.samples.ids, work.samples.patients),
        "encoder": None if work.run is None else of_encoder(work.run),
        "labels": digest(work.target.classes, work.target.y),
        "folds": digest(*([p.train, p.validation, p.test] for p in drawn)),
    }
    if any(len(p.unlabelled) for p in drawn):
        made_of["unlabelled"] = digest(*(p.unlabelled for p in drawn))
    if work.auxiliary:
        made_of["labels beside"] = digest(work.auxiliary)
    return claim(work.out, work.recipe, made_of)


def claim(out: Path, recipe: Recipe, made_of: dict[str, str | None]) -> str:
    """Bind a folder to a study of these inputs, and write its recipe; returns their hash.

    Raises:
        UsageError: if it holds another study; names what differs.
    """
    if (recorded := _made_of(out)) is not None:
        before = read_recipe(out)  # with today's defaults
        old, new = ({"recipe": yaml.safe_load(recipes.dump(r))} for r in (before, recipe))
        manifest.refuse_other(out, "a study", old, new)
        made_of["recipe"] = recorded.get("recipe")  # its text may be an earlier one
        manifest.refuse_other(out, "a study", recorded, made_of)
    else:
        write_recipe(out, recipe)
    manifest.bind(out, "study", made_of)
    return manifest.digest(made_of, ordered=True)


def _made_of(out: Path) -> Mapping[str, Any] | None:
    """Recorded inputs of a folder's study; None if it holds no study yet."""
    stored = manifest.load(out)
    if stored is not None and stored.kind == "study":
        return stored.made_of
    return read_json(out / STUDY, _REMEDY) if (out / STUDY).is_file() else None


def of_encoder(run: Path) -> str | None:
    """Hash of a run's encoder; None if the file is missing."""
    path = run / ENCODER
    if not path.is_file():
        return None
    manifest.check(path, Run.remedy)
    return manifest.of_file(path)


def digest(*values: Any) -> str:
    """Hash of the inputs of a study, in their order."""
    return manifest.digest(list(values), ordered=True)  # as studies did before


def _predicted(work: Work, part: Part) -> Predicted:
    folder = work.folder(part)
    frame = read_table(folder / fold_training.PREDICTIONS, _REMEDY)
    facts = read_json(folder / fold_training.FACTS, _REMEDY)
    return Predicted(
        repeat=part.repeat,
        rows=frame["row"].to_numpy(),
        scores=frame.select(pl.col(f"^{SCORE}.*$")).to_numpy(),
        temperature=facts["temperature"],
        threshold=facts["threshold"],
    )


def _save_predictions(work: Work, drawn: Sequence[Part]) -> None:
    """All folds' predictions, with scores named after their classes."""
    frames = []
    for part in drawn:
        frame = read_table(work.folder(part) / fold_training.PREDICTIONS, _REMEDY)
        where = pl.lit(part.repeat).alias("repeat"), pl.lit(part.fold).alias("fold")
        frames.append(frame.drop("row").with_columns(*where))
    whole = pl.concat(frames)
    scores = [name for name in whole.columns if name.startswith(SCORE)]
    if len(scores) == len(work.target.classes):
        names = zip(scores, work.target.classes, strict=True)
        whole = whole.rename({score: f"{SCORE}{name}" for score, name in names})
    with manifest.replacing(work.out / fold_training.PREDICTIONS) as temporary:
        whole.write_parquet(temporary)


def _counts(target: Target, patients: NDArray, rows: Sequence[NDArray]) -> SplitCounts:
    every = np.unique(np.concatenate(rows))
    return SplitCounts(len(np.unique(patients[every])), len(every), targets.counts(target, every))


def _notes(target: Target, patients: NDArray, drawn: Sequence[Part]) -> list[str]:
    """Caveats on the figures."""
    count = len(np.unique(patients[np.concatenate([part.test for part in drawn])]))
    notes = [*target.notes, *figures.few_patients(count)]
    if not all(len(part.validation) for part in drawn):
        notes.append(
            "There is no validation part: the last epoch is kept, the threshold is 0.5 and "
            "probabilities are not calibrated."
        )
    others = np.unique(np.concatenate([part.unlabelled for part in drawn]))
    if len(others):
        count = len(np.unique(patients[others]))
        notes.append(
            f"Learnt from {len(others):,} samples without a label too, of {count:,} patients."
        )
    return notes


def labelled(
    samples: Samples, target: Target, *, others: bool = False
) -> tuple[Samples, Target, NDArray[np.int64], int]:
    """Samples with a label, their labels and positions, and the number of items without one.

    Args:
        samples: all.
        target: their labels.
        others: True to keep the samples without a label too, after those with one.

    Raises:
        UsageError: if no sample has a label.
    """
    known = np.flatnonzero(target.known)
    if not len(known):
        raise UsageError("No sample carries the label. Do the keys of its table match the index?")
    items = np.asarray(samples.items)
    without = len(np.unique(items)) - len(np.unique(items[known]))
    rows = np.concatenate([known, np.flatnonzero(~target.known)]) if others else known
    return samples.at(rows), target.at(rows), rows, without
