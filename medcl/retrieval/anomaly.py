"""Unusual samples: a score for each, and a threshold at a stated false-alarm rate.

Scores (higher is more unusual) of unit embeddings against those of the run's training patients:

* ``knn``: one minus the mean cosine to the k nearest (Bergman 2020, arXiv 2002.10445). With k = 1
  it is the score of UniCon-HA (Wang 2023, arXiv 2308.10155): the largest cosine to the training
  set.
* ``mahalanobis``: distance to the training mean under a shrunk covariance (Lee 2018, arXiv
  1807.03888; Ledoit & Wolf 2004).

The threshold comes from training patients alone: each is scored against the *others*, and the
threshold is the conformal quantile of those scores (Vovk 2005): the ⌈(n + 1)(1 − rate)⌉-th smallest
of n. Its rate on the run's test patients is reported too, with an interval over patients.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medcl.archive.index import Index
from medcl.embeddings.embeddings import embed, unit
from medcl.embeddings.knn import neighbours
from medcl.errors import UsageError
from medcl.io.atomic import new_folder
from medcl.metrics.bootstrap import Interval, bootstrap
from medcl.metrics.metrics import Counted, Measures
from medcl.plugin import Samples
from medcl.private import other_key
from medcl.run import TRANSDUCTIVE, Run, load_samples

How = Literal["knn", "mahalanobis"]
OTHER_KEY = other_key(
    "This index and the run's own",
    "a training patient among these gets too low a score.",
)
PARTS = 5
"""For Mahalanobis, each fifth of the training patients is scored against the other four."""


@dataclass(frozen=True)
class Anomalies:
    """Results of anomaly scoring.

    Attributes:
        how: the score.
        rate: the requested false-alarm rate.
        threshold: samples with a higher score are unusual.
        reference: training samples and
        reference_patients: training patients behind the threshold.
        on_test: the rate of unusual samples among the run's test patients, who are not known to be
            normal; None if the index holds none of them.
        test_patients: their number.
        samples, unusual: scored samples, and those above the threshold.
        items: per item, its samples, the share of unusual ones, and the largest score.
        notes: for the reader.
    """

    how: How
    rate: float
    threshold: float
    reference: int
    reference_patients: int
    on_test: Interval | None
    test_patients: int
    samples: int
    unusual: int
    items: pl.DataFrame
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values, without the table."""
        return asdict(self) | {"items": len(self.items)}


def anomaly(
    run: Run,
    out: Path,
    *,
    data: Path | None = None,
    how: How = "knn",
    k: int = 5,
    rate: float = 0.05,
    task: str | None = None,
    batch_size: int = 512,
    device: str = "auto",
) -> Anomalies:
    """Score all samples of an index, into a folder.

    ::

        OUT/scores.parquet   id, item, patient, score, unusual
        OUT/items.parquet    item, patient, samples, unusual (share), score (largest)
        OUT/anomaly.json     threshold, rates with intervals, numbers of patients

    Args:
        run: a finished run.
        out: the new folder.
        data: the index to score; None for the run's own.
        how: the score.
        k: neighbours, for ``knn``.
        rate: false-alarm rate on normal patients' samples.
        task: whose samples; None for those of pretraining.
        batch_size: samples per forward pass.
        device: see `medcl.embeddings.embeddings.embed`.

    Raises:
        UsageError: if ``out`` exists, the rate is invalid, or there are fewer than two training
            patients or too few samples for that rate.
    """
    _check(how, rate, out)
    split = run.split()
    own = load_samples(run.recipe, run.data, task=task)
    train = np.flatnonzero([split.get(p) == "train" for p in own.patients])
    patients = np.asarray(own.patients)[train]
    if len(set(patients)) < 2:
        raise UsageError("A threshold needs two training patients or more.")
    embedded = partial(embed, run.encoder(), batch_size=batch_size, device=device)
    reference = unit(embedded(own.at(train), label="reference").x)
    reference_scores = _left_out(reference, patients, how, k, run.recipe.seed)
    threshold = conformal(reference_scores, rate)
    index = Index.open(data or run.data)
    samples = load_samples(run.recipe, data, task=task) if data is not None else own
    x = unit(embedded(samples, label="score").x)
    keys = np.asarray(samples.patients)
    scores = score(x, reference, how=how, k=k, groups=(keys, patients))
    if data is None:
        scores[train] = reference_scores
    table = _table(samples, scores, threshold)
    tested = np.array([split.get(p) == "test" for p in keys])
    result = Anomalies(
        how=how,
        rate=rate,
        threshold=threshold,
        reference=len(train),
        reference_patients=len(set(patients)),
        on_test=_rate(scores[tested] > threshold, keys[tested], run.recipe.seed),
        test_patients=len(set(keys[tested])),
        samples=len(samples),
        unusual=int((scores > threshold).sum()),
        items=_by_item(table),
        notes=_notes(run, None if data is None else index, set(keys[tested])),
    )
    _save(out, result, table, {"recipe": run.recipe.name, "index": index.plugin_name})
    return result


