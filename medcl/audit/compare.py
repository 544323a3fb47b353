"""Paired comparison of two sets of predictions of the same samples, over patients.

It reads ``predictions.parquet`` of ``medcl finetune`` (a study) or of ``medcl probe``. Intervals of
differences come from the same resamples of patients for both; two AUROCs are also tested after
Obuchowski 1997 (`medcl.metrics.delong`).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medcl.errors import UsageError
from medcl.finetune.result import FinetuneResult
from medcl.labels.activation import probabilities
from medcl.labels.target import SURVIVAL, Target
from medcl.metrics.bootstrap import Interval, Resampled, bootstrap
from medcl.metrics.delong import Compared, delong
from medcl.metrics.measures import measure
from medcl.metrics.table import NAMES, direction, show
from medcl.probe.result import PRETRAINED, ProbeResult
from medcl.reading import read_table
from medcl.registry import did_you_mean

PREDICTIONS = "predictions.parquet"
_REMEDY = "Run medcl finetune or medcl probe again."


@dataclass(frozen=True)
class Predictions:
    """Predictions of test samples, a mean over repeats.

    Attributes:
        name: of the classifier or representation, for tables.
        ids: (N,) sample ids.
        patients: (N,) keyed hashes.
        target: their labels.
        probability: (N, C) probabilities, values or risks.
        fold: (N,) for survival, the model of each risk: risks of different models have no common
            scale and are not ranked together. Otherwise None.
    """

    name: str
    ids: NDArray[np.str_]
    patients: NDArray[np.str_]
    target: Target
    probability: NDArray[np.float64]
    fold: NDArray[np.int64] | None = None

    def at(self, rows: NDArray[np.int64]) -> Predictions:
        """Predictions of some samples."""
        fold = None if self.fold is None else self.fold[rows]
        parts = self.ids[rows], self.patients[rows], self.target.at(rows), self.probability[rows]
        return Predictions(self.name, *parts, fold)

    def resampled(self, resamples: int, seed: int) -> Resampled:
        """Every measure, on resamples of patients."""
        of = partial(measure, self.target.kind, self.target.y, self.probability, fold=self.fold)
        return bootstrap(of, self.patients, resamples=resamples, seed=seed)


@dataclass(frozen=True)
class Comparison:
    """Difference between two sets of predictions.

    Attributes:
        a, b: names.
        samples: predicted by both, and
        patients: their number.
        left_out: samples predicted by only one of them.
        a_metrics, b_metrics: figures of each.
        differences: a − b, from the same resamples of patients.
        auroc_tests: by class (or label), Obuchowski's test.
    """

    a: str
    b: str
    samples: int
    patients: int
    left_out: int
    a_metrics: dict[str, Interval]
    b_metrics: dict[str, Interval]
    differences: dict[str, Interval]
    auroc_tests: dict[str, Compared]

    def as_dict(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return asdict(self)

    @property
    def title(self) -> str:
        """The two compared, and their test patients, in one line."""
        return (
            f"{self.a} against {self.b}, on the same {self.samples:,} samples of {self.patients} "
            "patients; 95% intervals over patients"
        )

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Column heads and rows: one row per measure."""
        rows = [
            [
                NAMES.get(name, name),
                show(self.a_metrics[name]),
                show(self.b_metrics[name]),
                show(difference, signed=True),
            ]
            for name, difference in self.differences.items()
        ]
        for name, test in self.auroc_tests.items():
            bounds = f"{test.difference:+.3f} [{test.low:+.3f}, {test.high:+.3f}], p = {test.p:.3g}"
            rows.append([f"AUROC of {name}, tested", f"{test.a:.3f}", f"{test.b:.3f}", bounds])
        return ["measure", self.a, self.b, "difference"], rows

    def verdict(self) -> str:
        """The differences in words; an interval that holds 0 is no difference."""
        clear = [
            f"{NAMES.get(name, name)} {show(d, signed=True)}"
            for name, d in self.differences.items()
            if direction(d, name) != "none"
        ]
        if not clear:
            return f"No measurable difference between {self.a} and {self.b} on these patients."
        return f"{self.a} minus {self.b}: {', '.join(clear)}."


def compare(
    a: Path, b: Path, *, classifier: str = "linear", resamples: int = 1000, seed: int = 0
) -> Comparison:
    """Compare two studies, or two probed runs, sample by sample.

    Args:
        a: a study of ``medcl finetune``, a probed run, or its folder ``probe``; for a probe,
            ``PATH#representation`` selects another one than the pretrained encoder.
        b: another one.
        classifier: of a probe.
        resamples: of patients.
        seed: of the resamples.

    Raises:
        UsageError: if there are no predictions, or their labels or samples differ.
    """
    one, two = read(a, classifier), read(b, classifier)
    if one.name == two.name:
        one, two = (_renamed(p, where) for p, where in ((one, a), (two, b)))
    if one.target.kind != two.target.kind or one.target.classes != two.target.classes:
        raise UsageError(
            f"{a} predicts {list(one.target.classes)} ({one.target.kind}), and {b} "
            f"{list(two.target.classes)} ({two.target.kind}): they cannot be compared."
        )
    _, rows_a, rows_b = np.intersect1d(one.ids, two.ids, return_indices=True)
    if not len(rows_a):
        raise UsageError(f"{a} and {b} have no test sample in common: same index, same key?")
    if not np.array_equal(
        np.nan_to_num(one.target.y[rows_a], nan=-1), np.nan_to_num(two.target.y[rows_b], nan=-1)
    ):
        raise UsageError(f"{a} and {b} have different labels for the same samples.")
    left_out = len(one.ids) + len(two.ids) - 2 * len(rows_a)
    one, two = one.at(rows_a), two.at(rows_b)
    target, patients = one.target, one.patients
    two = replace(two, patients=patients)
    resampled_pair = [p.resampled(resamples, seed) for p in (one, two)]
    names = [name for name in resampled_pair[0].values if not name.startswith("class_")]
    return Comparison(
        a=one.name,
        b=two.name,
        samples=len(rows_a),
        patients=len(np.unique(patients)),
        left_out=left_out,
        a_metrics={name: resampled_pair[0].interval(name) for name in names},
        b_metrics={name: resampled_pair[1].interval(name) for name in names},
        differences={name: resampled_pair[0].minus(resampled_pair[1], name) for name in names},
        auroc_tests=_tests(target, patients, one.probability, two.probability),
    )


