"""SupCon with labels partly missing, and its schedule."""

import digits
import pytest
import torch

from medcl.methods.contract import State
from medcl.methods.supcon import SupCon
from medcl.objectives.supcon import supcon


def method(**settings: object) -> SupCon:
    torch.manual_seed(0)
    return SupCon(digits.cnn(), hidden=16, out=8, **settings)  # type: ignore[arg-type]


def test_labelled_samples_alone_make_the_supervised_term():
    x, batch = digits.draw(32)
    labels = batch["label"]
    one = method()
    result = one.step([x, x], batch, State())
    z = one.projector(one.encoder(torch.cat([x, x])))
    known = labels.repeat(2) >= 0
    torch.testing.assert_close(
        result["loss"], supcon(z[known], labels.repeat(2)[known]), rtol=1e-4, atol=1e-5
    )


def test_without_any_label_only_the_self_supervised_term_teaches():
    x, batch = digits.draw(32)
    batch["label"] = torch.full((32,), torch.nan)
    assert method().step([x, x], batch, State())["loss"].item() == 0.0
    mixed = method(self_supervised=(0.5, 0.5)).step([x, x], batch, State())
    torch.testing.assert_close(mixed["loss"].detach(), 0.5 * mixed["self_supervised"])
    assert mixed["supervised"] == 0.0


def test_the_mix_follows_its_curve():
    x, batch = digits.draw(32)
    for step, weight in ((0, 1.0), (50, 0.75), (100, 0.0)):
        one = method(self_supervised=(1.0, 0.0), curve="parabolic")
        result = one.step([x, x], batch, State(step, 100))
        mix = (1 - weight) * result["supervised"] + weight * result["self_supervised"]
        assert result["loss"].item() == pytest.approx(mix.item(), rel=1e-5)
