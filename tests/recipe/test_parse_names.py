"""Names of earlier versions in a recipe still open."""

from __future__ import annotations

from medcl.recipe import parse


def test_hand_crafted_features_by_their_earlier_name() -> None:
    raw = {
        "name": "x",
        "plugin": "biosignals",
        "encoder": {"name": "resnet1d"},
        "method": {"name": "simclr"},
        "probe": {"baselines": ["handmade"]},
    }
    assert parse(raw).probe.baselines == ("handcrafted",)
