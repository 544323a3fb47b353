"""Methods of signals, each by a check of its own: what it must tell apart, and by which formula."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from medcl.errors import UsageError
from medcl.methods.contract import State
from medcl.methods.unicon import UniCon, scrambled
from medcl.objectives.nt_xent import nt_xent
from medcl.objectives.unilateral_contrast import unilateral_contrast
from medcl_biosignals.encoders.resnet import resnet1d
from medcl_biosignals.encoders.towers import two_towers
from medcl_biosignals.encoders.vit import vit1d
from medcl_biosignals.methods.cross_modal import CrossModal
from medcl_biosignals.methods.forecast import Forecast
from medcl_biosignals.methods.order import OrderAware
from medcl_biosignals.methods.quantised import Quantised

BATCH = {"patient": torch.arange(8)}


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def small() -> torch.nn.Module:
    torch.manual_seed(0)
    return resnet1d(channels=1, widths=(8, 16), blocks=1, kernel=3)


def test_order_aware_of_halves_that_are_one_is_log_two() -> None:
    method = OrderAware(small(), hidden=16, out=8).eval()
    half = drawn(8, 1, 64)
    twice = torch.cat([half, half], dim=2)
    found = method.step([twice, twice], BATCH, State())
    assert found["order"].item() == pytest.approx(0.6931, abs=1e-4)  # both orders are the same
    z = method.projector(method.encoder(twice))
    contrast = nt_xent(z, z, temperature=0.1, group=BATCH["patient"])
    torch.testing.assert_close(found["loss"], contrast + found["order"])


def test_forecast_of_a_window_that_stands_still_is_what_persistence_foretells() -> None:
    method = Forecast(small(), contrast=0.25, channels=1, cosines=4, hidden=16, out=8).eval()
    past = drawn(8, 1, 80)
    x = torch.cat([past, past[..., -1:].expand(-1, -1, 20)], dim=2)
    found = method.step([x, x, x], BATCH, State())
    assert found["persistence"].item() == pytest.approx(0.0, abs=1e-9)
    expected = 0.75 * found["forecast"] + 0.25 * found["contrast"]
    torch.testing.assert_close(found["loss"], expected)


def test_quantised_targets_are_entries_of_the_codebooks() -> None:
    torch.manual_seed(0)
    encoder = vit1d(channels=1, patch=8, width=16, depth=1, heads=2)
    method = Quantised(encoder, groups=2, entries=4, out=6, width=16, depth=1, heads=2).eval()
    quantised, codes, soft = method.quantiser(drawn(3, 5, 8), 1.0)
    book, out = method.quantiser.book, method.quantiser.out
    for b in range(3):
        for n in range(5):
            picked = torch.cat([book[g, codes[b, n, g]] for g in range(2)])
            torch.testing.assert_close(quantised[b, n], out(picked))
    torch.testing.assert_close(soft.sum(-1), torch.ones(3, 5, 2))
    assert torch.equal(soft.argmax(-1), codes)
    found = method.step([drawn(8, 1, 64)], BATCH, State())
    assert 0 < found["used"] <= 1


def test_cross_modal_is_clip_of_the_windows_and_of_the_recordings() -> None:
    torch.manual_seed(0)
    method = CrossModal(two_towers(channels=2, widths=(8, 16), width=32), hidden=16, out=8).eval()
    x, patient = drawn(8, 2, 128), torch.arange(8) // 2
    found = method.step([x], {"patient": patient}, State())
    a, b = (
        F.normalize(head(part), dim=1)
        for head, part in zip(method.projectors, method.encoder.both(x), strict=True)
    )

    def both_ways(a: Tensor, b: Tensor) -> Tensor:
        s, at = a @ b.T / 0.07, torch.arange(len(a))
        return (F.cross_entropy(s, at) + F.cross_entropy(s.T, at)) / 2

    torch.testing.assert_close(found["windows"], both_ways(a, b))
    one, other = (F.normalize(z.view(4, 2, -1).sum(1), dim=1) for z in (a, b))
    torch.testing.assert_close(found["recordings"], both_ways(one, other))
    torch.testing.assert_close(found["loss"], found["windows"] + found["recordings"])
    with pytest.raises(UsageError, match="two-towers"):
        CrossModal(small())


def test_cross_modal_contrasts_earlier_stages_of_both_towers() -> None:
    torch.manual_seed(0)
    towers = two_towers(channels=2, widths=(8, 16, 24), width=32)
    method = CrossModal(towers, hidden=16, out=8, depths=2, hierarchy=0.5).eval()
    x, patient = drawn(6, 2, 128), torch.arange(6)
    found = method.step([x], {"patient": patient}, State())
    expected = torch.zeros(())
    for stage, heads in zip((1, 2), method.depth_projectors, strict=True):
        a, b = (
            F.normalize(head(tower.stages(x[:, n : n + 1])[stage].mean(2)), dim=1)
            for n, (head, tower) in enumerate(
                zip(heads, (towers.first, towers.second), strict=True)
            )
        )
        s, at = a @ b.T / 0.07, torch.arange(6)
        expected = expected + (F.cross_entropy(s, at) + F.cross_entropy(s.T, at)) / 2
    torch.testing.assert_close(found["depths"], expected)
    torch.testing.assert_close(
        found["loss"], found["windows"] + found["recordings"] + 0.5 * found["depths"]
    )
    with pytest.raises(UsageError, match="between 0 and 3"):
        CrossModal(towers, depths=4)


def test_unicon_takes_scrambled_windows_for_outliers_and_stronger_views_deeper() -> None:
    method = UniCon(small(), hidden=16, out=8, pieces=4).eval()
    x, views = drawn(8, 1, 64), [drawn(8, 1, 64) + 1, drawn(8, 1, 64) - 1]
    torch.manual_seed(3)
    found = method.step([x, *views], BATCH, State())["loss"]
    torch.manual_seed(3)
    outliers = scrambled(torch.cat(views), 4)
    losses = []
    for stage, share in enumerate((0.5, 1.0)):
        normal = torch.cat([x + share * (view - x) for view in views])
        inside, outside = (
            method.projectors[stage](method._stage(part, stage)).chunk(2)
            for part in (normal, outliers)
        )
        soft = 0.5 if stage == 1 else None
        losses.append(
            unilateral_contrast(*inside, *outside, temperature=0.5, soft_temperature=soft)
        )
    torch.testing.assert_close(found, torch.stack(losses).mean())
