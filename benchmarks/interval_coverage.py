"""How often the 95 % patient bootstrap holds the truth, by number of patients (simulated data).

    python benchmarks/interval_coverage.py

Each trial: P patients with a random effect of their own and ten samples each; the true mean is 0.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from medcl.metrics.bootstrap import bootstrap
from medcl.metrics.metrics import Counted

TRIALS, SAMPLES = 400, 10


def mean(values: np.ndarray, weight: Counted) -> dict[str, np.ndarray]:
    return {"mean": weight.total(values) / weight.total(np.ones(len(values)))}


def main() -> None:
    random = np.random.default_rng(0)
    print("patients  share of intervals that hold the truth")
    for people in (5, 7, 14, 22, 60):
        patients = np.repeat(np.arange(people), SAMPLES)
        held = 0
        for trial in range(TRIALS):
            values = random.standard_normal(people)[patients]
            values = values + random.standard_normal(len(patients))
            drawn = bootstrap(partial(mean, values), patients, resamples=500, seed=trial)
            interval = drawn.interval("mean")
            held += interval.low <= 0 <= interval.high
        print(f"{people:8d}  {held / TRIALS:.3f}")


if __name__ == "__main__":
    main()
