"""``medcl evaluate``: checks of a study before its figures are trusted.

::

    STUDY/evaluation/evaluation.json   everything below, with intervals and numbers of patients

The leakage audit comes first, and a leak makes the command fail; then figures by subgroup, under
named corruptions at five strengths, and under attack. Figures, calibration and confusion of the
study itself are in its ``finetune.json``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from medcl import manifest
from medcl.archive.index import Index
from medcl.archive.scanning import LABEL
from medcl.audit import compare as comparing
from medcl.audit import robustness
from medcl.audit.corruptions import CORRUPTIONS
from medcl.audit.leakage import Audit, audit
from medcl.audit.robustness import Attacked, Corrupted
from medcl.audit.subgroups import FEW, MOST, Subgroup, subgroups
from medcl.classifiers.contract import declared
from medcl.embeddings.embeddings import evenly, usable
from medcl.errors import UsageError
from medcl.finetune.opened import Study
from medcl.finetune.result import FinetuneResult
from medcl.labels.table import Labels, without_patient
from medcl.metrics.table import show
from medcl.plugin import Samples
from medcl.recipe import classifier_factory
from medcl.registry import did_you_mean

FOLDER, FILE = "evaluation", "evaluation.json"


@dataclass(frozen=True)
class Evaluation:
    """Results of an evaluation.

    Attributes:
        study: its figures.
        audit: the leakage audit over all folds.
        subgroups: figures by group of test patients.
        corruptions: each sample is predicted by the model that did not see it.
        attacks: likewise.
        tested: samples and patients used for corruptions and attacks.
        notes: what was left out, and why.
    """

    study: FinetuneResult
    audit: Audit
    subgroups: list[Subgroup]
    corruptions: list[Corrupted]
    attacks: list[Attacked]
    tested: tuple[int, int]
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return asdict(self) | {"audit": self.audit.as_dict()}

    def subgroup_table(self) -> tuple[list[str], list[list[str]]]:
        """Column heads and rows: one row per group."""
        measure = self.study.headline
        rows = []
        for group in self.subgroups:
            figure = group.metrics.get(measure)
            shown = ["too few patients", "–"]
            if figure:
                shown = [show(figure), show(group.difference[measure], signed=True)]
            rows.append(
                [group.column, group.value, str(group.patients), str(group.samples), *shown]
            )
        name = self.study.metric_names.get(measure, measure)
        return ["column", "group", "patients", "samples", name, "minus the others"], rows

    def corruption_table(self) -> tuple[list[str], list[list[str]]]:
        """Column heads and rows: one row per corruption, one column per strength."""
        measure = self.study.headline
        strengths = sorted({c.strength for c in self.corruptions})
        figure_of = {(c.corruption, c.strength): c.metrics[measure] for c in self.corruptions}
        names = [n for n in dict.fromkeys(c.corruption for c in self.corruptions) if n != "none"]
        rows = [
            [
                name,
                *(show(figure_of["none", 0] if s == 0 else figure_of[name, s]) for s in strengths),
            ]
            for name in names
        ]
        return ["corruption", *("as it is" if s == 0 else str(s) for s in strengths)], rows

    def attack_table(self) -> tuple[list[str], list[list[str]]]:
        """Column heads and rows: one row per attack and radius."""
        rows = [
            [a.attack.upper(), f"{a.epsilon:g}", show(a.success), str(a.samples)]
            for a in self.attacks
        ]
        return ["attack", "ε (share of std)", "success rate", "samples once right"], rows


def evaluate(
    path: Path,
    *,
    by: Sequence[str] | None = None,
    corruptions: Sequence[str] = tuple(CORRUPTIONS),
    attack: bool = True,
    limit: int = 2000,
    batch_size: int = 64,
    device: str = "auto",
    resamples: int = 300,
) -> Evaluation:
    """Audit and evaluate a finished study, and write the results.

    Args:
        path: of ``medcl finetune``.
        by: columns of the index to make groups by; None for the site and every column that has
            two to twelve values, or is an age, and a group that is large enough to be measured;
            counts and grades among the labels (numbers of more than two values) are left out.
        corruptions: of `medcl.audit.corruptions.CORRUPTIONS`; none to leave them out.
        attack: whether to try FGSM and PGD.
        limit: test samples that corruptions and attacks are tried on at most, drawn evenly from
            the patients.
        batch_size: samples per forward pass.
        device: "cpu", "cuda", ..., or "auto".
        resamples: of patients.

    Raises:
        UsageError: if the folder is not a finished study, or a column or corruption is unknown.
    """
    study = Study.open(path)
    device = usable(device)
    unknown = [name for name in corruptions if name not in CORRUPTIONS]
    if unknown:
        raise UsageError(
            f"Unknown corruption '{unknown[0]}'. {did_you_mean(unknown[0], CORRUPTIONS)}"
        )
    samples = study.samples()
    ids = list(samples.ids)
    parts = [study.parts(fold, ids) for fold in study.folds]
    index = Index.open(study.data)
    leakage = audit(
        samples,
        *parts,
        unknown=_unknown(study, index),
        item=study.plugin.item,
        sample=study.result.sample,
    )
    predictions = comparing.read(path)
    groups = subgroups(
        predictions,
        _columns(index, samples, predictions.ids.tolist(), study, by),
        resamples=resamples,
        seed=study.recipe.seed,
    )
    notes: list[str] = []
    if by is None:  # a column without a group of some size would only be noise
        measured = {group.column for group in groups if group.metrics}
        unmeasured = {group.column for group in groups} - measured
        groups = [group for group in groups if group.column in measured]
        if unmeasured:
            several = len(unmeasured) > 1
            notes.append(
                f"{len(unmeasured)} {'columns' if several else 'column'} of the index "
                f"{'have' if several else 'has'} no group of {FEW} test patients and "
                f"{'were' if several else 'was'} left out; --by names them one by one."
            )
    corrupted: list[Corrupted] = []
    attacked: list[Attacked] = []
    tested = (0, 0)
    example = samples.read(np.arange(min(2, len(samples))))
    if "bag" in example or example["x"].ndim < 3:
        notes.append("Corruptions and attacks are for signals and images, and these are neither.")
    elif (corruptions or attack) and declared(classifier_factory(study.recipe)).needs:
        notes.append(
            "Corruptions and attacks change the samples alone, and this classifier is given more "
            "than them: it was not measured so."
        )
    elif corruptions or attack:
        tested_samples, tested_predictions, classify = _judged(
            study, samples, predictions, limit, device
        )
        tested = (len(tested_samples), len(set(tested_samples.patients)))
        if corruptions:
            corrupted = robustness.corruptions(
                classify,
                tested_samples,
                tested_predictions.target,
                names=corruptions,
                fold=tested_predictions.fold,
                batch_size=batch_size,
                device=device,
                resamples=resamples,
                seed=study.recipe.seed,
            )
        if attack:
            attacked = robustness.attacks(
                classify,
                tested_samples,
                tested_predictions.target,
                batch_size=batch_size,
                device=device,
                resamples=resamples,
                seed=study.recipe.seed,
            )
            if not attacked:
                notes.append("Attacks are for problems with one class per sample.")
    evaluation = Evaluation(study.result, leakage, groups, corrupted, attacked, tested, notes)
    text = json.dumps(evaluation.as_dict(), indent=1, ensure_ascii=False, default=float)
    manifest.write_text(path / FOLDER / FILE, text + "\n")
    return evaluation


def _unknown(study: Study, index: Index) -> int:
    """Items without a known patient; each counts as one patient."""
    if study.result.unknown_patients is not None:
        return study.result.unknown_patients
    return len(without_patient(index, Labels()))  # an older study, without this number


def _columns(
    index: Index, samples: Samples, ids: list[str], study: Study, by: Sequence[str] | None
) -> dict[str, list[Any]]:
    """Values of the index's columns for the predicted samples."""
    table = index.items
    target_columns = {study.result.label, f"{LABEL}{study.result.label}"}
    columns = ["site", *index.fields, *(c for c in table.columns if c.startswith(LABEL))]
    if by is None:
        chosen = [c for c in columns if c not in target_columns and _grouping(table[c])]
    else:
        known = [*columns, *(c.removeprefix(LABEL) for c in columns)]
        for name in by:
            if name not in known:
                raise UsageError(f"The index has no column '{name}'. {did_you_mean(name, known)}")
        chosen = [name if name in columns else f"{LABEL}{name}" for name in by]
    row = {item: n for n, item in enumerate(table["id"])}
    item = dict(zip(samples.ids, samples.items, strict=True))
    at = [row[item[key]] for key in ids]
    return {c.removeprefix(LABEL): table[c][at].to_list() for c in chosen}


