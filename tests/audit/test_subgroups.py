"""Subgroups with planted differences, and a classifier of real digits under corruptions."""

import numpy as np
import pytest
import torch

from medcl.audit.compare import Predictions
from medcl.audit.robustness import attacks, corruptions
from medcl.audit.subgroups import FEW, banded, subgroups
from medcl.labels.target import Target
from medcl.plugin import Samples
from medcl.run import Run, load_samples


def _predictions(worse: np.ndarray) -> Predictions:
    """Synthetic scores of 60 invented patients: good, but probability in the group ``worse``."""
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(60), 10)
    y = rng.integers(0, 2, 600)
    score = 1 / (1 + np.exp(-(2 * y - 1) * np.where(worse[who], 0, 2) - rng.normal(size=600)))
    ids = np.array([str(i) for i in range(600)])
    return Predictions(
        "synthetic",
        ids,
        np.array([f"p{w}" for w in who]),
        Target("binary", ("no", "yes"), y),
        np.stack([1 - score, score], 1),
    )


def test_a_group_that_fares_worse_is_shown() -> None:
    women = np.arange(60) < 25
    made = _predictions(women)
    who = np.repeat(np.arange(60), 10)
    sex = np.where(women[who], "F", "M").tolist()
    site = np.where(who % 3, "a", "b").tolist()
    found = {(g.column, g.value): g for g in subgroups(made, {"sex": sex, "site": site})}
    female = found["sex", "F"]
    assert (female.patients, female.samples) == (25, 250)
    assert female.metrics["auroc"].value == pytest.approx(0.5, abs=0.1)
    assert female.difference["auroc"].high < -0.2  # type: ignore[operator]
    assert found["sex", "M"].difference["auroc"].low > 0.2  # type: ignore[operator]
    site_b = found["site", "b"].difference["auroc"]
    assert site_b.low < 0 < site_b.high  # type: ignore[operator]


def test_few_patients_are_named_and_not_measured() -> None:
    made = _predictions(np.zeros(60, bool))
    who = np.repeat(np.arange(60), 10)
    scanner = np.where(who < FEW - 1, "rare", "usual").tolist()
    found = {g.value: g for g in subgroups(made, {"scanner": scanner})}
    assert found["rare"].patients == FEW - 1
    assert not found["rare"].metrics
    assert not subgroups(made, {"same": ["x"] * 600})


def test_bands() -> None:
    ages = [3, 17, 18, 39, 40, 64, 65, 79, 80, 99, None, 20, 21]
    assert banded("age", ages)[:11].tolist() == [
        *("below 18",) * 2,
        *("18 to 40",) * 2,
        *("40 to 65",) * 2,
        *("65 to 80",) * 2,
        *("80 and above",) * 2,
        "missing",
    ]
    assert banded("sex", ["F", "", None]).tolist() == ["F", "missing", "missing"]
    quarters = banded("kvp", list(range(100)))
    assert [int((quarters == q).sum()) for q in dict.fromkeys(quarters)] == [25, 25, 25, 25]


@pytest.fixture(scope="module")
def classifier(digits_run: Run) -> tuple[torch.nn.Module, Samples, Target]:
    """The run's encoder with a linear layer fitted on its training writers; the test samples."""
    from medcl.embeddings.embeddings import take

    samples = load_samples(digits_run.recipe, digits_run.data)
    side = digits_run.split()
    sides = np.array([side[p] for p in samples.patients])
    train, test = np.flatnonzero(sides == "train"), np.flatnonzero(sides == "test")
    y = np.asarray(samples.labels["digit"])
    encoder = digits_run.encoder()
    torch.manual_seed(0)
    head = torch.nn.Linear(encoder.width, 10)
    with torch.no_grad():
        h = encoder(torch.from_numpy(samples.read(train)["x"]))
    adam = torch.optim.Adam(head.parameters(), 0.01)
    for _ in range(200):
        adam.zero_grad()
        torch.nn.functional.cross_entropy(head(h), torch.from_numpy(y[train])).backward()
        adam.step()
    truth = Target("multiclass", tuple("0123456789"), y[test])
    return torch.nn.Sequential(encoder, head).eval(), take(samples, test), truth


def test_figures_fall_with_the_strength(
    classifier: tuple[torch.nn.Module, Samples, Target],
) -> None:
    model, samples, truth = classifier

    def judge(x: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        assert len(x) == len(rows)
        return model(x)

    found = corruptions(judge, samples, truth, names=("noise", "resolution"), strengths=(1, 5))
    table = {(c.corruption, c.strength): c for c in found}
    clean = table["none", 0].metrics["auroc"].value
    assert clean is not None
    assert clean > 0.9
    assert table["none", 0].loss["auroc"].value == 0
    for name in ("noise", "resolution"):
        mild, strong = table[name, 1], table[name, 5]
        assert mild.metrics["auroc"].value >= strong.metrics["auroc"].value  # type: ignore[operator]
        assert strong.loss["auroc"].low > 0  # type: ignore[operator]
        assert strong.loss["auroc"].value == pytest.approx(
            clean - strong.metrics["auroc"].value  # type: ignore[operator]
        )
    again = corruptions(judge, samples, truth, names=("noise",), strengths=(5,))
    assert again[1].metrics == table["noise", 5].metrics


def test_attacks_succeed_more_the_larger_they_are(
    classifier: tuple[torch.nn.Module, Samples, Target],
) -> None:
    model, samples, truth = classifier

    def judge(x: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        assert len(x) == len(rows)
        return model(x)

    found = {(a.attack, a.epsilon): a for a in attacks(judge, samples, truth, epsilons=(0.0, 0.3))}
    assert found["fgsm", 0.0].success.value == 0
    assert found["pgd", 0.0].success.value == 0
    fgsm, pgd = found["fgsm", 0.3].success, found["pgd", 0.3].success
    assert fgsm.value > 0.1  # type: ignore[operator]
    assert pgd.value >= fgsm.value - 0.02  # type: ignore[operator]
    assert pgd.low <= pgd.value <= pgd.high  # type: ignore[operator]
    assert not attacks(judge, samples, Target("regression", ("v",), truth.y.astype(float)))
