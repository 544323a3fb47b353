"""Supervised losses against closed forms and naive float64 loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from medcl.classifiers import losses
from medcl.classifiers.losses import supervised
from medcl.labels.outputs import Outputs
from medcl.metrics.metrics import Kind
from medcl.nn.cosine import Cosine
from medcl.objectives.class_balanced import class_balanced
from medcl.objectives.ldam import ldam
from medcl.objectives.logit_adjusted import logit_adjusted

C = ("a", "b", "c")
WEIGHTS = (0.5, 1.0, 2.5)


def scores(rows: int, columns: int, seed: int = 0) -> Tensor:
    made = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=made, dtype=torch.float64, requires_grad=True)


def naive_focus(p: float, loss: str) -> float:
    """One term: −log p, with the focal factor, or what wrong labels mislead less."""
    if loss == "robust":
        return (1 - p**0.7) / 0.7
    return -math.log(p) * ((1 - p) ** 2 if loss == "focal" else 1.0)


@pytest.mark.parametrize("loss", ["ce", "weighted", "focal", "robust"])
@pytest.mark.parametrize("kind", ["multiclass", "ordinal"])
def test_classes_match_a_naive_loop(kind: Kind, loss: str) -> None:
    weights = WEIGHTS if loss == "weighted" else None
    outputs = Outputs(kind, C, loss, weights)  # type: ignore[arg-type]
    s, y = scores(7, outputs.size), torch.tensor([0, 1, 2, -1, 2, 0, -1])
    total = norm = 0.0
    for row, label in zip(s.tolist(), y.tolist(), strict=True):
        if label < 0:
            continue
        if kind == "multiclass":
            p = math.exp(row[label]) / sum(math.exp(v) for v in row)
            term = naive_focus(p, loss)
        else:
            above = [1 / (1 + math.exp(-v)) for v in row]
            term = sum(naive_focus(p if label > k else 1 - p, loss) for k, p in enumerate(above))
        weight = WEIGHTS[label] if weights else 1.0
        total, norm = total + weight * term, norm + weight
    assert supervised(outputs, s, y).item() == pytest.approx(total / norm, rel=1e-12)


@pytest.mark.parametrize("loss", ["ce", "weighted", "focal", "robust"])
def test_labels_match_a_naive_loop(loss: str) -> None:
    weights = WEIGHTS if loss == "weighted" else None
    outputs = Outputs("multilabel", C, loss, weights)  # type: ignore[arg-type]
    nan = float("nan")
    s, y = scores(3, 3), torch.tensor([[1, 0, nan], [nan, nan, nan], [0, 1, 1]])
    terms = []
    for row, labels in zip(s.tolist(), y.tolist(), strict=True):
        for c, (value, label) in enumerate(zip(row, labels, strict=True)):
            if not math.isnan(label):
                p = 1 / (1 + math.exp(-value))
                term = naive_focus(p if label else 1 - p, loss)
                terms.append(term * (WEIGHTS[c] if weights and label else 1.0))
    assert supervised(outputs, s, y).item() == pytest.approx(sum(terms) / len(terms), rel=1e-12)


def test_cox_matches_a_naive_loop_with_ties_and_censoring() -> None:
    outputs = Outputs("cox", ("time",))
    s = scores(8, 1)
    nan = float("nan")
    y = torch.tensor([[3, 1], [3, 1], [5, 0], [1, 1], [2, 0], [7, 1], [nan, 1], [3, 0]])
    rows = [(t, e, v) for (t, e), v in zip(y.tolist(), s[:, 0].tolist(), strict=True) if t == t]
    terms = [
        math.log(sum(math.exp(v) for t, _, v in rows if t >= time)) - score
        for time, event, score in rows
        if event
    ]
    assert supervised(outputs, s, y).item() == pytest.approx(sum(terms) / len(terms), rel=1e-12)


def test_hazard_matches_a_naive_loop() -> None:
    outputs = Outputs("hazard", C)
    s = scores(4, 3)
    y = torch.tensor([[0, 1], [2, 0], [1, 1], [float("nan"), 0]])
    terms = []
    for row, (interval, event) in zip(s.tolist()[:3], y.tolist()[:3], strict=True):
        h = [1 / (1 + math.exp(-v)) for v in row]
        k = int(interval)
        survived = sum(math.log(1 - h[j]) for j in range(k))
        terms.append(-(survived + math.log(h[k] if event else 1 - h[k])))
    assert supervised(outputs, s, y).item() == pytest.approx(sum(terms) / len(terms), rel=1e-12)


def test_a_regression_is_the_squared_error() -> None:
    outputs = Outputs("regression", ("ef",))
    y = torch.tensor([1.0, float("nan"), 3.0])
    assert supervised(outputs, torch.tensor([[2.0], [9.0], [1.0]]), y).item() == 2.5


UNKNOWN = {
    "binary": torch.tensor([-1, -1]),
    "multilabel": torch.full((2, 3), torch.nan),
    "ordinal": torch.tensor([-1, -1]),
    "regression": torch.full((2,), torch.nan),
    "cox": torch.full((2, 2), torch.nan),
    "hazard": torch.full((2, 2), torch.nan),
}


@pytest.mark.parametrize("kind", list(UNKNOWN))
def test_without_a_label_the_loss_is_zero_with_gradient(kind: Kind) -> None:
    outputs = Outputs(kind, C[:2] if kind == "binary" else C)
    s = scores(2, outputs.size)
    loss = supervised(outputs, s, UNKNOWN[kind])
    loss.backward()
    assert loss.item() == 0
    assert s.grad is not None
    assert s.grad.abs().max() == 0


def test_extreme_scores_stay_finite() -> None:
    for kind in ("multiclass", "ordinal"):
        outputs = Outputs(kind, C, "focal")  # type: ignore[arg-type]
        s = torch.full((2, outputs.size), 100.0)
        s[:, 0] = -100
        s.requires_grad_()
        loss = supervised(outputs, s, torch.tensor([0, 2]))
        loss.backward()
        assert loss.isfinite()
        assert s.grad is not None
        assert s.grad.isfinite().all()


@pytest.mark.parametrize("kind", ["multiclass", "ordinal", "multilabel", "regression"])
def test_robust_losses_have_the_gradient_of_what_they_say(kind: Kind) -> None:
    outputs = Outputs(kind, C if kind != "regression" else ("age",), "robust")
    nan = float("nan")
    y = {
        "multilabel": torch.tensor([[1, 0, nan], [nan, nan, nan], [0, 1, 1], [1, 1, 0]]),
        "regression": torch.tensor([0.1, nan, 4.0, -3.0], dtype=torch.float64),
    }.get(kind, torch.tensor([0, -1, 2, 1]))
    assert torch.autograd.gradcheck(
        lambda s: supervised(outputs, s, y), (scores(4, outputs.size, 1),)
    )


def test_a_wrong_value_pulls_no_harder_the_farther_it_lies() -> None:
    outputs = Outputs("regression", ("age",), "robust")
    for far, near in ((10.0, 3.0), (-50.0, -1.5)):
        pulls = []
        for value in (far, near):
            s = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
            supervised(outputs, s, torch.tensor([value])).backward()
            pulls.append(s.grad.item())
        assert pulls[0] == pytest.approx(pulls[1])
    near = torch.tensor([0.5])
    small = supervised(outputs, torch.zeros(1, 1), near)
    assert small == supervised(Outputs("regression", ("age",)), torch.zeros(1, 1), near)


RARE = ("class-balanced", "ldam", "ldam-drw", "logit-adjusted")
COUNTS = (81, 16, 1)


def by_hand(loss: str, row: list[float], label: int, late: bool) -> tuple[float, float]:
    """One term and its weight, of the papers' formulas; logits are 30 times cosines for LDAM."""
    n, weight, z = COUNTS, 1.0, list(row)
    if loss == "logit-adjusted":  # Menon 2021
        z = [v + math.log(k / sum(n)) for v, k in zip(z, n, strict=True)]
    elif loss == "class-balanced":  # Cui 2019
        weights = [(1 - 0.999) / (1 - 0.999**k) for k in n]
        weight = weights[label] * len(n) / sum(weights)
    else:  # Cao 2019: margins of 1/3, 1/2 and 1 times the largest
        z[label] -= 30 * 0.5 * (1 / 3, 1 / 2, 1.0)[label]
        if loss == "ldam-drw" and late:
            weight = (1 - 0.9999) / (1 - 0.9999 ** n[label])
    return -(z[label] - math.log(sum(math.exp(v) for v in z))), weight


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("loss", RARE)
def test_losses_for_rare_classes_match_their_formulas(loss: str, late: bool) -> None:
    outputs = Outputs("multiclass", C, loss, counts=COUNTS)  # type: ignore[arg-type]
    s, y = scores(7, 3), torch.tensor([0, 1, 2, -1, 2, 0, -1])
    terms = [
        by_hand(loss, row, label, late)
        for row, label in zip(s.tolist(), y.tolist(), strict=True)
        if label >= 0
    ]
    norm = len(terms) if loss == "class-balanced" else sum(w for _, w in terms)
    want = sum(w * term for term, w in terms) / norm
    found = supervised(outputs, s, y, 0.8 if late else 0.79)
    assert found.item() == pytest.approx(want, rel=1e-9)
    unknown = supervised(outputs, s, torch.full((7,), -1))
    assert unknown.item() == 0
    assert not torch.autograd.grad(unknown, s)[0].any()


