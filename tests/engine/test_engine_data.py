"""Which samples a batch holds: a function of the seed, cut into ranks, pairs within patients."""

from __future__ import annotations

import pickle
from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from tiny_engine import read

from medcl.engine.data import (
    Batches,
    check_fills,
    loader,
    numbers,
    paired,
    select,
    shuffled,
    some_pairs,
    weighted,
)
from medcl.errors import UsageError
from medcl.plugin import Samples


def selection(patients, label=None):
    """Synthetic: sample i holds the number i."""
    n = len(patients)
    x = np.arange(n, dtype=np.float32)[:, None]
    labels = {} if label is None else {"kind": np.asarray(label)}
    samples = Samples([str(i) for i in range(n)], ["a"] * n, patients, partial(read, x), labels)
    return select(samples, {p: "test" if p == "held out" else "train" for p in set(patients)})


PATIENTS = ["a"] * 20 + ["held out"] * 7 + ["b"] * 3 + ["c"] + ["d"] * 16


def test_only_training_patients_are_selected():
    chosen = selection(PATIENTS, label=np.arange(len(PATIENTS)))
    assert len(chosen) == 40
    assert {PATIENTS[row] for row in chosen.rows} == {"a", "b", "c", "d"}
    assert chosen.label.tolist() == chosen.rows.tolist()


def test_patients_that_the_split_does_not_know_are_left_out():
    samples = Samples(["0", "1"], ["a", "b"], ["known", "new"], partial(read, np.zeros((2, 1))))
    assert select(samples, {"known": "train"}).rows.tolist() == [0]


def test_no_training_samples_is_a_usage_error():
    with pytest.raises(UsageError, match="None of the 2 samples belongs to a training patient"):
        selection(["held out"] * 2)


def test_label_is_the_named_one_or_the_only_one():
    labels = {"sex": np.array(["f", "m", None]), "age": np.array([40.0, np.nan, 50])}
    samples = Samples(
        list("012"), list("abc"), list("abc"), partial(read, np.zeros((3, 1))), labels
    )
    split = dict.fromkeys("abc", "train")
    assert select(samples, split).label is None  # two of them, none named
    assert select(samples, split, "sex").label.tolist() == [0, 1, -1]
    assert select(samples, split, "age").label.dtype == np.float32


@pytest.mark.parametrize(("label", "missing"), [("sex", -1), ("age", np.nan)])
def test_everyone_may_be_learnt_from_without_the_labels_of_test_patients(label, missing):
    labels = {"sex": np.array(["f", "m", "f"]), "age": np.array([40.0, 60.0, 50.0])}
    samples = Samples(
        list("012"), list("abc"), list("abc"), partial(read, np.zeros((3, 1))), labels
    )
    split = {"a": "train", "b": "test"}  # and c of neither, as "val" of a published split is
    chosen = select(samples, split, label, all_patients=True)
    assert chosen.rows.tolist() == [0, 1]
    known, hidden = chosen.label.tolist()
    assert known == select(samples, split, label).label[0]
    assert np.array_equal(hidden, missing, equal_nan=True)


def test_another_label_never_takes_the_place_of_the_named_one():
    samples = Samples(
        ["0", "1"],
        ["a", "b"],
        ["a", "b"],
        partial(read, np.zeros((2, 1))),
        {"sex": np.array([0, 1])},
    )
    split = dict.fromkeys("ab", "train")
    assert select(samples, split).label.tolist() == [0, 1]
    assert select(samples, split, "rhythm").label is None


def test_text_labels_become_codes_in_sorted_order():
    assert numbers(np.array(["V", "N", "", "S", "N"])).tolist() == [2, 0, -1, 1, 0]


@given(some.lists(some.integers(1, 9), min_size=1, max_size=12), some.integers(0, 99))
def test_pairs_are_of_one_patient_and_patients_take_turns(counts, seed):
    patients = np.repeat(np.arange(len(counts)), counts)
    anchors, partners = paired(patients, seed, 0)
    assert len(anchors) == len(patients)
    assert (patients[anchors] == patients[partners]).all()
    alone = np.asarray(counts)[patients[anchors]] == 1
    assert ((anchors == partners) == alone).all()
    drawn = np.bincount(patients[anchors], minlength=len(counts))
    assert drawn.max() - drawn.min() <= 1  # however many samples each has
    for p, count in enumerate(counts):  # a patient's samples take turns too
        used = np.unique_counts(anchors[patients[anchors] == p]).counts
        assert len(used) == min(count, drawn[p])
        assert used.max() - used.min() <= 1


