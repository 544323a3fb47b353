"""`Samples`: every field follows a choice of samples, and lists of strings are taken."""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np
import pytest

from medcl.errors import MedclError
from medcl.plugin import Axes, Samples
from medcl.probe.external import joined

N = 6
WHOLE = {"reach", "unit", "instances", "mask_classes"}  # hold for all samples alike
WHERE = np.array([4, 1, 4])


def read(x, positions):
    return {"x": x[positions]}


def where(start, positions):
    return {"start": start[positions]}


def draw(x, positions, seeds):
    return {"x": x[positions]}


def axes(fs, position):
    return Axes(("I",), ("mV",), float(fs[position]))


def made() -> Samples:
    """With something else in every field, for every sample."""
    return Samples(
        ids=[f"id{n}" for n in range(N)],
        items=[f"item{n}" for n in range(N)],
        patients=[f"patient{n}" for n in range(N)],
        read=partial(read, np.arange(N)),
        labels={"y": np.arange(N), "text": np.array(list("abcdef"))},
        groups=[f"group{n}" for n in range(N)],
        locations=np.arange(2.0 * N).reshape(N, 2),
        reach=7.0,
        unit="mm",
        facts={f"item{n}": {"mpp": float(n)} for n in range(N)},
        weights=1.0 + np.arange(N),
        where=partial(where, np.arange(N)),
        draw=partial(draw, np.arange(N)),
        instances=("x", "marks"),
        mask_classes=("background", "liver"),
        axes=partial(axes, np.arange(N)),
    )


def of_field(samples: Samples, name: str):
    """What a field says, as something that can be compared; `read` by what it reads."""
    value = getattr(samples, name)
    if name == "read":
        return value(np.arange(len(samples)))["x"].tolist()
    if name == "draw":
        return value(np.arange(len(samples)), np.zeros(len(samples), np.uint64))["x"].tolist()
    if name == "where":
        return value(np.arange(len(samples)))["start"].tolist()
    if name == "axes":
        return [value(position).fs for position in range(len(samples))]
    if name == "labels":
        return {key: np.asarray(column).tolist() for key, column in value.items()}
    return value if name in ("facts", *WHOLE) else np.asarray(value).tolist()


def cut(value, where):
    """The same choice, made on plain lists."""
    if isinstance(value, dict) and "item0" in value:
        return {f"item{n}": value[f"item{n}"] for n in set(where.tolist())}
    if isinstance(value, dict):
        return {key: cut(column, where) for key, column in value.items()}
    return [value[n] for n in where]


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Samples)])
def test_every_field_follows_the_positions(name):
    default = {f.name: f.default for f in dataclasses.fields(Samples)}[name]
    whole = of_field(made(), name)
    assert whole not in (default, None, {}), "give the new field a value in made()"
    wanted = whole if name in WHOLE else cut(whole, WHERE)
    assert wanted == whole if name in WHOLE else wanted != whole
    assert of_field(made().at(WHERE), name) == wanted
    assert of_field(made().at(np.array([5, 4, 1])).at(np.array([1, 2, 1])), name) == wanted


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Samples)])
def test_every_field_is_joined(name):
    whole = of_field(made(), name)
    one, two = made().at(np.arange(2)), made().at(np.arange(2, N))
    assert of_field(joined(one, two), name) == whole


def test_absent_fields_stay_absent():
    names = ["a", "b"]
    samples = Samples(names, names, names, partial(read, np.arange(2)))
    for some in (samples.at(np.array([1])), joined(samples, samples)):
        assert (some.groups, some.locations, some.weights) == (None, None, None)
        assert (some.labels, some.facts, some.unit, some.reach) == ({}, {}, "", np.inf)
    assert len(samples.at(np.array([], np.int64))) == 0
    assert joined(made(), samples).locations is None


def test_a_mask_or_a_negative_position_is_no_choice():
    with pytest.raises(TypeError, match="flatnonzero"):
        made().at(np.ones(N, bool))
    with pytest.raises(IndexError):
        made().at(np.array([-1]))


@pytest.mark.parametrize("name", ["items", "patients", "groups", "locations", "labels"])
def test_fields_of_another_length_are_refused(name):
    value = {"y": np.arange(N - 1)} if name == "labels" else getattr(made(), name)[: N - 1]
    with pytest.raises(MedclError, match=rf"6 ids, but 5 entries in {name}"):
        dataclasses.replace(made(), **{name: value})