def test_losses_for_rare_classes_by_themselves() -> None:
    s, y, counts = scores(5, 3).detach(), torch.tensor([0, 2, -1, 1, 2]), torch.tensor(COUNTS)
    rows = [(row, k) for row, k in zip(s.tolist(), y.tolist(), strict=True) if k >= 0]

    def want(loss: str) -> float:
        terms = [by_hand(loss, row, k, late=False) for row, k in rows]
        return sum(w * term for term, w in terms) / len(terms)

    assert class_balanced(s, y, counts).item() == pytest.approx(want("class-balanced"), rel=1e-9)
    assert logit_adjusted(s, y, counts).item() == pytest.approx(want("logit-adjusted"), rel=1e-9)
    assert ldam(s / 30, y, counts).item() == pytest.approx(want("ldam"), rel=1e-9)


def test_ldam_has_a_head_of_cosines_and_only_its_drw_form_a_schedule() -> None:
    for loss in RARE:
        outputs = Outputs("multiclass", C, loss, counts=COUNTS)  # type: ignore[arg-type]
        made = losses.head(4, outputs)
        assert isinstance(made, Cosine) == loss.startswith("ldam")
        assert losses.scheduled(outputs) == (0.8 if loss == "ldam-drw" else 0.0)
    x = torch.randn(5, 4)
    cosine = losses.head(4, Outputs("multiclass", C, "ldam", counts=COUNTS))
    want = 30 * torch.nn.functional.cosine_similarity(x[:, None], cosine.weight[None], 2)
    torch.testing.assert_close(cosine(x), want)