def test_partners_are_drawn_from_all_other_samples():
    patients = np.zeros(5, np.int64)
    seen = {pair for e in range(50) for pair in zip(*paired(patients, 0, e), strict=True)}
    assert len(seen) == 20


def test_an_epoch_holds_every_sample_once_and_epochs_differ():
    one, two = (
        shuffled(np.zeros(50, np.int64), seed=1, epoch=0),
        shuffled(np.zeros(50, np.int64), seed=1, epoch=1),
    )
    assert sorted(one) == sorted(two) == list(range(50))
    assert (one != two).any()
    assert (one == shuffled(np.zeros(50, np.int64), seed=1, epoch=0)).all()
    assert (one != shuffled(np.zeros(50, np.int64), seed=2, epoch=0)).any()


@given(some.lists(some.integers(1, 9), min_size=1, max_size=8), some.integers(0, 99))
def test_weights_decide_within_a_patient_and_never_between(counts, seed):
    random = np.random.default_rng(seed)
    patients = random.permutation(np.repeat(np.arange(len(counts)), counts))
    weights = random.uniform(0.01, 5, len(patients))
    for epoch in range(3):
        order = shuffled(patients, seed, epoch, weights)
        anchors, partners = paired(patients, seed, epoch, weights=weights)
        assert (np.bincount(patients[order], minlength=len(counts)) == counts).all()
        assert (patients[anchors] == patients[partners]).all()
        often = np.bincount(order, minlength=len(patients))
        due = weights / np.bincount(patients, weights)[patients] * np.asarray(counts)[patients]
        assert (np.abs(often - due) < 1).all()


def test_over_the_epochs_each_sample_gets_its_share():
    patients, weights = np.array([0, 1, 0, 0]), np.array([1.0, 7.0, 4.0, 1.0])
    epochs = [shuffled(patients, 0, epoch, weights) for epoch in range(400)]
    mean = np.bincount(np.concatenate(epochs), minlength=4) / len(epochs)
    assert mean == pytest.approx([0.5, 1, 2, 0.5], abs=0.1)


def test_pairs_follow_the_weights_too():
    patients, weights = np.zeros(4, np.int64), np.array([1.0, 1.0, 1.0, 9.0])
    drawn = [paired(patients, 0, epoch, weights=weights) for epoch in range(200)]
    for side in zip(*drawn, strict=True):
        share = np.bincount(np.concatenate(side), minlength=4) / 800
        assert share == pytest.approx([1 / 12, 1 / 12, 1 / 12, 9 / 12], abs=0.05)


@pytest.mark.parametrize("bad", [np.ones(3), np.array([1, 0, 1, 1.0]), np.array([1, np.nan, 1, 1])])
def test_weights_that_are_none_are_refused(bad):
    samples = Samples(list("wxyz"), list("wxyz"), list("aabb"), read, weights=bad)
    selection = select(samples, {"a": "train", "b": "test"})
    with pytest.raises(UsageError, match="finite and above zero"):
        _ = selection.weights


def test_batches_follow_the_weights_of_the_training_samples():
    weights = np.array([1.0, 1.0, 9.0, 9.0, 1.0, 1.0])
    read_them = partial(read, np.zeros((6, 1)))
    samples = Samples(list("uvwxyz"), list("uvwxyz"), list("aabbbb"), read_them, weights=weights)
    selection = select(samples, {"a": "test", "b": "train"})
    batches = Batches(selection, batch_size=4, seed=0, pairs=False)
    rows = np.concatenate([batches[m][1]["index"].numpy() for m in range(100)])
    share = np.bincount(rows, minlength=6) / len(rows)
    assert share == pytest.approx(np.array([0, 0, 9, 9, 1, 1]) / 20, abs=0.02)


def test_no_rounding_takes_a_draw_to_another_patient():
    class Last:
        """The largest that a generator gives."""

        def random(self, size):
            return np.full(size, 1 - 2.0**-53)

    patients = np.repeat(np.arange(300), 1000)
    weights = np.tile(np.linspace(1e-9, 1, 1000), 300)
    drawn = weighted(patients, weights, Last())
    assert (np.bincount(patients[drawn], minlength=300) == 1000).all()


def test_equal_weights_are_no_weights():
    patients = np.random.default_rng(0).integers(0, 5, 40)
    order = shuffled(patients, 3, 1, np.full(40, 2.0))
    assert sorted(order) == list(range(40))
    assert (order != shuffled(patients, 3, 2, np.full(40, 2.0))).any()


