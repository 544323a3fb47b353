"""Two sets of predictions of the same samples, compared: paired, and over patients.

What is read is ``predictions.parquet`` of ``medcl finetune`` (a study) or of ``medcl probe``.
Every figure's difference has an interval from the same resamples of patients for both; two AUROCs
are also tested after Obuchowski 1997 (`medcl.metrics.delong`).
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
from medcl.finetune.result import MEASURES, FinetuneResult
from medcl.finetune.scoring import measure
from medcl.labels.activation import probabilities
from medcl.labels.target import SURVIVAL, Target
from medcl.metrics.bootstrap import Interval, Resampled, bootstrap
from medcl.metrics.delong import Compared, delong
from medcl.metrics.table import show
from medcl.probe.result import PRETRAINED, ProbeResult
from medcl.reading import read_table
from medcl.registry import did_you_mean

PREDICTIONS = "predictions.parquet"
_REMEDY = "Make it again: medcl finetune, or medcl probe."


@dataclass(frozen=True)
class Predictions:
    """What was predicted of test samples, a mean over repeats.

    Attributes:
        name: of whom, for tables.
        ids: (N,) sample ids.
        patients: (N,) keyed hashes.
        truth: their labels.
        probability: (N, C) probabilities, values or risks.
        fold: (N,) of a survival study, the model that a risk is of: those of different models have
            no common scale, and are not ranked together. Else None.
    """

    name: str
    ids: NDArray[np.str_]
    patients: NDArray[np.str_]
    truth: Target
    probability: NDArray[np.float64]
    fold: NDArray[np.int64] | None = None

    def at(self, rows: NDArray[np.int64]) -> Predictions:
        """Of some samples."""
        fold = None if self.fold is None else self.fold[rows]
        parts = self.ids[rows], self.patients[rows], self.truth.at(rows), self.probability[rows]
        return Predictions(self.name, *parts, fold)

    def resampled(self, resamples: int, seed: int) -> Resampled:
        """Every measure, on resamples of patients."""
        of = partial(measure, self.truth, self.probability, fold=self.fold)
        return bootstrap(of, self.patients, resamples=resamples, seed=seed)


@dataclass(frozen=True)
class Comparison:
    """Who is better, and by how much.

    Attributes:
        a, b: names.
        samples: that both predicted, and
        patients: whose.
        left_out: samples that only one of them predicted.
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
        """What was compared, on whom."""
        return (
            f"{self.a} against {self.b}, on the same {self.samples:,} samples of {self.patients} "
            "patients; 95% intervals over patients"
        )

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Column heads and rows: one row a measure."""
        rows = [
            [
                MEASURES.get(name, name),
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
        """In words; no interval that holds 0 is called a difference."""
        clear = [
            f"{MEASURES.get(name, name)} {show(d, signed=True)}"
            for name, d in self.differences.items()
            if d.low is not None and d.high is not None and (d.low > 0 or d.high < 0)
        ]
        if not clear:
            return f"No measurable difference between {self.a} and {self.b} on these patients."
        return f"{self.a} minus {self.b}: {', '.join(clear)}."


def compare(
    a: Path, b: Path, *, classifier: str = "linear", resamples: int = 1000, seed: int = 0
) -> Comparison:
    """Compare two studies, or two probed runs, sample by sample.

    Args:
        a: a study of ``medcl finetune``, a run that was probed, or its folder ``probe``; of a
            probe, ``PATH#representation`` picks another one than the pretrained encoder.
        b: another.
        classifier: of a probe.
        resamples: of patients.
        seed: of the resamples.

    Raises:
        UsageError: if there are no predictions, they are of other labels, or of other samples.
    """
    one, two = read(a, classifier), read(b, classifier)
    if one.name == two.name:
        one, two = (_renamed(p, where) for p, where in ((one, a), (two, b)))
    if one.truth.kind != two.truth.kind or one.truth.classes != two.truth.classes:
        raise UsageError(
            f"{a} predicts {list(one.truth.classes)} ({one.truth.kind}), and {b} "
            f"{list(two.truth.classes)} ({two.truth.kind}): they cannot be compared."
        )
    _, here, there = np.intersect1d(one.ids, two.ids, return_indices=True)
    if not len(here):
        raise UsageError(f"{a} and {b} have no test sample in common: same index, same key?")
    if not np.array_equal(
        np.nan_to_num(one.truth.y[here], nan=-1), np.nan_to_num(two.truth.y[there], nan=-1)
    ):
        raise UsageError(f"{a} and {b} were judged by different labels of the same samples.")
    left_out = len(one.ids) + len(two.ids) - 2 * len(here)
    one, two = one.at(here), two.at(there)
    truth, patients = one.truth, one.patients
    two = replace(two, patients=patients)
    made = [p.resampled(resamples, seed) for p in (one, two)]
    names = [name for name in made[0].values if not name.startswith("class_")]
    return Comparison(
        a=one.name,
        b=two.name,
        samples=len(here),
        patients=len(np.unique(patients)),
        left_out=left_out,
        a_metrics={name: made[0].interval(name) for name in names},
        b_metrics={name: made[1].interval(name) for name in names},
        differences={name: made[0].minus(made[1], name) for name in names},
        auroc_tests=_tests(truth, patients, one.probability, two.probability),
    )


def read(path: Path, classifier: str = "linear") -> Predictions:
    """Predictions of a study, a run or a probe's folder.

    Raises:
        UsageError: if there are none, or not of that representation or classifier.
    """
    folder, _, asked = str(path).partition("#")
    place = Path(folder)
    if (place / "finetune.json").is_file():
        return _of_study(place)
    place = place / "probe" if (place / "probe" / "probe.json").is_file() else place
    if (place / "probe.json").is_file():
        return _of_probe(place, asked or PRETRAINED, classifier)
    raise UsageError(f"{path} holds no predictions. Make them: medcl finetune, or medcl probe.")


def _of_study(folder: Path) -> Predictions:
    result = FinetuneResult.load(folder)
    frame = read_table(folder / PREDICTIONS, _REMEDY)
    survival = result.kind in SURVIVAL
    if survival:  # a mean over repeats would be of several models: the first one's counts
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
            f"{folder} is a probe of several labels, which does not say which of them are unknown: "
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
    truth: Target, patients: NDArray, a: NDArray[np.float64], b: NDArray[np.float64]
) -> dict[str, Compared]:
    """One test a class; of two classes, of the second."""
    if truth.kind not in ("binary", "multiclass", "multilabel"):
        return {}
    which = [1] if truth.kind == "binary" else range(len(truth.classes))
    made = {}
    for c in which:
        if truth.kind == "multilabel":
            known = np.isfinite(truth.y[:, c])
            positive = truth.y[known, c] == 1
        else:
            known = truth.y >= 0
            positive = truth.y[known] == c
        if positive.any() and not positive.all() and len(np.unique(patients[known])) > 1:
            made[truth.classes[c]] = delong(positive, a[known, c], b[known, c], patients[known])
    return made


def save(found: Comparison, out: Path) -> None:
    """Write a comparison as JSON."""
    from medcl.io.atomic import write_text

    write_text(out, json.dumps(found.as_dict(), indent=1, ensure_ascii=False) + "\n")
