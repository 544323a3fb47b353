"""All folds of a recipe, trained, pooled and measured.

::

    OUT/recipe.yaml           the recipe, every default written out: see `medcl.private`
    OUT/study.json            what the folds were made from; written first
    OUT/folds/r0f3/           each training: see `medcl.finetune.fold_training`
    OUT/predictions.parquet   id, patient, repeat, fold, truth and every score
    OUT/pretrained.parquet    patient: whom the run's pretraining saw, where it began with a run
    OUT/finetune.json         all figures: `medcl.finetune.result.FinetuneResult`

Run again, it trains what is not there yet and ends with the same figures.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml
from numpy.typing import NDArray

from medcl import recipe as recipes
from medcl.embeddings.embeddings import take
from medcl.errors import MedclError, UsageError
from medcl.finetune import fold_training, scoring
from medcl.finetune.fold_training import SCORE, Work
from medcl.finetune.folds import Part, parts, thinned, with_unlabelled
from medcl.finetune.result import FinetuneResult
from medcl.finetune.scoring import Predicted
from medcl.io.atomic import locked, replacing, write_text
from medcl.io.failure import Failure
from medcl.io.pmap import pmap
from medcl.labels import target as targets
from medcl.labels.target import Target
from medcl.metrics.table import Side
from medcl.plugin import Samples
from medcl.private import read_recipe, write_recipe
from medcl.provenance import commit, versions
from medcl.reading import read_json, read_table

STUDY = "study.json"
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
    workers: int = 1,
    command: str = "",
) -> FinetuneResult:
    """Train all folds of ``work`` that are not there yet, and measure their predictions.

    Args:
        work: samples with their labels, the recipe, and where to write; those without a label last.
        sites: (N,) where each sample comes from.
        label: what the labels are called.
        given: (N,) a split by sample, see `medcl.finetune.folds.parts`.
        imbalance: negatives for each positive patient to leave in training; two classes only.
        notes: for the reader of the figures.
        workers: processes, each training one fold.
        command: how this was called.

    Raises:
        UsageError: if ``out`` holds another study, or another process works on it.
        MedclError: if a fold could not be trained: names the first, and how many.
    """
    recipe, samples = work.recipe, work.samples
    patients = np.asarray(samples.patients)
    known = int(work.truth.known.sum())  # these come first
    of_label = None if given is None else given[:known]
    strata = work.truth.at(np.arange(known)).strata()
    drawn = parts(samples.patients[:known], sites[:known], strata, recipe, of_label)
    if imbalance is not None:
        if work.truth.kind != "binary":
            raise UsageError("--imbalance is for two classes: the second one is made rarer.")
        positive = work.truth.y == 1
        drawn = [thinned(p, samples.patients, positive, imbalance, recipe.seed) for p in drawn]
    rest = np.arange(known, len(samples))
    by = recipe.split.by
    drawn = [with_unlabelled(p, rest, samples.patients, sites, by, given) for p in drawn]
    busy = f"Another process is training into {work.out}. Wait for it, or take another --out."
    with locked(work.out / ".lock", busy):
        made_from = _claim(work, drawn)
        pending = [part for part in drawn if not work.done(part)]
        _train(work, pending, workers)
        made = [_predicted(work, part) for part in drawn]
        _save_predictions(work, drawn)
    facts = [read_json(work.folder(part) / fold_training.FACTS, _REMEDY) for part in drawn]
    settings = recipe.finetune
    result = FinetuneResult(
        classifier=recipe.part("classifier").name,
        label=label,
        kind=work.truth.kind,
        classes=list(work.truth.classes),
        folds=len({part.fold for part in drawn}),
        repeats=settings.repeats,
        train=_side(work.truth, patients, [p.train for p in drawn]),
        test=_side(work.truth, patients, [p.test for p in drawn]),
        figures=scoring.figures(
            work.truth, patients, made, resamples=settings.bootstraps, seed=recipe.seed
        ),
        notes=[*notes, *_notes(work.truth, patients, drawn)],
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
    )
    result.save(work.out)
    return result


def _train(work: Work, pending: Sequence[Part], workers: int) -> None:
    failed: list[tuple[Part, Failure]] = []
    for part, outcome in pmap(
        partial(fold_training.train, work), pending, workers=workers, label="folds"
    ):
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
        UsageError: if it holds another one: says what differs.
    """
    text = recipes.dump(work.recipe)
    facts: dict[str, str | None] = {
        "recipe": hashlib.sha256(text.encode()).hexdigest(),
        "samples": _hash(work.samples.ids, work.samples.patients),
        "encoder": None if work.run is None else _of_file(work.run / ENCODER),
        "labels": _hash(work.truth.classes, work.truth.y),
        "folds": _hash(*([p.train, p.validation, p.test] for p in drawn)),
    }
    if any(len(p.unlabelled) for p in drawn):
        facts["unlabelled"] = _hash(*(p.unlabelled for p in drawn))
    if work.beside:
        facts["labels beside"] = _hash(work.beside)
    path = work.out / STUDY
    if path.is_file():
        _same_recipe(work)
        old = read_json(path, _REMEDY)
        facts["recipe"] = old.get("recipe")  # compared already; its text may be an earlier one
        changed = [name for name, value in facts.items() if old.get(name) != value]
        if changed:
            raise UsageError(
                f"{work.out} holds a study with other {' and '.join(changed)}. Take another --out, "
                "or remove that folder."
            )
    else:
        write_recipe(work.out, work.recipe)
        write_text(path, json.dumps(facts, indent=1) + "\n")
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _same_recipe(work: Work) -> None:
    """Raises UsageError if the folder's recipe is another one: names the first differing key."""
    before = read_recipe(work.out)  # settings of today with their defaults
    old, new = (yaml.safe_load(recipes.dump(recipe)) for recipe in (before, work.recipe))
    for section in new:
        one, other = (
            {"": v} if not isinstance(v, dict) else v for v in (old.get(section), new[section])
        )
        for key in [*other, *one]:
            if one.get(key) != other.get(key):
                name = f"{section}.{key}".rstrip(".")
                raise UsageError(
                    f"{work.out} holds a study of another recipe: {name} is {one.get(key)!r} there "
                    f"and {other.get(key)!r} here. Take another --out, or remove that folder."
                )


