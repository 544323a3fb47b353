"""Recordings → a table with a row a window, and one with a row a recording and a row a patient.

::

    OUT.parquet            item, patient, where in the item, probabilities, scores, embedding
    OUT.records.parquet    the same by recording: windows, mean probabilities, scores, embedding,
                           and what was noticed of the recording
    OUT.patients.parquet   by patient

Windows are written in groups as they are made, so that memory does not grow with the recordings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medcl import recipe as recipes
from medcl.archive.index import Index
from medcl.archive.store import Prepared, prepare
from medcl.errors import MedclError, UsageError
from medcl.ingestion import assigned, indexed
from medcl.io.atomic import replacing
from medcl.io.progress import track
from medcl.plugin import Samples
from medcl.predict.predictor import Answers, Columns
from medcl.predict.tables import Tables
from medcl.private import other_key, recalled
from medcl.registry import did_you_mean, resolve
from medcl.run import Run

if TYPE_CHECKING:
    from medcl.finetune.opened import Study

ITEMS_AT_ONCE = 32
OTHER_KEY = other_key(
    "These recordings and the index that was trained on",
    "a patient here may be one that was learnt from.",
)
NO_PRIVATE = (
    "What is used here came without its private folder: who of these patients was trained on "
    "cannot be told, so that what is said of such is too good."
)
ASSIGNED = (
    "Patients of the index that was trained on came from a table or from paths (--table, "
    "--patient-from), which these recordings do not share: who was trained on is known only where "
    "the files themselves say so. Index them in the same way, and give that index."
)


@dataclass(frozen=True)
class Predicted:
    """What was predicted.

    Attributes:
        out: the table of windows; the others lie beside it.
        rejects: why recordings could not be used: reason → how many.
        findings: what was noticed of those that were used all the same: finding → how many.
        notes: what a reader must know.
    """

    out: Path
    records: int
    patients: int
    windows: int
    rejects: Mapping[str, int] = field(default_factory=dict)
    findings: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def predict(
    model: Run | Study,
    records: Sequence[Path],
    out: Path,
    *,
    task: str | None = None,
    settings: Sequence[str] = (),
    embeddings: bool = True,
    paths: bool = False,
    key_file: Path | None = None,
    workers: int = 1,
    batch_size: int = 32,
    device: str = "auto",
) -> Predicted:
    """Predict every sample of new recordings, prepared as those that were trained on.

    Args:
        model: a finished run, whose training patients are what scores are measured by; or a study
            of ``medcl finetune``, see `medcl.predict.study_predictor`.
        records: files, stems of files, folders; or one index.
        out: the table of windows; what lies there is replaced.
        task: of a run, give the class probabilities of this task, for its samples; the classifier
            is fitted on the run's labelled training patients and kept in RUN/predict. None: the
            samples of pretraining, without probabilities.
        settings: ``dataset.key=value`` over the recipe's, such as where new bags lie; and
            ``reader.key=value``, what these files do not say, over what the run's index was told.
        embeddings: whether the tables hold the embeddings. Of a study there are none: each fold
            has an encoder of its own.
        paths: whether they, and the reasons of rejects, name the recordings' paths, which may
            identify a person.
        key_file: see `medcl.ingestion.indexed`.
        workers: processes that read and prepare.
        batch_size: samples a forward pass. Small, for memory: on a CPU more are no faster.
        device: see `medcl.embeddings.embeddings.embed`.

    Raises:
        UsageError: for paths that do not exist, an unknown task, or a study whose folds cannot be
            averaged.
        MedclError: if no recording can be used; says why.
    """
    if out.suffix != ".parquet":
        raise UsageError(f"--out {out}: give the name of a table, ending in .parquet.")
    model, reader = _with(model, settings)
    asked = settings_of(model, task)
    with indexed(model, records, key_file=key_file, reader=reader, workers=workers) as index:
        prepared = prepare(index, model.plugin, model.recipe.prepare, workers=workers)
        names = _names(index) if paths else {}
        rejects = Counter(
            f"{names[i]}: {code}: {reason}" if paths else f"{code}: {reason}"
            for frame in (index.rejects, prepared.rejects)
            for i, code, reason in frame.select("id", "code", "reason").rows()
        )
        if not len(prepared.items):
            raise MedclError(_nothing(rejects))

        where = recalled(model.path)
        known = where is not None and where.knows(index)
        answers = answers_of(model, task, device, known=known)  # from here on with torch
        seen: set[str] = set()
        with replacing(out) as temporary:
            tables = Tables(temporary, embeddings)
            for samples in _samples(model, prepared, asked, rejects):
                place = _places(model, samples, asked)
                for start in range(0, len(samples), batch_size):
                    rows = np.arange(start, min(start + batch_size, len(samples)))
                    part: Columns = {
                        "item": [samples.items[int(r)] for r in rows],
                        "patient": [samples.patients[int(r)] for r in rows],
                    }
                    if paths:
                        part["record"] = [names[item] for item in part["item"]]
                    part |= {name: values[rows] for name, values in place.items()}
                    columns, x = answers(samples.read(rows), part["patient"])
                    tables.add(part | columns, x)
                seen.update(samples.items)
            if not seen:
                raise MedclError(_nothing(rejects))
            tables.close()
        for by, suffix in (("item", "records"), ("patient", "patients")):
            with replacing(out.with_suffix(f".{suffix}.parquet")) as temporary:
                table = tables.summary(out, by, answers)
                if by == "item":
                    noticed = prepared.items.select("id", "findings")
                    table = table.join(noticed, left_on=by, right_on="id", how="left")
                table.write_parquet(temporary)
    used = prepared.items.filter(pl.col("id").is_in(list(seen)))
    people = set(used["patient"])
    findings = Counter(used["findings"].explode().drop_nulls())
    unknown = NO_PRIVATE if where is None else OTHER_KEY
    notes = [*([] if known else [unknown]), *([ASSIGNED] if assigned(model, records) else [])]
    notes += answers.notes(people)
    return Predicted(
        out, len(seen), len(people), tables.rows, dict(rejects), dict(findings), tuple(notes)
    )


def answers_of(model: Run | Study, task: str | None, device: str, *, known: bool) -> Answers:
    """What a run or a study says; ``known``: whether its patients can be told among new ones.

    Raises:
        UsageError: if it is not finished, or its folds cannot be averaged.
    """
    from medcl.embeddings.embeddings import usable

    if isinstance(model, Run):
        from medcl.predict.run_predictor import Embedded

        return Embedded(model, task, usable(device), known=known)
    from medcl.predict.study_predictor import Folds

    return Folds(model, usable(device), known=known)


def settings_of(model: Run | Study, task: str | None) -> dict[str, Any]:
    """The dataset settings of a run's task, or of its pretraining; or of what a study learnt.

    Raises:
        UsageError: if there is no such task, or a study is asked for another one.
    """
    if not isinstance(model, Run):
        if task is not None:
            raise UsageError(
                f"{model.path} predicts {model.result.label}, which it was trained for: leave "
                "--task out."
            )
        task = model.recipe.finetune.task
    recipe, plugin = model.recipe, model.plugin
    settings = dict(recipe.dataset)
    if task is None:
        return settings
    if task not in plugin.tasks:
        hint = did_you_mean(task, plugin.tasks)
        raise UsageError(f"Unknown task '{task}' of plugin '{plugin.name}'. {hint}")
    return settings | {**plugin.tasks[task].dataset, **recipe.probe.dataset}


def _with(
    model: Run | Study, settings: Sequence[str]
) -> tuple[Run | Study, Mapping[str, Any] | None]:
    """With other settings of the dataset; and those of the reader, None without any."""
    reader = [s for s in settings if s.startswith(("reader.", "reader="))]
    other = next((s for s in settings if s not in reader and not s.startswith("dataset.")), None)
    if other is not None:
        raise UsageError(
            f"--set {other}: only dataset.… and reader.… can be set; the rest is as it was trained."
        )
    given = recipes.nested(reader)["reader"] if reader else None
    if given is not None and not isinstance(given, dict):
        raise UsageError("'reader' is a section: give reader.NAME=VALUE, or reader=@FILE.yaml.")
    rest = [s for s in settings if s not in reader]
    if not rest:
        return model, given
    raw = model.recipe.model_dump(mode="json")
    return replace(model, recipe=recipes.parse(raw, rest)), given


def _samples(
    model: Run | Study, prepared: Prepared, settings: Mapping[str, Any], rejects: Counter[str]
) -> Iterator[Samples]:
    """The samples of a few items at a time; an item without any is counted, not an error."""
    dataset = resolve(model.plugin.dataset)
    parts = list(prepared.items.iter_slices(ITEMS_AT_ONCE))
    for part in track(parts, "predict", total=len(parts)):
        try:
            samples: Samples = dataset(part, prepared.arrays, **settings)
            found = set(samples.items)
        except UsageError:
            raise
        except MedclError:  # of none of these items any sample is left
            samples, found = None, set()  # type: ignore[assignment]
        lacking = len(part) - len(found)
        if lacking:
            rejects["no-sample: too short, or nothing of it is good enough"] += lacking
        if samples is not None:
            yield samples


def _places(
    model: Run | Study, samples: Samples, settings: Mapping[str, Any]
) -> dict[str, NDArray]:
    where = model.plugin.where
    if where is None:
        return {"sample": np.array(samples.ids)}
    found: dict[str, NDArray] = resolve(where)(
        samples.ids, prepare=model.recipe.prepare, dataset=settings
    )
    return found


def _names(index: Index) -> dict[str, str]:
    return dict(index.paths.select("id", "key").iter_rows())


def _nothing(rejects: Counter[str]) -> str:
    why = "; ".join(f"{n} × {reason}" for reason, n in rejects.most_common(3))
    return f"None of the recordings can be used. {why or 'They hold no sample.'}"
