"""Predict recordings: tables by window, by recording and by patient.

::

    OUT.parquet            item, patient, where in the item, probabilities, scores, embedding
    OUT.records.parquet    the same by recording: windows, mean probabilities, scores, embedding,
                           and the recording's findings
    OUT.patients.parquet   by patient

Windows are written in groups, so memory use does not grow with the recordings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medcl import recipe as recipes
from medcl.archive.index import Index
from medcl.archive.store import Prepared, prepare
from medcl.errors import MedclError, UsageError
from medcl.ingestion import assigned, indexed
from medcl.io import scratch
from medcl.io.atomic import replacing
from medcl.io.pmap import Engine
from medcl.io.progress import track
from medcl.plugin import Samples
from medcl.predict.predictor import Columns, Predictor
from medcl.predict.tables import WRITTEN, Tables
from medcl.private import other_key, recalled
from medcl.probe.own_classifier import task_of
from medcl.registry import resolve
from medcl.run import Trained, samples_from
from medcl.strings import is_text

PREDICTORS = {
    "run": "medcl.predict.run_predictor:Embedded",
    "study": "medcl.predict.study_predictor:Folds",
}
"""Predictor by kind of trained model."""
SUMMARIES: tuple[tuple[Literal["item", "patient"], str], ...] = (
    ("item", "records"),
    ("patient", "patients"),
)
"""The tables beside that of windows: what a row is, and the part of the name."""
ITEMS_AT_ONCE = 32
OTHER_KEY = other_key(
    "These recordings and the index that was trained on",
    "a patient here may be a training patient.",
)
NO_PRIVATE = (
    "The model came without its private folder: training patients among these cannot be "
    "identified, and predictions for them are optimistic."
)
ASSIGNED = (
    "Patients of the index that was trained on came from a table or from paths (--table, "
    "--patient-from), which these recordings do not share: training patients are recognised only "
    "by the files themselves. Index them in the same way, and give that index."
)


@dataclass(frozen=True)
class Predicted:
    """Outcome of `predict`.

    Attributes:
        out: the table of windows; the others are next to it.
        rejects: reason → number of recordings that could not be used.
        findings: finding → number of recordings that were used nevertheless.
        notes: for the reader.
        plugin: name of the modality.
    """

    out: Path
    records: int
    patients: int
    windows: int
    rejects: Mapping[str, int] = field(default_factory=dict)
    findings: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    plugin: str = ""


def predict(
    model: Trained,
    records: Sequence[Path],
    out: Path,
    *,
    also: Sequence[Trained] = (),
    task: str | None = None,
    settings: Sequence[str] = (),
    embeddings: bool = True,
    paths: bool = False,
    key_file: Path | None = None,
    workers: int = 1,
    engine: Engine = "local",
    batch_size: int = 32,
    device: str = "auto",
) -> Predicted:
    """Predict every sample of new recordings, prepared as the training data.

    Args:
        model: a finished run, whose training patients are the reference of scores; or a study
            of ``medcl finetune``, see `medcl.predict.study_predictor`.
        records: files, stems of files, folders; or one index.
        out: the table of windows; an existing one is replaced.
        also: other studies, for the mean of all: see `medcl.predict.ensemble`.
        task: for a run, predict class probabilities of this task; the classifier is fitted on the
            run's labelled training patients and saved in the run. Or a label of one's own that
            the run was probed for: `medcl.probe.own_classifier`. None: the samples of
            pretraining, without probabilities.
        settings: ``dataset.key=value`` over the recipe's, such as where new bags lie; and
            ``reader.key=value``, facts that these files lack, over those of the run's index.
        embeddings: True to write embeddings. A study has none: each fold has its own encoder.
        paths: True to write the recordings' paths, also in reasons of rejects; they may identify
            a patient.
        key_file: see `medcl.ingestion.indexed`.
        workers: processes that read and prepare.
        engine: where they run: "local", or "ray" for a cluster that shares the folder of ``out``.
        batch_size: samples per forward pass. Small to save memory: more are not faster on a CPU.
        device: see `medcl.embeddings.embeddings.embed`.

    Raises:
        UsageError: for paths that do not exist, an unknown task, or a study whose folds cannot be
            averaged, or ``also`` of other samples or classes.
        MedclError: if no recording can be used; gives the reasons.
    """
    if out.suffix != ".parquet":
        raise UsageError(f"--out {out}: give the name of a table, ending in .parquet.")
    if not is_text(out.absolute()):
        raise UsageError("The name of --out is not UTF-8. Choose another.")
    model, reader = _with(model, settings)
    dataset_settings = model.dataset_settings(task_of(model, task))
    with (
        scratch.new(out.parent),
        indexed(
            model, records, key_file=key_file, reader=reader, workers=workers, engine=engine
        ) as index,
    ):
        prepared = prepare(
            index, model.plugin, model.recipe.prepare, workers=workers, engine=engine
        )
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
        # from here on with torch
        predictor = (
            _ensemble([model, *also], index, device)
            if also
            else predictor_of(model, task, device, known=known)
        )
        seen: set[str] = set()
        with replacing(out) as temporary:
            tables = Tables(temporary, embeddings)
            for samples in _samples(model, prepared, dataset_settings, rejects):
                locations = _locations(model, samples, dataset_settings)
                for start in range(0, len(samples), batch_size):
                    rows = np.arange(start, min(start + batch_size, len(samples)))
                    part: Columns = {
                        "item": [samples.items[int(r)] for r in rows],
                        "patient": [samples.patients[int(r)] for r in rows],
                    }
                    if paths:
                        part["record"] = [names[item] for item in part["item"]]
                    part |= {name: values[rows] for name, values in locations.items()}
                    columns, x = predictor(samples.read(rows), part["patient"])
                    tables.add(part | columns, x)
                seen.update(samples.items)
            if not seen:
                raise MedclError(_nothing(rejects))
            tables.close()
        for by, suffix in SUMMARIES:
            with replacing(out.with_suffix(f".{suffix}.parquet")) as temporary:
                table = tables.summary(out, by, predictor)
                if by == "item":
                    findings_of = prepared.items.select("id", "findings")
                    table = table.join(findings_of, left_on=by, right_on="id", how="left")
                table.write_parquet(temporary, metadata=WRITTEN)
    used = prepared.items.filter(pl.col("id").is_in(list(seen)))
    patients = set(used["patient"])
    findings = Counter(used["findings"].explode().drop_nulls())
    unknown = NO_PRIVATE if where is None else OTHER_KEY
    notes = [*([] if known else [unknown]), *([ASSIGNED] if assigned(model, records) else [])]
    notes += predictor.notes(patients)
    counts = (len(seen), len(patients), tables.rows)
    modality = model.recipe.plugin
    return Predicted(out, *counts, dict(rejects), dict(findings), tuple(notes), modality)


def predictor_of(model: Trained, task: str | None, device: str, *, known: bool) -> Predictor:
    """The predictor of a run or study; ``known``: its patients are identifiable among new ones.

    Raises:
        UsageError: if it is not finished, or its folds cannot be averaged.
    """
    from medcl.embeddings.embeddings import usable

    predictor: Predictor = resolve(PREDICTORS[model.kind])(model, task, usable(device), known=known)
    return predictor


def _ensemble(studies: Sequence[Trained], index: Index, device: str) -> Predictor:
    from medcl.embeddings.embeddings import usable
    from medcl.predict.ensemble import Ensemble

    places = [recalled(study.path) for study in studies]
    known = [place is not None and place.knows(index) for place in places]
    return Ensemble(studies, usable(device), known=known)


def _with(model: Trained, settings: Sequence[str]) -> tuple[Trained, Mapping[str, Any] | None]:
    """The model with other dataset settings; and the reader settings, None without any."""
    reader = [s for s in settings if s.startswith(("reader.", "reader="))]
    other = next((s for s in settings if s not in reader and not s.startswith("dataset.")), None)
    if other is not None:
        raise UsageError(
            f"--set {other}: only dataset.… and reader.… can be set; the rest is fixed by training."
        )
    reader_settings = recipes.nested(reader)["reader"] if reader else None
    if reader_settings is not None and not isinstance(reader_settings, dict):
        raise UsageError("'reader' is a section: give reader.NAME=VALUE, or reader=@FILE.yaml.")
    rest = [s for s in settings if s not in reader]
    if not rest:
        return model, reader_settings
    raw = model.recipe.model_dump(mode="json")
    return replace(model, recipe=recipes.parse(raw, rest, recorded=True)), reader_settings


def _samples(
    model: Trained, prepared: Prepared, settings: Mapping[str, Any], rejects: Counter[str]
) -> Iterator[Samples]:
    """The samples of a few items at a time; an item without samples counts as a reject."""
    parts = list(prepared.items.iter_slices(ITEMS_AT_ONCE))
    for part in track(parts, "predict", total=len(parts)):
        try:
            samples = samples_from(model.recipe, part, prepared.arrays, settings)
            items_with_samples = set(samples.items)
        except UsageError:
            raise
        except MedclError:  # none of these items has a sample
            samples, items_with_samples = None, set()
        lacking = len(part) - len(items_with_samples)
        if lacking:
            rejects["no-sample: too short, or nothing of it is good enough"] += lacking
        if samples is not None:
            yield samples


def _locations(model: Trained, samples: Samples, settings: Mapping[str, Any]) -> dict[str, NDArray]:
    if samples.where is not None:
        return dict(samples.where(np.arange(len(samples))))
    where = model.plugin.where
    if where is None:
        return {"sample": np.array(samples.ids)}
    locations: dict[str, NDArray] = resolve(where)(
        samples.ids, prepare=model.recipe.prepare, dataset=settings
    )
    return locations


def _names(index: Index) -> dict[str, str]:
    return dict(index.paths.select("id", "key").iter_rows())


def _nothing(rejects: Counter[str]) -> str:
    why = "; ".join(f"{n} × {reason}" for reason, n in rejects.most_common(3))
    return f"None of the recordings can be used. {why or 'They hold no sample.'}"