def _of_file(path: Path) -> str | None:
    """What tells a run's encoder from another of the same recipe; None where it is not there."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _hash(*values: Any) -> str:
    text = json.dumps(values, default=lambda array: array.tolist())
    return hashlib.sha256(text.encode()).hexdigest()


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
    if len(scores) == len(work.truth.classes):
        names = zip(scores, work.truth.classes, strict=True)
        whole = whole.rename({score: f"{SCORE}{name}" for score, name in names})
    with replacing(work.out / fold_training.PREDICTIONS) as temporary:
        whole.write_parquet(temporary)


def _side(found: Target, patients: NDArray, rows: Sequence[NDArray]) -> Side:
    every = np.unique(np.concatenate(rows))
    return Side(len(np.unique(patients[every])), len(every), targets.counts(found, every))


def _notes(found: Target, patients: NDArray, drawn: Sequence[Part]) -> list[str]:
    """What a reader must know before trusting the figures."""
    notes = []
    people = len(np.unique(patients[np.concatenate([part.test for part in drawn])]))
    if people < 20:
        notes.append(
            f"Only {people} test patients: intervals over so few are too narrow; take them as a "
            "lower bound of the uncertainty."
        )
    if not all(len(part.validation) for part in drawn):
        notes.append(
            "Nobody was set apart for validation: the last epoch is kept, the threshold is 0.5 and "
            "probabilities are not calibrated."
        )
    others = np.unique(np.concatenate([part.unlabelled for part in drawn]))
    if len(others):
        people = len(np.unique(patients[others]))
        notes.append(
            f"Learnt from {len(others):,} samples without a label too, of {people:,} patients."
        )
    return notes


def labelled(
    samples: Samples, found: Target, *, others: bool = False
) -> tuple[Samples, Target, NDArray[np.int64], int]:
    """The samples with a label, their labels and positions, and how many items have none.

    Args:
        samples: all.
        found: their labels.
        others: keep the samples without a label too, behind those with one.

    Raises:
        UsageError: if no sample has one.
    """
    known = np.flatnonzero(found.known)
    if not len(known):
        raise UsageError("No sample carries the label. Does its table's key fit the index?")
    items = np.asarray(samples.items)
    without = len(np.unique(items)) - len(np.unique(items[known]))
    rows = np.concatenate([known, np.flatnonzero(~found.known)]) if others else known
    return take(samples, rows), found.at(rows), rows, without
