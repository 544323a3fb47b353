"""Strings in little memory behave as the lists that they stand for."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from medcl.errors import MedclError
from medcl.strings import Formatted, codes, distinct, encoded, packed, smallest, strings

TEXTS = some.lists(some.text(max_size=6), max_size=30)


@given(TEXTS, some.data())
@pytest.mark.parametrize("make", [packed, encoded])
def test_any_strings_come_back(make, texts, data):
    made = make(texts)
    assert made == texts
    assert texts == made
    assert list(made) == made.tolist() == texts
    assert len(made) == len(texts)
    assert pickle.loads(pickle.dumps(made)) == texts
    assert [made[n] for n in range(-len(texts), len(texts))] == texts + texts
    assert made[1:7:2] == texts[1:7:2]
    where = data.draw(some.lists(some.integers(0, max(len(texts) - 1, 0)))) if texts else []
    assert made.at(np.array(where, np.int64)) == [texts[n] for n in where]
    assert json.dumps([made], default=lambda it: it.tolist()) == json.dumps([texts])
    with pytest.raises(IndexError):
        made[len(texts)]


@given(TEXTS, some.data())
def test_codes_are_those_of_numpy_after_any_choice(texts, data):
    made = encoded(texts)
    where = data.draw(some.lists(some.integers(0, max(len(texts) - 1, 0)))) if texts else []
    chosen = [texts[n] for n in where]
    made = made.at(np.array(where, np.int64))
    names = sorted(set(chosen))
    assert distinct(made) == distinct(chosen) == names
    for given_as in (made, chosen):
        assert codes(given_as).tolist() == [names.index(text) for text in chosen]
    assert np.asarray(made).tolist() == np.array(chosen, np.str_).tolist()


@given(
    some.lists(some.tuples(some.sampled_from("abc"), some.integers(-(2**40), 2**40)), max_size=9)
)
def test_ids_are_made_of_their_numbers(rows):
    items = encoded([item for item, _ in rows])
    start = smallest(np.array([n for _, n in rows], np.int64))
    corner = np.stack([start, start], axis=1)
    ids = Formatted("{}:{}:{}.{}", items, (start, corner))
    wanted = [f"{item}:{n}:{n}.{n}" for item, n in rows]
    assert ids == wanted
    assert [ids[n] for n in range(len(rows))] == wanted
    assert ids.at(np.arange(len(rows))[::-1]) == wanted[::-1]
    assert pickle.loads(pickle.dumps(ids)).tolist() == wanted


def test_names_of_rows_are_given_to_samples():
    assert encoded(["b", "a"], np.array([1, 0, 1])) == ["a", "b", "a"]
    assert encoded(encoded(["b", "a"]), np.array([1, 1])) == ["a", "a"]


def test_what_is_no_string_is_refused_without_showing_it():
    for make in (packed, encoded):
        with pytest.raises(MedclError, match="by a int, not by a string") as refused:
            make(["a", 4711])
        assert "4711" not in str(refused.value)
    assert strings(np.array(["a", "bc"])) == ["a", "bc"]  # numpy's own are strings
    assert "bc" not in repr(strings(["bc"]))


@given(some.lists(some.integers(-(2**62), 2**62), min_size=1))
def test_numbers_keep_their_value_in_the_smallest_type(numbers):
    assert smallest(np.array(numbers)).tolist() == numbers


def test_small_numbers_are_small():
    assert smallest(np.array([0, 255])).dtype == np.uint8
    assert smallest(np.array([-1, 127])).dtype == np.int8
    assert smallest(np.array([-1, 128])).dtype == np.int16
    assert smallest(np.array([-129, 0])).dtype == np.int16
    assert smallest(np.array([], np.int64)).tolist() == []
