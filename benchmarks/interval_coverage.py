"""How often 95 % intervals hold the truth, by number of patients: simulated, so that it is known.

    python benchmarks/interval_coverage.py [TRIALS]

Three figures of P patients with an effect of their own: the mean of ten values each (truth 0); the
share of 20 beats each that are told (truth 0.808: abilities differ, most are high); the difference
of AUROC of two scores of 20 samples each. Percentiles and BCa (Efron 1987) beside what
`medcl.metrics.bootstrap` takes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
from scipy.stats import norm

from medcl.metrics.bootstrap import resample, summarise

RESAMPLES = 400
PEOPLE = (5, 7, 10, 14, 22, 40, 60)
Figure = Callable[[np.ndarray], np.ndarray]  # weights of patients (P, R) -> (R,)


def mean(people: int, random: np.random.Generator) -> Figure:
    values = random.standard_normal(people) * 10 + random.standard_normal((people, 10)).sum(1)
    return lambda weight: values @ weight / (10 * weight.sum(0))


def share(people: int, random: np.random.Generator) -> Figure:
    ability = 1 / (1 + np.exp(-(2.0 + 1.5 * random.standard_normal(people))))
    told = random.binomial(20, ability)
    return lambda weight: told @ weight / (20 * weight.sum(0))


def gain(people: int, random: np.random.Generator) -> Figure:
    patient = np.repeat(np.arange(people), 20)
    ill = (
        random.random(len(patient))
        < 1 / (1 + np.exp(0.5 - random.standard_normal(people)))[patient]
    )
    signal = (random.standard_normal(people) * 0.5 + 1.2)[patient] * ill
    good = (
        signal
        + random.standard_normal(len(patient))
        + 0.7 * random.standard_normal(people)[patient]
    )
    bad = (
        good
        + 0.7 * random.standard_normal(len(patient))
        + 0.5 * random.standard_normal(people)[patient]
    )
    return lambda weight: area(ill, good, weight[patient]) - area(ill, bad, weight[patient])


def area(ill: np.ndarray, score: np.ndarray, weight: np.ndarray) -> np.ndarray:
    order = np.argsort(score)
    sick, well = weight[order] * ill[order, None], weight[order] * ~ill[order, None]
    with np.errstate(invalid="ignore"):
        return (sick * well.cumsum(0)).sum(0) / sick.sum(0) / well.sum(0)


def bca(value: float, draws: np.ndarray, without: np.ndarray) -> np.ndarray:
    bias = norm.ppf(np.clip((draws < value).mean() + (draws == value).mean() / 2, 1e-4, 1 - 1e-4))
    off = without.mean() - without
    skew = (off**3).sum() / (6 * ((off**2).sum() ** 1.5) + 1e-300)
    z = bias + norm.ppf([0.025, 0.975])
    return np.quantile(draws, norm.cdf(bias + z / (1 - skew * z)))


def main() -> None:
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    print("figure  patients  percentile   BCa  medcl")
    for make, bounded in ((mean, False), (share, True), (gain, False)):
        big = [make(3000, np.random.default_rng(900 + n))(np.ones((3000, 1)))[0] for n in range(8)]
        truth = 0.0 if make is mean else float(np.mean(big))
        for people in PEOPLE:
            random = np.random.default_rng(people)
            held = np.zeros(3)
            for trial in range(trials):
                figure = make(people, random)
                counts = next(resample(people, RESAMPLES, seed=trial)).astype(float)
                value = float(figure(np.ones((people, 1)))[0])
                draws = figure(counts)
                draws = draws[np.isfinite(draws)]
                without = figure(np.ones((people, people)) - np.eye(people))
                found = summarise(value, draws, people, share=bounded)
                ends = (
                    np.quantile(draws, [0.025, 0.975]),
                    bca(value, draws, without[np.isfinite(without)]),
                    (found.low, found.high),
                )
                held += [low <= truth <= high for low, high in ends]
            shares = "  ".join(f"{h / trials:.3f}" for h in held)
            print(f"{make.__name__:6s}  {people:8d}       {shares}", flush=True)


if __name__ == "__main__":
    main()
