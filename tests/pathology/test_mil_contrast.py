"""SC-MIL's parts, and INS's, each against its formula."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from medcl.classifiers.contract import Classifier
from medcl.errors import UsageError
from medcl.labels.outputs import Outputs
from medcl.methods.contract import State, after_step
from medcl.objectives.supcon import supcon
from medcl_pathology.mil.ins import Ins
from medcl_pathology.mil.queued import queued_supcon
from medcl_pathology.mil.registry import AGGREGATORS
from medcl_pathology.mil.sc_mil import ScMil, contrast_weight
from medcl_pathology.mil.soft_labels import SoftLabels, fingerprints

TWO = Outputs("binary", ("no", "yes"))
THREE = Outputs("multiclass", ("a", "b", "c"))


def synthetic_batch(y: list[int], seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    counts = torch.arange(len(y)) % 4 + 2
    bag = torch.arange(len(y)).repeat_interleave(counts)
    return {
        "x": torch.randn(len(bag), 6, generator=generator),
        "bag": bag,
        "y": torch.tensor(y),
        "patient": torch.arange(len(y)),
        "coords": torch.rand(len(bag), 2, generator=generator),
    }


def naive(z: Tensor, y: Tensor, keys: Tensor, key_y: Tensor, t: float) -> Tensor:
    z, keys = F.normalize(z, dim=1), F.normalize(keys, dim=1)
    terms = []
    for i in range(len(z)):
        others = [(z[j], y[j]) for j in range(len(z)) if j != i and y[j] >= 0]
        others += list(zip(keys, key_y, strict=True))
        mates = [z[i] @ v / t for v, c in others if c == y[i]]
        if y[i] < 0 or not mates:
            continue
        lse = torch.stack([z[i] @ v / t for v, _ in others]).logsumexp(0)
        terms.append(lse - torch.stack(mates).mean())
    return torch.stack(terms).mean() if terms else torch.zeros((), dtype=z.dtype)


@settings(max_examples=30)
@given(st.integers(1, 7), st.integers(0, 9), st.integers(0, 999))
def test_queued_contrast_is_its_formula(b: int, k: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    z = torch.randn(b, 4, generator=g, dtype=torch.float64, requires_grad=True)
    keys = torch.randn(k, 4, generator=g, dtype=torch.float64)
    y = torch.randint(-1, 3, (b,), generator=g)
    key_y = torch.randint(0, 3, (k,), generator=g)
    ours, theirs = queued_supcon(z, y, keys, key_y, temperature=0.3), naive(z, y, keys, key_y, 0.3)
    torch.testing.assert_close(ours, theirs)
    if theirs.requires_grad:
        (one,) = torch.autograd.grad(ours, z)
        (two,) = torch.autograd.grad(theirs, z)
        torch.testing.assert_close(one, two)


def test_without_a_queue_it_is_supcon() -> None:
    torch.manual_seed(0)
    z, y = torch.randn(8, 5), torch.tensor([0, 0, 1, 1, 2, -1, 2, 0])
    none = torch.zeros(0, 5), torch.zeros(0, dtype=torch.long)
    torch.testing.assert_close(queued_supcon(z, y, *none), supcon(z, y))


def test_the_curricula_fall_from_one_to_zero() -> None:
    for name in ("linear", "parabolic", "cosine", "step"):
        w = [contrast_weight(name, p / 20) for p in range(21)]
        assert (w[0], w[-1]) == (1.0, 0.0)
        assert w == sorted(w, reverse=True)
    assert contrast_weight("cosine", 0.5) == pytest.approx(0.5)
    assert [contrast_weight("step", p) for p in (0.49, 0.5)] == [1.0, 0.0]


@pytest.mark.parametrize("aggregator", AGGREGATORS)
def test_sc_mil_goes_with_every_aggregator(aggregator: str) -> None:
    torch.manual_seed(0)
    batch = synthetic_batch([0, 1, 2, 0, 1, -1])
    small = {"transmil": {"width": 16, "heads": 4, "landmarks": 4}}
    settings = small.get(aggregator)
    model = ScMil(batch, THREE, aggregator=aggregator, settings=settings, layers=(8,), queue=9)
    assert isinstance(model, Classifier)
    before = [p.clone() for p in model.target.parameters()] if model.target else []
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(3):
        state = State(step, 4)
        out = model.step(batch, state)
        optimiser.zero_grad()
        out["loss"].backward()
        optimiser.step()
        after_step(model, state)
    assert all(
        p.grad is not None and p.grad.isfinite().all()
        for p in model.parameters()
        if p.requires_grad
    )
    assert model.target is not None
    moved = zip(before, model.target.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in moved)
    assert model.predict(batch)["scores"].shape == (6, 3)
    # Three steps with two bags of classes a and b, one of c; three places for each class.
    assert [len(queue.keys) for queue in model.queues] == [3, 3, 3]


def test_a_rare_class_keeps_its_place_in_the_queue() -> None:
    torch.manual_seed(0)
    model = ScMil(synthetic_batch([0, 1]), TWO, layers=(8,), queue=8)
    model.step(synthetic_batch([1, 0, 0]), State(0, 9))
    for step in range(6):
        model.step(synthetic_batch([0, 0, 0], seed=step), State(step, 9))
    keys, labels = model._remembered(torch.zeros(1, 128))
    assert labels.tolist() == [0, 0, 0, 0, 1]
    assert len(keys) == 5


def test_sc_mil_weighs_its_terms_by_the_curriculum() -> None:
    torch.manual_seed(0)
    batch = synthetic_batch([0, 1, 1, 0])
    model = ScMil(batch, TWO, layers=(8,), queue=0)
    for step, w in ((0, 1.0), (1, 0.75), (4, 0.0)):
        out = model.step(batch, State(step, 4))
        torch.testing.assert_close(out["loss"].detach(), w * out["contrast"] + (1 - w) * out["bag"])


@pytest.mark.parametrize("build", [ScMil, Ins])
@pytest.mark.parametrize("kind", ["multilabel", "regression", "cox", "hazard"])
def test_both_need_classes(build: type, kind: str) -> None:
    with pytest.raises(UsageError, match=f"{kind}: use 'mil'"):
        build(synthetic_batch([0, 1]), Outputs(kind, ("a",)))


# INS --------------------------------------------------------------------------------------------


def test_soft_labels_are_found_again_by_the_features() -> None:
    x = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    table, unknown = SoftLabels(2), torch.full((50, 2), 0.5)
    keys = fingerprints(x)
    assert len(keys.unique()) == 50
    assert table.get(keys, unknown).eq(0.5).all()
    values = torch.rand(50, 2)
    table.put(keys[:30], values[:30])
    order = torch.randperm(50)
    found = table.get(fingerprints(x[order]), unknown)
    expected = torch.where(order[:, None] < 30, values[order], 0.5)
    torch.testing.assert_close(found, expected)
    table.put(keys[20:40], torch.ones(20, 2))
    assert len(table) == 40
    torch.testing.assert_close(table.get(keys[:20], unknown[:20]), values[:20])
    assert table.get(keys[20:40], unknown[:20]).eq(1).all()


def test_soft_labels_are_a_dictionary() -> None:
    g = torch.Generator().manual_seed(0)
    table, twin = SoftLabels(2), dict[int, list[float]]()
    for _ in range(60):
        keys = torch.randint(0, 400, (int(torch.randint(1, 40, (1,), generator=g)),), generator=g)
        values = keys[:, None] * torch.rand(1, 2, generator=g)  # equal keys have equal values
        table.put(keys, values)
        twin |= dict(zip(keys.tolist(), values.tolist(), strict=True))
        everything = torch.arange(400)
        expected = torch.tensor([twin.get(k, [-1.0, -1.0]) for k in range(400)])
        torch.testing.assert_close(table.get(everything, torch.full((400, 2), -1.0)), expected)
        assert len(table) == len(twin)
    assert len(table.blocks) < 10


def test_fingerprints_tell_permutations_and_signs_apart() -> None:
    x = torch.tensor([[1.0, 2.0], [2.0, 1.0], [-1.0, 2.0], [1.0, -2.0], [0.0, 0.0], [1.0, 2.0]])
    keys = fingerprints(x).tolist()
    assert len(set(keys)) == 5
    assert keys[0] == keys[5]
    assert fingerprints(torch.tensor([[-0.0, 0.0]])).item() == keys[4]


def test_prototypes_follow_one_instance_after_the_other() -> None:
    torch.manual_seed(0)
    model = Ins(synthetic_batch([0, 1]), TWO, layers=(8,), queue=16, out=4)
    q, choice = F.normalize(torch.randn(9, 4), dim=1), torch.tensor([0, 1, 1, 0, 1, 0, 0, 1, 1])
    model.prototypes.copy_(F.normalize(torch.randn(2, 4), dim=1))
    expected = model.prototypes.clone()
    for vector, c in zip(q, choice, strict=True):
        expected[c] = 0.9 * expected[c] + 0.1 * vector
    model._move_prototypes(q, choice)
    torch.testing.assert_close(model.prototypes, F.normalize(expected, dim=1))


def test_pseudo_labels_move_to_the_nearest_prototype_and_negatives_stay() -> None:
    model = Ins(synthetic_batch([0, 1]), THREE, layers=(8,), queue=16, out=2, warm_up=0.0)
    model.prototypes.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]))
    x = torch.randn(4, 6)
    q = torch.tensor([[0.1, 0.9], [0.9, 0.1], [0.0, 1.0], [0.0, 1.0]])
    # Bags of classes b, b, a (negative) and c: of the last, b is not allowed however near it is.
    allowed = torch.tensor([[1.0, 1, 0], [1, 1, 0], [1, 0, 0], [1, 0, 1]])
    soft = model._move(x, q, allowed, State(0, 10))
    half = 0.95 * 0.5
    torch.testing.assert_close(soft[0], torch.tensor([half, half + 0.05, 0.0]))
    torch.testing.assert_close(soft[1], torch.tensor([half + 0.05, half, 0.0]))
    torch.testing.assert_close(soft[2], torch.tensor([1.0, 0.0, 0.0]))
    assert soft[3, 1] == 0
    again = model._move(x[:1], q[:1], allowed[:1], State(10, 10))  # m_s is 0.8 at the end
    torch.testing.assert_close(again[0], 0.8 * soft[0] + 0.2 * torch.tensor([0.0, 1.0, 0.0]))
    assert len(model.soft) == 3  # nothing is kept of negative bags


def test_ins_moves_the_labels_of_all_instances_of_its_bags() -> None:
    bag = torch.arange(3).repeat_interleave(torch.tensor([8, 5, 4]))
    x = torch.randn(17, 6, generator=torch.Generator().manual_seed(0))
    batch = {"x": x, "bag": bag, "y": torch.tensor([1, 0, -1]), "patient": torch.arange(3)}
    torch.manual_seed(0)
    model = Ins(batch, TWO, layers=(8,), queue=32, warm_up=0.0, sample=6, update="all")
    model.step(batch, State(0, 10))
    assert len(model.soft) == 8  # of the positive bag; a label for 6 of 17 was trained with
    soft = model.soft.get(fingerprints(x[:8]), torch.full((8, 2), -1.0))
    assert torch.isclose(soft.amax(1), torch.tensor(0.525)).all()  # 0.95 · ½ + 0.05
    sampled = Ins(batch, TWO, layers=(8,), queue=32, warm_up=0.0, sample=6, update="sampled")
    sampled.step(batch, State(0, 10))
    assert len(sampled.soft) <= 6


@pytest.mark.parametrize("outputs", [TWO, THREE, Outputs("ordinal", ("0", "1", "2"))])
def test_ins_trains_and_predicts(outputs: Outputs) -> None:
    torch.manual_seed(0)
    batch = synthetic_batch([0, 1, len(outputs.classes) - 1, 0, 1, -1])
    model = Ins(batch, outputs, layers=(8,), queue=32, warm_up=0.4)
    assert isinstance(model, Classifier)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(5):
        state = State(step, 5)
        out = model.step(batch, state)
        optimiser.zero_grad()
        out["loss"].backward()
        optimiser.step()
        after_step(model, state)
        if step == 4:
            assert all(
                p.grad is not None and p.grad.isfinite().all()
                for p in model.parameters()
                if p.requires_grad
            )
    shown = model.eval().predict(batch)
    assert shown["scores"].shape == (6, outputs.size)
    assert len(shown["instances"]) == len(batch["x"])
    assert ((shown["instances"] >= 0) & (shown["instances"] <= 1)).all()
    assert not any("soft" in key for key in model.state_dict())


def test_ins_without_a_known_label_has_no_loss() -> None:
    model = Ins(synthetic_batch([0, 1]), TWO, layers=(8,), queue=32)
    out = model.step(synthetic_batch([-1, -1]), State())
    assert out["loss"].item() == 0
    out["loss"].backward()


def test_ins_names_its_negative_class() -> None:
    batch = synthetic_batch([0, 1])
    model = Ins(batch, TWO, negative="yes", layers=(8,), scores="max")
    shown = model.predict(batch)
    assert shown["scores"][:, 1].eq(0).all()  # odds against itself
    with pytest.raises(UsageError, match=r"classifier\.negative.*none of the classes: no, yes"):
        Ins(batch, TWO, negative="maybe")
    with pytest.raises(UsageError, match="encoder of instances"):
        Ins(batch, TWO, layers=())
