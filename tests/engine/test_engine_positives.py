"""Positive partners by place: the nearest of another item, or of one's own; never a stranger."""

from __future__ import annotations

import math

import numpy as np
import pytest

from medcl.engine.data import paired, select
from medcl.engine.positives import near
from medcl.plugin import Samples


def samples(**fields: object) -> Samples:
    """Two items of a group at heights 0 … 4 and 0.5 … 4.5, one item alone, of two patients."""
    items = ["a"] * 5 + ["b"] * 5 + ["c"] * 3
    values = {
        "ids": [str(n) for n in range(13)],
        "items": items,
        "patients": ["p"] * 10 + ["q"] * 3,
        "read": lambda rows: {"x": rows},
        "groups": ["g"] * 10 + ["h"] * 3,
        "locations": np.array([*range(5), *(n + 0.4 for n in range(5)), 0, 1, 5], float)[:, None],
        "reach": 1.5,
    }
    return Samples(**{**values, **fields})  # type: ignore[arg-type]


def partners(found: Samples) -> list[set[int]]:
    made = select(found, {"p": "train", "q": "train"}).partners
    assert made is not None
    return [set(row[row >= 0].tolist()) for row in made]


def test_the_nearest_of_the_other_item_or_else_beside() -> None:
    found = partners(samples())
    assert found[:5] == [{5}, {6}, {7}, {8}, {9}]
    assert found[5:10] == [{0}, {1}, {2}, {3}, {4}]
    assert found[10:] == [{11}, {10}, set()]  # 5 lies 4 away from all others


def test_both_neighbours_of_a_place_are_partners() -> None:
    line = np.arange(4.0)[:, None]
    made = near(np.zeros(4, int), np.zeros(4, int), line, math.inf)
    assert [set(row[row >= 0]) for row in made] == [{1}, {0, 2}, {1, 3}, {2}]


def test_without_a_place_there_is_no_partner() -> None:
    locations = samples().locations
    assert locations is not None
    locations[0] = np.nan
    found = partners(samples(locations=locations))
    assert found[0] == set()
    assert all(0 not in each for each in found)


def test_groups_of_two_patients_stay_apart() -> None:
    """Whatever the groups say: a table may have given the items of one group to two people."""
    found = partners(samples(patients=["p"] * 5 + ["q"] * 8))
    assert found[0] == {1}
    assert all(max(each) < 5 for each in found[:5])


def test_without_places_any_other_of_the_patient_is_one() -> None:
    assert select(samples(locations=None), {"p": "train", "q": "train"}).partners is None


def test_an_epoch_draws_from_the_partners_alone() -> None:
    selection = select(samples(), {"p": "train", "q": "train"})
    assert selection.partners is not None
    for epoch in range(5):
        anchors, others = paired(selection.patients, 0, epoch, selection.partners)
        for anchor, other in zip(anchors, others, strict=True):
            allowed = selection.partners[anchor]
            assert other in (allowed[allowed >= 0] if (allowed >= 0).any() else [anchor])


def test_the_nearest_eight_are_kept() -> None:
    places = np.arange(12.0)[:, None] / 10
    made = near(np.zeros(12, int), np.arange(12), places, math.inf)
    assert made.shape == (12, 8)
    assert made[0].tolist() == [1, 2, 3, 4, 5, 6, 7, 8]


def test_partners_of_a_selection_are_positions_in_it() -> None:
    selection = select(samples(), {"p": "test", "q": "train"})
    assert selection.partners is not None
    assert selection.partners[:, 0].tolist() == [1, 0, -1]
    with pytest.raises(AttributeError):
        selection.rows = np.arange(3)  # type: ignore[misc]