def test_full_batches_only_and_no_sample_twice_in_an_epoch():
    chosen = selection(PATIENTS)
    batches = Batches(chosen, batch_size=16, seed=0, pairs=False)
    assert batches.per_epoch == 2
    seen = torch.cat([batches[m][1]["index"] for m in range(2)])
    assert len(seen.unique()) == 32
    _, batch = batches[0]
    assert batch["x"][:, 0].long().equal(batch["index"])  # synthetic sample i holds i
    assert batch["patient"].dtype == torch.int64
    assert "label" not in batch


@pytest.mark.parametrize("pairs", [False, True])
def test_ranks_share_out_what_one_process_sees(pairs):
    chosen = selection(PATIENTS)
    whole = Batches(chosen, batch_size=8, seed=3, pairs=pairs)
    parts = [
        Batches(chosen, batch_size=4, seed=3, pairs=pairs, rank=rank, world=2) for rank in (0, 1)
    ]
    for m in (0, 1, 7, 23):
        _, one = whole[m]
        two = [part[m][1] for part in parts]
        assert one.keys() == two[0].keys()
        for key in one:
            assert one[key].equal(torch.cat([batch[key] for batch in two])), key


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_starts_anywhere(workers):
    batches = Batches(selection(PATIENTS), batch_size=8, seed=3, pairs=True)
    late = loader(batches, first=7, total=12, workers=workers, pin_memory=False)
    assert len(late) == 12
    for m, (number, batch) in zip(range(7, 12), late, strict=True):
        assert number == m
        for key, value in batches[m][1].items():
            assert batch[key].equal(value)


def test_too_few_samples_name_the_numbers():
    chosen = selection(PATIENTS)
    check_fills(chosen, 20, 2)
    with pytest.raises(UsageError, match=r"40 training samples .* 32 on each of 2 .* at most 20"):
        check_fills(chosen, 32, 2)


@given(some.lists(some.integers(1, 9), min_size=1, max_size=9), some.integers(1, 60))
def test_some_pairs_are_picked_in_turns(counts, wanted):
    random = np.random.default_rng(len(counts) + wanted)
    patients = random.permutation(np.repeat(np.arange(len(counts)), counts))
    anchors, partners = some_pairs(patients, wanted, random)
    assert len(anchors) == len(set(anchors.tolist())) == min(wanted, sum(counts))
    assert (np.diff(anchors) > 0).all()
    assert (patients[anchors] == patients[partners]).all()
    assert ((anchors == partners) == (np.asarray(counts)[patients[anchors]] == 1)).all()
    often = np.bincount(patients[anchors], minlength=len(counts))
    left = often < counts  # whoever has samples left was picked as often as anybody, but for one
    assert (often[left] >= often.max() - 1).all()


def test_every_sample_and_every_partner_is_picked_alike():
    patients = np.array([1, 0, 1, 1, 1])
    seen: Counter[tuple[int, int]] = Counter()
    for seed in range(3000):
        pairs = some_pairs(patients, 2, np.random.default_rng(seed))
        seen.update(zip(*(side.tolist() for side in pairs), strict=True))
    assert seen.pop((1, 1)) == 3000
    assert len(seen) == 12
    assert all(200 < count < 300 for count in seen.values())


def test_partners_that_are_known_are_looked_up_for_the_picked():
    patients, partners = np.zeros(4, np.int64), np.array([[1, 2], [0, -1], [-1, -1], [2, -1]])
    for seed in range(20):
        anchors, others = some_pairs(patients, 3, np.random.default_rng(seed), partners)
        for anchor, other in zip(anchors, others, strict=True):
            near = [p for p in partners[anchor] if p >= 0]
            assert other in (near or [anchor])


@pytest.mark.parametrize("pairs", [False, True])
def test_a_loader_process_is_given_no_more_than_reading_takes(pairs):
    many = 20_000
    patients = [f"p{n % 7}" for n in range(many)]
    labels = {"y": np.arange(many)}
    ids = [f"a long name of sample {n}" for n in range(many)]
    samples = Samples(ids, patients, patients, partial(read, np.zeros((1, 1))), labels)
    selection = select(samples, dict.fromkeys(patients, "train"), "y", dict.fromkeys(patients, "s"))
    made = loader(
        Batches(selection, batch_size=4, seed=0, pairs=pairs),
        first=0,
        total=3,
        workers=0,
        pin_memory=False,
    )
    assert len(pickle.dumps(made.dataset)) < 1000
    for planned in made.sampler:
        assert len(pickle.dumps(planned)) < 2000
