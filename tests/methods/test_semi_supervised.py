"""The semi-supervised method with each of its objectives, labels partly missing."""

from __future__ import annotations

import digits
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from medcl.errors import UsageError
from medcl.methods.contract import State
from medcl.methods.harmonised import Harmonised
from medcl.methods.semi_supervised import SemiSupervised
from medcl.objectives.listwise_wasserstein import listwise_wasserstein
from medcl.objectives.ot_contrast import ot_contrast
from medcl.objectives.rank_n_contrast import rank_n_contrast
from medcl.objectives.soft_contrast import soft_contrast
from medcl.objectives.supcon import supcon
from medcl.objectives.tree_contrast import tree_contrast

B = 32
KNOWN = torch.arange(B) % 2 == 0
CLASSES = torch.arange(B) % 5
MEANING = torch.eye(5)[CLASSES] + 0.1
# What a batch may hold for each objective, nothing missing yet.
LABELS: dict[str, Tensor] = {
    "supcon": CLASSES,
    "tree_contrast": torch.stack([CLASSES // 2, CLASSES], dim=1),
    "soft_contrast": MEANING,
    "ot_contrast": MEANING,
    "rank_n_contrast": torch.arange(B) % 7,
    "listwise_wasserstein": torch.arange(B) % 7,
}


def missing(label: Tensor) -> Tensor:
    """Every second label taken away, as its kind has it."""
    gone = -1 if not label.is_floating_point() else torch.nan
    return torch.where(KNOWN.reshape(-1, *(1,) * (label.ndim - 1)), label, gone)


def method(objective: str, **settings: object) -> SemiSupervised:
    torch.manual_seed(0)
    return SemiSupervised(digits.cnn(), objective=objective, hidden=16, out=8, **settings)  # type: ignore[arg-type]


def expected(objective: str, z1: Tensor, z2: Tensor, label: Tensor) -> Tensor:
    """The objective on the labelled samples alone."""
    both = torch.cat([z1, z2])
    if objective == "supcon":
        return supcon(both, label.repeat(2))
    if objective == "soft_contrast":
        return soft_contrast(z1, z2, label)
    if objective == "ot_contrast":
        return ot_contrast(both, label.repeat(2, 1))
    if objective == "listwise_wasserstein":
        u, grades = normalize(both, dim=1), label.float().repeat(2)
        return listwise_wasserstein(u @ u.T, -(grades[:, None] - grades).abs())
    return rank_n_contrast(both, label.float().repeat(2))


@pytest.mark.parametrize("objective", [name for name in LABELS if name != "tree_contrast"])
def test_the_supervised_term_is_that_of_the_labelled_samples(objective: str) -> None:
    x, batch = digits.draw(B)
    one = method(objective, self_supervised=(0.0, 0.0))
    label = LABELS[objective]
    result = one.step([x, x], {**batch, "label": missing(label)}, State())
    z = one.projector(one.encoder(torch.cat([x, x])))
    known = KNOWN.repeat(2)
    want = expected(objective, *z[known].chunk(2), label[KNOWN])
    torch.testing.assert_close(result["loss"], want, rtol=1e-4, atol=1e-5)


def test_a_sample_outside_the_tree_is_the_positive_of_its_other_view() -> None:
    x, batch = digits.draw(B)
    label = missing(LABELS["tree_contrast"])
    one = method("tree_contrast", self_supervised=(0.0, 0.0))
    result = one.step([x, x], {**batch, "label": label}, State())
    z = one.projector(one.encoder(torch.cat([x, x])))
    torch.testing.assert_close(
        result["loss"], tree_contrast(*z.chunk(2), label), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("objective", LABELS)
def test_without_any_label_the_views_alone_teach(objective: str) -> None:
    x, batch = digits.draw(B)
    label = LABELS[objective]
    nothing = torch.full_like(label, torch.nan if label.is_floating_point() else -1)
    result = method(objective).step([x, x], {**batch, "label": nothing}, State(5, 10))
    assert result["loss_self_supervised"] > 0
    if objective != "tree_contrast":
        assert result["loss_supervised"] == 0.0
    result["loss"].backward()


@pytest.mark.parametrize("objective", LABELS)
def test_the_mix_follows_its_curve_and_the_parts_add_up(objective: str) -> None:
    x, batch = digits.draw(B)
    batch = {**batch, "label": missing(LABELS[objective])}
    ends = {}
    for step in (0, 50, 100):
        one = method(objective, curve="cosine")
        result = one.step([x, x], batch, State(step, 100))
        parts = result["loss_supervised"], result["loss_self_supervised"]
        assert result["loss"].item() == pytest.approx(sum(parts).item())
        ends[step] = [part.item() for part in parts]
    assert ends[0][0] == 0.0
    assert ends[100][1] == 0.0
    assert ends[50] == pytest.approx([ends[100][0] / 2, ends[0][1] / 2], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("objective", LABELS)
def test_training_by_labels_raises_knn_accuracy(objective: str) -> None:
    """On the digits' own classes; graded objectives take the digit as a number."""
    untrained = []
    for seed in range(5):
        torch.manual_seed(seed)
        untrained.append(digits.knn_accuracy(digits.embed(digits.cnn())))
    before = sum(untrained) / 5
    one = method(objective)
    moving = digits.optimiser(one)
    one.train()
    for n in range(100):
        x, batch = digits.draw()
        if objective in ("soft_contrast", "ot_contrast"):
            known = batch["label"] >= 0
            meaning = torch.eye(10)[batch["label"].clamp_min(0)]
            batch["label"] = torch.where(known[:, None], meaning, torch.nan)
        loss = one.step([digits.augment(x, view) for view in one.views], batch, State(n, 100))
        moving.zero_grad()
        loss["loss"].backward()
        moving.step()
    after = digits.knn_accuracy(digits.embed(one.encoder))
    print(f"{objective}: {before:.3f} → {after:.3f}")
    assert after > before + 0.04


def test_settings_of_the_objective_and_the_name_of_the_label() -> None:
    x, batch = digits.draw(B)
    one = method("supcon", settings={"temperature": 0.5}, label="grade")
    assert one.needs == ("grade",)
    assert one.settings["temperature"] == 0.5
    with pytest.raises(UsageError, match="needs 'grade'"):
        one.step([x, x], batch, State())
    with pytest.raises(UsageError, match=r"method\.settings\.heat"):
        method("supcon", settings={"heat": 1})
    with pytest.raises(UsageError, match="an embedding"):
        method("soft_contrast").step([x, x], batch, State())


def test_its_two_terms_can_be_harmonised() -> None:
    x, batch = digits.draw(B)
    settings = {"objective": "supcon", "hidden": 16, "out": 8}
    one = Harmonised(digits.cnn(), method="semi-supervised", settings=settings)
    result = one.step([x, x], batch, State(5, 10))
    assert -1 <= result["agreement"] <= 1


def test_a_column_of_a_table_is_a_label_of_numbers() -> None:
    x, batch = digits.draw(B)
    one = method("listwise_wasserstein", label="table")
    ages = torch.where(KNOWN, LABELS["listwise_wasserstein"].float(), torch.nan)
    result = one.step([x, x], {**batch, "table": ages[:, None]}, State())
    other = method("listwise_wasserstein")
    assert result["loss"] == other.step([x, x], {**batch, "label": ages}, State())["loss"]
    with pytest.raises(UsageError, match="one number of each sample"):
        one.step([x, x], {**batch, "table": ages[:, None].expand(-1, 2)}, State())
