"""A function's signature is the schema of its recipe section."""

from __future__ import annotations

from typing import Literal

import pytest

from medcl.errors import UsageError
from medcl.registry import checked, lookup


def views(x: float, /, *, strength: float = 0.5, kind: Literal["a", "b"] = "a", size: int) -> float:
    return x * strength * size


def test_defaults_are_filled_in_and_types_are_coerced() -> None:
    assert checked(views, {"size": 3, "strength": 1}, "views") == {
        "strength": 1.0,
        "kind": "a",
        "size": 3,
    }


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": 1, "strenth": 2}, "Unknown key 'views.strenth'. Did you mean 'strength'?"),
        ({"size": 1, "x": 2}, "Unknown key 'views.x'"),
        ({}, "'views.size' is missing"),
        ({"size": "big"}, "'views.size' = 'big'"),
        ({"size": 1, "kind": "c"}, "'views.kind' = 'c'"),
    ],
)
def test_a_wrong_value_names_the_key(values: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        checked(views, values, "views")
    assert message in str(caught.value)


def test_a_class_is_checked_by_its_constructor() -> None:
    class Method:
        def __init__(self, encoder: object, *, temperature: float = 0.1) -> None: ...

    assert checked(Method, {}, "method") == {"temperature": 0.1}


def test_lookup_names_what_is_known() -> None:
    with pytest.raises(UsageError, match="Unknown loss 'zzz'. Known: simclr"):
        lookup({"simclr": "a:b"}, "zzz", "loss")