def _grouping(column: pl.Series) -> bool:
    """True if a column looks like a grouping of patients or sites."""
    few = column.drop_nulls().n_unique()
    if column.name.lower().split(".")[-1] == "age":
        return True
    counted = column.name.startswith(LABEL) and column.dtype.is_numeric()
    return few == 2 if counted else 2 <= few <= MOST


def _judged(
    study: Study,
    samples: Samples,
    predictions: comparing.Predictions,
    limit: int,
    device: str,
) -> tuple[Samples, comparing.Predictions, robustness.Classify]:
    """Test samples, their predictions, and a function that applies each sample's own fold."""
    fold_of: dict[str, Path] = {}
    for fold in study.folds:  # repeats without folds test other patients each
        for key in study.tested(fold)["id"]:
            fold_of.setdefault(key, fold)
    row_of = {key: n for n, key in enumerate(samples.ids)}
    chosen = evenly(predictions.patients, limit, study.recipe.seed)
    folds = list(dict.fromkeys(fold_of[key] for key in predictions.ids[chosen]))
    model_of = np.array([folds.index(fold_of[key]) for key in predictions.ids[chosen]])
    order = np.argsort(model_of, kind="stable")  # so that a batch mostly needs one model
    chosen, model_of = chosen[order], model_of[order]
    at = np.array([row_of[key] for key in predictions.ids[chosen]])
    models = [study.model(fold, samples.read(at[:2])).to(device) for fold in folds]

    def classify(x: Tensor, rows: NDArray[np.int64]) -> Tensor:
        needed = np.unique(model_of[rows])
        parts = [(n, torch.as_tensor(np.flatnonzero(model_of[rows] == n))) for n in needed]
        scores = torch.cat([models[n].scores({"x": x[at.to(x.device)]}) for n, at in parts])
        return scores[torch.cat([at for _, at in parts]).argsort().to(x.device)]

    return samples.at(at), predictions.at(chosen), classify
