"""The measures of a window in closed form, subsets of leads, and the method around them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from medcl.methods.contract import State
from medcl_biosignals.encoders.resnet import resnet1d
from medcl_biosignals.measured import measured, size
from medcl_biosignals.methods.described import Described, some_leads, standardised
from medcl_biosignals.views import views

FS = 100.0


def sine(hertz: float, height: float, seconds: float = 10.0, fs: float = FS) -> Tensor:
    return height * torch.sin(2 * math.pi * hertz * torch.arange(seconds * fs) / fs)


def of(x: Tensor, fs: float = FS) -> dict[str, Tensor]:
    """The parts of `measured` of one window (C, T), by name."""
    leads, values = len(x), measured(x[None], fs)[0]
    sizes = {
        "levels": 6 * leads,
        "slopes": 3 * leads,
        "deviation": leads,
        "skewness": leads,
        "kurtosis": leads,
        "powers": 8 * leads,
        "correlations": leads * (leads - 1) // 2,
        "rhythm": 60,
    }
    return dict(zip(sizes, values.split(list(sizes.values())), strict=True))


def test_a_sine_is_measured_as_the_book_says() -> None:
    got = of(torch.stack([sine(9.7, 0.5), sine(9.7, -2.0), sine(2, 1.0)]))
    assert got["deviation"].exp() == pytest.approx([0.5 / 2**0.5, 2 / 2**0.5, 1 / 2**0.5], abs=2e-3)
    highest = got["levels"].view(3, 6)[:, -1]
    assert highest == pytest.approx([0.5, 2.0, 1.0], rel=0.02)
    steepest = got["slopes"].view(3, 3)[:, -1]
    assert steepest == pytest.approx([2 * math.pi * f for f in (9.7 / 2, 9.7 * 2, 2)], rel=0.03)
    assert got["kurtosis"] == pytest.approx([1.5**0.5] * 3, rel=0.02)
    assert got["powers"].view(3, 8).argmax(dim=1).tolist() == [4, 4, 1]  # 8–12, 8–12, 1.5–3 Hz
    assert got["correlations"] == pytest.approx([-1, 0, 0], abs=0.02)


def test_beats_are_heard_at_their_interval() -> None:
    x = torch.zeros(2, 1000)
    x[:, 20::80] = 1.0  # every 0.8 s
    rhythm = of(x)["rhythm"]
    assert int(rhythm[:25].argmax()) == 15  # 16 · 0.05 s


@pytest.mark.parametrize("fs", [100.0, 250.0, 500.0])
def test_measures_do_not_depend_on_the_rate(fs: float) -> None:
    slow = torch.stack([sine(3, 1.0) + sine(1.2, 0.3), sine(7, 0.4)])
    fast = torch.stack([sine(3, 1.0, fs=fs) + sine(1.2, 0.3, fs=fs), sine(7, 0.4, fs=fs)])
    ours, theirs = of(slow), of(fast, fs)
    for name in ("levels", "deviation", "skewness", "kurtosis", "correlations"):
        assert theirs[name] == pytest.approx(ours[name], abs=0.03), name
    assert theirs["slopes"] == pytest.approx(ours["slopes"], rel=0.02)


@pytest.mark.parametrize("leads", [1, 2, 12])
def test_their_number_is_said(leads: int) -> None:
    x = torch.randn(3, leads, 700)
    x[1] = 0  # nothing recorded
    got = measured(x, FS)
    assert got.shape == (3, size(leads))
    assert got.isfinite().all()


def test_steps_keep_all_leads_or_some() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 12, 50)
    kept = torch.stack([some_leads(x, 0.5) for _ in range(2000)]).sum(dim=1)
    assert kept.min() == 1
    assert (kept == 12).float().mean() == pytest.approx(0.5, abs=0.04)
    assert (kept == 1).float().mean() == pytest.approx(0.25 + 0.25 / 11, abs=0.04)
    assert some_leads(x, 0.0).tolist() == [1] * 12
    assert some_leads(x[:, :1], 1.0).tolist() == [1]


def test_targets_are_standardised_and_bounded() -> None:
    torch.manual_seed(0)
    x = 5 + 3 * torch.randn(4096, 4)
    x[:, 3] = 7.0  # the same in all
    x[0, 0] = 1e6
    got = standardised(x)
    assert got[:, 1].mean() == pytest.approx(0, abs=1e-3)
    assert got[:, 1].std() == pytest.approx(1, abs=0.01)
    assert got.abs().max() == 4
    assert (got[:, 3] == 0).all()


def test_the_loss_is_contrast_and_the_weighted_miss() -> None:
    torch.manual_seed(0)
    method = Described(resnet1d(channels=3, widths=(8, 16), blocks=1), channels=3, describe=2.0)
    x = torch.randn(16, 3, 1000)
    batch = {"x": x, "patient": torch.arange(16)}
    made = views(fs=FS, piece=0.5)
    both = [made(x, torch.Generator().manual_seed(n)) for n in range(2)]
    assert both[0].shape == (16, 3, 500)
    got = method.step(both, batch, State())
    assert float(got["loss"]) == pytest.approx(float(got["contrast"] + 2 * got["miss"]), rel=1e-5)
    got["loss"].backward()
    assert all(p.grad is not None for p in method.parameters())


@pytest.mark.slow
def test_measures_can_be_learnt_from_a_piece() -> None:
    """Heights and rates differ between windows: predicting them beats their mean soon."""
    torch.manual_seed(0)
    height, hertz = torch.rand(64) + 0.2, 1 + torch.rand(64)
    t = torch.arange(1000) / FS
    x = (height[:, None] * torch.sin(2 * math.pi * hertz[:, None] * t).pow(9))[:, None]
    x = x + 0.01 * torch.randn_like(x)
    method = Described(
        resnet1d(channels=1, widths=(16, 32), blocks=1, stride=4, pool="meanmax"), channels=1
    )
    optimizer = torch.optim.AdamW(method.parameters(), lr=3e-3)
    made, misses = views(fs=FS, piece=0.5, noise=0.0, cutout=0.0, scale=0.0), []
    for n in range(60):
        both = [made(x, torch.Generator().manual_seed(2 * n + v)) for v in range(2)]
        got = method.step(both, {"x": x, "patient": torch.arange(64)}, State())
        optimizer.zero_grad()
        got["loss"].backward()
        optimizer.step()
        misses.append(float(got["miss"]))
    assert misses[-1] < 0.6 * misses[0]
