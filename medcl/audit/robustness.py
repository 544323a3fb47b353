"""Robustness of a classifier to named corruptions and adversarial attacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medcl.audit.attacks import Attack, attack
from medcl.audit.corruptions import CORRUPTIONS, STRENGTHS, corrupt
from medcl.io.progress import track
from medcl.labels.activation import probabilities
from medcl.labels.target import Target
from medcl.metrics.bootstrap import Interval, bootstrap
from medcl.metrics.measures import measure
from medcl.metrics.metrics import Counted, Measures
from medcl.plugin import Samples

EPSILONS = (0.01, 0.03, 0.1, 0.3)
"""Radii of the attacks, as shares of a sample's standard deviation."""

Classify = Callable[[Tensor, NDArray[np.int64]], Tensor]
"""(B, C, ...) and the samples' positions (B,) → scores (B, size), with gradient. The positions
select, for each sample, the model that was not trained on its patient."""


@dataclass(frozen=True)
class Corrupted:
    """Figures under one corruption at one strength; strength 0 is no corruption."""

    corruption: str
    strength: int
    metrics: dict[str, Interval]
    loss: dict[str, Interval]  # clean figure − figure under corruption, paired


@dataclass(frozen=True)
class Attacked:
    """One attack of one radius.

    ``success`` is the share of correctly classified samples that the attack turns wrong; its
    interval is over patients.
    """

    attack: Attack
    epsilon: float
    success: Interval
    samples: int


def corruptions(
    classify: Classify,
    samples: Samples,
    target: Target,
    *,
    names: Sequence[str] = tuple(CORRUPTIONS),
    strengths: Sequence[int] = STRENGTHS,
    fold: NDArray[np.int64] | None = None,
    batch_size: int = 64,
    device: str = "cpu",
    resamples: int = 300,
    seed: int = 0,
) -> list[Corrupted]:
    """Measure a classifier under each corruption at each strength.

    Args:
        classify: on ``device``.
        samples: test samples; their "x" is (B, C, ...).
        target: of these samples.
        names: of `medcl.audit.corruptions.CORRUPTIONS`.
        strengths: of 1 … 5.
        fold: (N,) models of survival risks: see `medcl.audit.compare.Predictions`.
        batch_size: samples per forward pass.
        device: of the computation.
        resamples: of patients.
        seed: of corruptions and resamples.
    """
    cases = [("none", 0), *((name, s) for name in names for s in strengths)]
    patients = np.asarray(samples.patients)
    scores: dict[tuple[str, int], list[NDArray[np.float32]]] = {case: [] for case in cases}
    parts = np.split(np.arange(len(samples)), range(batch_size, len(samples), batch_size))
    for part in track(parts, "corruptions", total=len(parts)):
        x = torch.as_tensor(np.ascontiguousarray(samples.read(part)["x"])).to(device).float()
        for name, strength in cases:
            generator = torch.Generator(device=device).manual_seed(seed + int(part[0]))
            corrupted = x if not strength else corrupt(name, x, strength, generator)
            with torch.inference_mode():
                scores[name, strength].append(classify(corrupted, part).float().cpu().numpy())
    results = []
    clean = None
    for (name, strength), parts_of_scores in scores.items():
        probability = probabilities(target.kind, np.concatenate(parts_of_scores))
        measures = partial(measure, target.kind, target.y, probability, fold=fold)
        resampled = bootstrap(measures, patients, resamples=resamples, seed=seed)
        clean = clean or resampled
        keys = [key for key in resampled.values if not key.startswith("class_")]
        metrics = {key: resampled.interval(key) for key in keys}
        results.append(
            Corrupted(name, strength, metrics, {k: clean.minus(resampled, k) for k in keys})
        )
    return results


def attacks(
    classify: Classify,
    samples: Samples,
    target: Target,
    *,
    epsilons: Sequence[float] = EPSILONS,
    batch_size: int = 64,
    device: str = "cpu",
    resamples: int = 300,
    seed: int = 0,
) -> list[Attacked]:
    """Success rates of FGSM and PGD on single-class problems; nothing for other kinds.

    Args:
        classify: see `corruptions`.
        samples: test samples.
        target: their classes.
        epsilons: radii.
        batch_size: samples per forward pass.
        device: of the computation.
        resamples: of patients.
        seed: of PGD's starts and of the resamples.
    """
    if target.kind not in ("binary", "multiclass"):
        return []
    attack_names: tuple[Attack, ...] = ("fgsm", "pgd")
    cases = [(how, epsilon) for how in attack_names for epsilon in epsilons]
    after: dict[tuple[Attack, float], list[NDArray[np.bool_]]] = {case: [] for case in cases}
    before = []
    parts = np.split(np.arange(len(samples)), range(batch_size, len(samples), batch_size))
    for part in track(parts, "attacks", total=len(parts)):
        x = torch.as_tensor(np.ascontiguousarray(samples.read(part)["x"])).to(device).float()
        y = torch.as_tensor(target.y[part]).to(device)
        judge = partial(_classify_rows, classify, part)
        before.append(_right(judge, x, y))
        for how, epsilon in cases:
            generator = torch.Generator(device=device).manual_seed(seed + int(part[0]))
            adversarial = attack(judge, x, y, epsilon=epsilon, how=how, generator=generator)
            after[how, epsilon].append(_right(judge, adversarial, y))
    correct = np.concatenate(before)
    patients = np.asarray(samples.patients)
    results = []
    for (how, epsilon), flags in after.items():
        fooled = correct & ~np.concatenate(flags)
        resampled = bootstrap(
            partial(_share, fooled, correct), patients, resamples=resamples, seed=seed
        )
        results.append(Attacked(how, epsilon, resampled.interval("success"), int(correct.sum())))
    return results


def _classify_rows(classify: Classify, rows: NDArray[np.int64], x: Tensor) -> Tensor:
    return classify(x, rows)


def _right(judge: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> NDArray[np.bool_]:
    with torch.inference_mode():
        correct: NDArray[np.bool_] = (judge(x).argmax(1) == y).cpu().numpy()
    return correct


def _share(fooled: NDArray[np.bool_], correct: NDArray[np.bool_], weight: Counted) -> Measures:
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "success": weight.total(fooled.astype(np.float64))
            / weight.total(correct.astype(np.float64))
        }