def _check(how: str, rate: float, out: Path) -> None:
    if how not in get_args(How):
        raise UsageError(f"Unknown score '{how}': take {' or '.join(get_args(How))}.")
    if not 0 < rate < 1:
        raise UsageError("The false-alarm rate lies between 0 and 1, such as 0.05.")
    if out.exists():
        raise UsageError(f"{out} exists: choose another --out, or remove it.")


def _table(samples: Samples, scores: NDArray[np.float32], threshold: float) -> pl.DataFrame:
    """One row per sample."""
    return pl.DataFrame(
        {
            "id": list(samples.ids),
            "item": list(samples.items),
            "patient": list(samples.patients),
            "score": scores.astype(np.float64),
            "unusual": scores > threshold,
        }
    )


def _by_item(table: pl.DataFrame) -> pl.DataFrame:
    """One row per item, the most unusual first."""
    return (
        table.group_by("item", maintain_order=True)
        .agg(
            pl.col("patient").first(),
            pl.len().alias("samples"),
            pl.col("unusual").mean(),
            pl.col("score").max(),
        )
        .sort("score", descending=True)
    )


def _notes(run: Run, other: Index | None, tested: set[str]) -> tuple[str, ...]:
    """Notes for the reader.

    Args:
        run: the run.
        other: the index, if it is not the run's own.
        tested: patients of the measured rate.
    """
    notes = [] if other is None or run.where.knows(other) else [OTHER_KEY]
    if tested & run.pretrained_on():
        notes.append(TRANSDUCTIVE)
    return tuple(notes)


def _save(out: Path, result: Anomalies, table: pl.DataFrame, about: Mapping[str, str]) -> None:
    text = json.dumps(result.as_dict() | dict(about), indent=1, allow_nan=False)
    with new_folder(out) as folder:
        table.write_parquet(folder / "scores.parquet")
        result.items.write_parquet(folder / "items.parquet")
        (folder / "anomaly.json").write_text(text + "\n", encoding="utf-8")


def score(
    x: NDArray[np.float32],
    reference: NDArray[np.float32],
    *,
    how: How,
    k: int = 5,
    groups: tuple[NDArray, NDArray] | None = None,
) -> NDArray[np.float32]:
    """Anomaly score of each row: (N,).

    Args:
        x: (N, D) unit rows.
        reference: (M, D) unit rows.
        how: the score.
        k: neighbours.
        groups: patients of both: ``knn`` skips rows of the same patient (``mahalanobis`` does not:
            one patient's weight in mean and covariance is small).
    """
    if how == "knn":
        query_groups, bank_groups = groups if groups is not None else (None, None)
        near, _ = neighbours(x, reference, k=k, query_groups=query_groups, bank_groups=bank_groups)
        known = np.isfinite(near)
        mean = np.where(known, near, 0).sum(1) / np.maximum(known.sum(1), 1)
        return np.where(known.any(1), 1 - mean, 2.0).astype(np.float32)
    from sklearn.covariance import LedoitWolf

    fitted = LedoitWolf().fit(np.asarray(reference, np.float64))
    distance: NDArray[np.float32] = np.sqrt(fitted.mahalanobis(np.asarray(x, np.float64)))
    return distance.astype(np.float32)


def conformal(scores: NDArray, rate: float) -> float:
    """The threshold that a new exchangeable score exceeds with at most this probability.

    Raises:
        UsageError: if there are too few scores for this rate.
    """
    rank = math.ceil((len(scores) + 1) * (1 - rate))
    if rank > len(scores):
        raise UsageError(
            f"{len(scores)} training samples cannot hold a false-alarm rate of {rate:g}: "
            f"set at least {1 / (len(scores) + 1):.2g}."
        )
    return float(np.sort(scores)[rank - 1])


def _left_out(
    reference: NDArray[np.float32], patients: NDArray, how: How, k: int, seed: int
) -> NDArray[np.float32]:
    """Every training sample, scored against other patients than its own."""
    if how == "knn":
        return score(reference, reference, how=how, k=k, groups=(patients, patients))
    names, code = np.unique(patients, return_inverse=True)
    parts = min(PARTS, len(names))
    part = np.random.default_rng(seed).permutation(len(names))[code] % parts
    out = np.empty(len(reference), np.float32)
    for number in range(parts):
        out[part == number] = score(reference[part == number], reference[part != number], how=how)
    return out


def _rate(flags: NDArray[np.bool_], patients: NDArray, seed: int) -> Interval | None:
    """The share of flags, with an interval over patients."""
    if not len(flags):
        return None

    def measures(weight: Counted) -> Measures:
        every = weight.total(np.ones(len(flags)))
        return {"rate": weight.total(flags.astype(np.float64)) / np.maximum(every, 1e-12)}

    return bootstrap(measures, patients, seed=seed).interval("rate")