def read(path: Path, classifier: str = "linear") -> Predictions:
    """Predictions of a study, a run or a probe's folder.

    Raises:
        UsageError: if there are none of that representation or classifier.
    """
    folder, _, representation = str(path).partition("#")
    location = Path(folder)
    if (location / "finetune.json").is_file():
        return _of_study(location)
    location = location / "probe" if (location / "probe" / "probe.json").is_file() else location
    if (location / "probe.json").is_file():
        return _of_probe(location, representation or PRETRAINED, classifier)
    raise UsageError(f"{path} holds no predictions. Run medcl finetune or medcl probe first.")


def _of_study(folder: Path) -> Predictions:
    result = FinetuneResult.load(folder)
    frame = read_table(folder / PREDICTIONS, _REMEDY)
    survival = result.kind in SURVIVAL
    if survival:  # no mean over models without a common scale: take the first repeat
        frame = frame.unique("id", keep="first", maintain_order=True)
    scores = [name for name in frame.columns if name.startswith("score.")]
    labels = [name for name in frame.columns if name.startswith("truth.")]
    probability = probabilities(result.kind, frame.select(scores).to_numpy())
    named = {f"p{n}": column for n, column in enumerate(probability.T)}
    mean = (
        frame.select("id", "patient", *labels)
        .with_columns(**{name: pl.Series(values) for name, values in named.items()})
        .group_by("id", maintain_order=True)
        .agg(pl.col("patient").first(), pl.col(labels).first(), pl.col(list(named)).mean())
    )
    y = mean.select(labels).to_numpy()
    y = y[:, 0] if result.kind not in ("multilabel", "cox", "hazard") else y
    if result.kind in ("binary", "multiclass", "ordinal"):
        y = np.nan_to_num(y, nan=-1).astype(np.int64)
    return Predictions(
        result.classifier,
        mean["id"].to_numpy(),
        mean["patient"].to_numpy(),
        Target(result.kind, tuple(result.classes), y),
        mean.select(list(named)).to_numpy(),
        (frame["repeat"].cast(int) * len(frame) + frame["fold"]).to_numpy() if survival else None,
    )


def _of_probe(folder: Path, representation: str, classifier: str) -> Predictions:
    result = ProbeResult.load(folder)
    frame = read_table(folder / PREDICTIONS, _REMEDY)
    columns = [f"{representation}.{classifier}.{name}" for name in result.classes]
    if columns[0] not in frame.columns:
        known = {s.representation for s in result.scores}
        raise UsageError(
            f"{folder} has no predictions of '{representation}' by '{classifier}'. "
            f"{did_you_mean(representation, known)}"
        )
    text = frame["truth"].to_list()
    y: NDArray
    if result.kind == "regression":
        y = np.array(text, np.float64)
    elif result.kind == "multilabel":
        raise UsageError(
            f"{folder} is a multilabel probe, which does not record unknown labels: "
            "compare studies of medcl finetune."
        )
    else:
        y = np.array([result.classes.index(t) for t in text], np.int64)
    return Predictions(
        representation,
        frame["id"].to_numpy(),
        frame["patient"].to_numpy(),
        Target(result.kind, tuple(result.classes), y),
        frame.select(columns).to_numpy().astype(np.float64),
    )


def _renamed(predictions: Predictions, path: Path) -> Predictions:
    name = f"{predictions.name} ({Path(str(path).partition('#')[0]).name})"
    return replace(predictions, name=name)


def _tests(
    target: Target, patients: NDArray, a: NDArray[np.float64], b: NDArray[np.float64]
) -> dict[str, Compared]:
    """One test per class; for two classes, of the second only."""
    if target.kind not in ("binary", "multiclass", "multilabel"):
        return {}
    columns = [1] if target.kind == "binary" else range(len(target.classes))
    tests = {}
    for c in columns:
        if target.kind == "multilabel":
            known = np.isfinite(target.y[:, c])
            positive = target.y[known, c] == 1
        else:
            known = target.y >= 0
            positive = target.y[known] == c
        if positive.any() and not positive.all() and len(np.unique(patients[known])) > 1:
            tests[target.classes[c]] = delong(positive, a[known, c], b[known, c], patients[known])
    return tests


def save(comparison: Comparison, out: Path) -> None:
    """Write a comparison as JSON."""
    from medcl.io.atomic import write_text

    write_text(out, json.dumps(comparison.as_dict(), indent=1, ensure_ascii=False) + "\n")
