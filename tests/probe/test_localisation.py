"""The same place, found again: what is searched, and what a good and a blind encoder score."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from medcl.errors import MedclError
from medcl.plugin import Samples
from medcl.probe.localisation import (
    Finding,
    Localisation,
    _apart,
    _distances,
    _mean,
    _searched,
    can_say,
)


def samples(**fields: object) -> Samples:
    """Items a and b of one group at the same 4 heights, and c by itself."""
    values = {
        "ids": [str(n) for n in range(11)],
        "items": [*"aaaabbbbccc"],
        "patients": [*"ppppppppqqq"],
        "read": lambda rows: {"x": rows},
        "groups": [*"gggggggghhh"],
        "locations": np.array([0, 8, 16, 24, 0, 8, 16, 24, 0, 5, 10], float)[:, None],
    }
    return Samples(**{**values, **fields})  # type: ignore[arg-type]


def test_a_place_is_looked_for_in_other_items_first() -> None:
    where = dict(_searched(samples()))
    assert where[0].tolist() == [4, 5, 6, 7]
    assert where[5].tolist() == [0, 1, 2, 3]
    assert where[9].tolist() == [8, 9, 10]


def test_samples_without_a_place_are_left_out() -> None:
    unknown = np.full((11, 1), np.nan)
    unknown[8:] = samples().locations[8:]  # type: ignore[index]
    assert [query for query, _ in _searched(samples(locations=unknown))] == [8, 9, 10]
    assert can_say(samples())
    assert not can_say(samples(locations=np.full((11, 1), np.nan)))
    assert not can_say(samples(locations=None))


def test_an_encoder_that_knows_the_place_is_never_wrong() -> None:
    found = samples()
    where = list(_searched(found))
    assert found.locations is not None
    angle = found.locations[:, 0] / 10
    knows = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    assert (_distances(knows, knows, found, where) == 0).all()
    same = np.tile(knows[3], (11, 1))  # every query looks like the sample at 24 mm
    away = _distances(same, knows, found, where[:4])
    assert away.tolist() == [24, 16, 8, 0]
    assert _apart(found, where[:1], np.mean)[0] == 12
    assert _apart(found, where[:1], np.min)[0] == 0


def test_features_that_are_no_numbers_are_refused() -> None:
    found = samples()
    bad = np.full((11, 2), np.nan, np.float32)
    with pytest.raises(MedclError, match="NaN or infinite"):
        _distances(bad, bad, found, list(_searched(found)))


def test_patients_count_alike() -> None:
    assert _mean(np.array([0.0, 0.0, 0.0, 8.0]), np.array([*"pppq"])) == 4.0


def test_few_patients_are_said_to_be_few_and_the_file_reads_back(tmp_path: Path) -> None:
    few = Localisation(40, 1, 1.0, 20.0, "mm", [Finding("pretrained", 10.0, 0.5)])
    assert "1 patient that no model was trained on" in few.verdict()
    assert "do not generalise to other patients" in few.verdict()
    assert "Too few" not in Localisation(40, 9, 1.0, 20.0, "mm").verdict()
    assert few.table()[1] == [["pretrained", "10.0", "50%"]]
    (tmp_path / "localisation.json").write_text(json.dumps(few.as_dict()))
    assert Localisation.load(tmp_path / "localisation.json") == few
