"""How a classifier holds under named corruptions and under attack."""

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
from medcl.finetune.scoring import measure
from medcl.io.progress import track
from medcl.labels.activation import probabilities
from medcl.labels.target import Target
from medcl.metrics.bootstrap import Interval, bootstrap
from medcl.metrics.metrics import Counted, Measures
from medcl.plugin import Samples

EPSILONS = (0.01, 0.03, 0.1, 0.3)
"""Radii of the attacks, as shares of a sample's standard deviation."""

Classify = Callable[[Tensor, NDArray[np.int64]], Tensor]
"""(B, C, ...) and the samples' positions (B,) → scores (B, size), with gradient: the positions let
each sample be judged by the model that did not see its patient."""


@dataclass(frozen=True)
class Corrupted:
    """Figures under one corruption at one strength; strength 0 is the samples as they are."""

    corruption: str
    strength: int
    metrics: dict[str, Interval]
    loss: dict[str, Interval]  # figure as they are − figure under corruption, paired


@dataclass(frozen=True)
class Attacked:
    """One attack of one radius.

    ``success`` is the share of samples that were classified rightly before and wrongly after, of
    those that were right; its interval is over patients.
    """

    attack: Attack
    epsilon: float
    success: Interval
    samples: int


def corruptions(
    classify: Classify,
    samples: Samples,
    truth: Target,
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
        truth: of these samples.
        names: of `medcl.audit.corruptions.CORRUPTIONS`.
        strengths: of 1 … 5.
        fold: (N,) of survival, whose risks are compared: see `medcl.audit.compare.Predictions`.
        batch_size: samples a forward pass.
        device: where to compute.
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
            made = x if not strength else corrupt(name, x, strength, generator)
            with torch.inference_mode():
                scores[name, strength].append(classify(made, part).float().cpu().numpy())
    found = []
    clean = None
    for (name, strength), listed in scores.items():
        probability = probabilities(truth.kind, np.concatenate(listed))
        of = partial(measure, truth, probability, fold=fold)
        made_of = bootstrap(of, patients, resamples=resamples, seed=seed)
        clean = clean or made_of
        keys = [key for key in made_of.values if not key.startswith("class_")]
        metrics = {key: made_of.interval(key) for key in keys}
        found.append(Corrupted(name, strength, metrics, {k: clean.minus(made_of, k) for k in keys}))
    return found


def attacks(
    classify: Classify,
    samples: Samples,
    truth: Target,
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
        truth: their classes.
        epsilons: radii.
        batch_size: samples a forward pass.
        device: where to compute.
        resamples: of patients.
        seed: of PGD's starts and of the resamples.
    """
    if truth.kind not in ("binary", "multiclass"):
        return []
    hows: tuple[Attack, ...] = ("fgsm", "pgd")
    cases = [(how, epsilon) for how in hows for epsilon in epsilons]
    after: dict[tuple[Attack, float], list[NDArray[np.bool_]]] = {case: [] for case in cases}
    before = []
    parts = np.split(np.arange(len(samples)), range(batch_size, len(samples), batch_size))
    for part in track(parts, "attacks", total=len(parts)):
        x = torch.as_tensor(np.ascontiguousarray(samples.read(part)["x"])).to(device).float()
        y = torch.as_tensor(truth.y[part]).to(device)
        judge = partial(_judge, classify, part)
        before.append(_right(judge, x, y))
        for how, epsilon in cases:
            generator = torch.Generator(device=device).manual_seed(seed + int(part[0]))
            moved = attack(judge, x, y, epsilon=epsilon, how=how, generator=generator)
            after[how, epsilon].append(_right(judge, moved, y))
    was = np.concatenate(before)
    patients = np.asarray(samples.patients)
    found = []
    for (how, epsilon), listed in after.items():
        fooled = was & ~np.concatenate(listed)
        made = bootstrap(partial(_share, fooled, was), patients, resamples=resamples, seed=seed)
        found.append(Attacked(how, epsilon, made.interval("success"), int(was.sum())))
    return found


def _judge(classify: Classify, rows: NDArray[np.int64], x: Tensor) -> Tensor:
    return classify(x, rows)


def _right(judge: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> NDArray[np.bool_]:
    with torch.inference_mode():
        right: NDArray[np.bool_] = (judge(x).argmax(1) == y).cpu().numpy()
    return right


def _share(fooled: NDArray[np.bool_], was: NDArray[np.bool_], weight: Counted) -> Measures:
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "success": weight.total(fooled.astype(np.float64))
            / weight.total(was.astype(np.float64))
        }
