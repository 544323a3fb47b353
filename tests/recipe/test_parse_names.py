"""Names of earlier versions in a recipe still open."""

from __future__ import annotations

import pytest

from medcl.errors import MedclWarning, UsageError
from medcl.recipe import Recipe, parse


def test_hand_crafted_features_by_their_earlier_name() -> None:
    raw = {
        "name": "x",
        "plugin": "biosignals",
        "encoder": {"name": "resnet1d"},
        "method": {"name": "simclr"},
        "probe": {"baselines": ["handmade"]},
    }
    assert parse(raw).probe.baselines == ("handcrafted",)


def with_labels(finetune: dict[str, object], *overrides: str) -> Recipe:
    return parse(
        {
            "name": "x",
            "plugin": "biosignals",
            "encoder": {"name": "resnet1d"},
            "classifier": {"name": "full"},
            "finetune": {"label": "sex", **finetune},
        },
        overrides,
    )


def test_auxiliary_targets_by_their_earlier_name() -> None:
    age = {"age": {"weight": 0.1, "noisy": True}}
    now = with_labels({"auxiliary": age})
    assert now.finetune.auxiliary["age"].weight == 0.1
    with pytest.warns(MedclWarning, match="finetune.also is called finetune.auxiliary now"):
        assert with_labels({"also": age}) == now
    with pytest.warns(MedclWarning, match="finetune.auxiliary now"):
        changed = with_labels({"auxiliary": age}, "finetune.also.age.weight=0.2")
    assert changed.finetune.auxiliary["age"].weight == 0.2
    assert changed.finetune.auxiliary["age"].noisy, "the rest of it stays"
    with pytest.warns(MedclWarning, match="finetune.auxiliary now"):
        replaced = with_labels({"also": age}, "finetune.also={size: {}}")
    assert list(replaced.finetune.auxiliary) == ["size"]
    with pytest.raises(UsageError, match="earlier name of finetune.auxiliary: give the latter"):
        with_labels({"also": age, "auxiliary": age})


@pytest.mark.filterwarnings("error::medcl.errors.MedclWarning")
def test_the_earlier_name_without_targets_is_no_message() -> None:
    assert with_labels({"also": {}}).finetune.auxiliary == {}
