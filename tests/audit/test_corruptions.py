"""Corruptions grow with their strength and are what they say; attacks stay in their ball."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from medcl.audit.attacks import attack
from medcl.audit.corruptions import CORRUPTIONS, STRENGTHS, corrupt
from medcl.errors import UsageError

SHAPES = [(4, 2, 50), (4, 1, 16, 20), (4, 1, 8, 10, 12)]


def _samples(shape: tuple[int, ...]) -> torch.Tensor:
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(1))
    for axis in range(2, x.ndim):
        x = x.cumsum(axis)  # smooth, as samples are
    return x / x.flatten(1).std(1).view(-1, *[1] * (x.ndim - 1))


def _made(name: str, x: torch.Tensor, strength: int) -> torch.Tensor:
    return corrupt(name, x, strength, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_grows_with_its_strength(name: str, shape: tuple[int, ...]) -> None:
    x = _samples(shape)
    assert torch.equal(_made(name, x, 0), x)
    off = []
    for strength in STRENGTHS:
        y = _made(name, x, strength)
        assert y.shape == x.shape
        assert torch.isfinite(y).all()
        assert torch.equal(y, _made(name, x, strength)), "not the same under one seed"
        off.append(float((y - x).square().mean()))
    assert off[0] > 0
    assert off[-1] > 1.5 * off[0]
    assert all(b > 0.8 * a for a, b in pairwise(off)), off


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_units_do_not_matter(name: str) -> None:
    x = _samples((4, 1, 16, 20))
    want = 100 * _made(name, x, 3) - 1000
    torch.testing.assert_close(_made(name, 100 * x - 1000, 3), want, rtol=1e-4, atol=1e-2)


def test_what_some_of_them_say() -> None:
    x = _samples((8, 1, 4000))
    noise = _made("noise", x, 5) - x
    torch.testing.assert_close(noise.flatten(1).std(1) / x.flatten(1).std(1), torch.full((8,), 0.8),
                               rtol=0.1, atol=0)  # fmt: skip
    flat = torch.full((1, 1, 30), 7.0)
    torch.testing.assert_close(_made("blur", flat, 5), flat)
    dull = _made("contrast", x, 3)
    torch.testing.assert_close(dull.flatten(1).std(1), x.flatten(1).std(1) * 0.5)
    hole = (_made("missing", x, 2) != x).float().mean((1, 2))
    torch.testing.assert_close(hole, torch.full((8,), 0.2), rtol=0.02, atol=0)
    spiked = (_made("spikes", x, 5) != x).float().mean()
    assert float(spiked) == pytest.approx(0.08, abs=0.01)


def test_wrong_names_and_strengths() -> None:
    x = torch.zeros(1, 1, 4)
    with pytest.raises(UsageError, match="Did you mean 'noise'"):
        _made("noisy", x, 1)
    with pytest.raises(UsageError, match="1 to 5"):
        _made("noise", x, 6)


def test_attacks_on_digits() -> None:
    pixels, classes = load_digits(return_X_y=True)
    x = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8) / 16
    y = torch.tensor(classes)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    adam = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(150):
        adam.zero_grad()
        nn.functional.cross_entropy(model(x[:1200]), y[:1200]).backward()
        adam.step()
    x, y = x[1200:], y[1200:]

    def accuracy(inputs: torch.Tensor) -> float:
        return float((model(inputs).argmax(1) == y).float().mean())

    std = x.flatten(1).std(1, correction=0).view(-1, 1, 1, 1)
    clean = accuracy(x)
    assert clean > 0.85
    assert torch.equal(attack(model, x, y, epsilon=0.0), x)
    after = {}
    for how in ("fgsm", "pgd"):
        generator = torch.Generator().manual_seed(0)
        moved = attack(model, x, y, epsilon=0.3, how=how, generator=generator)  # type: ignore[arg-type]
        assert float(((moved - x).abs() / std).max()) <= 0.3 + 1e-5
        after[how] = accuracy(moved)
    random = x + 0.3 * std * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).sign()
    assert after["pgd"] <= after["fgsm"] < accuracy(random) - 0.2
    assert np.isfinite(list(after.values())).all()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())
