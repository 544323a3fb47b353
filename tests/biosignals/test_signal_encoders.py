"""One contract for all 1D encoders."""

from __future__ import annotations

import inspect

import pytest
import torch

from medcl.registry import parameters, resolve
from medcl_biosignals.plugin import plugin

ENCODERS = sorted(plugin.encoders)


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize(("channels", "length"), [(1, 64), (2, 300), (12, 1001)])
def test_any_length_and_number_of_channels(name: str, channels: int, length: int) -> None:
    encoder = resolve(plugin.encoders[name])(channels=channels).eval()
    x = torch.randn(3, channels, length, generator=torch.Generator().manual_seed(0))
    out = encoder(x)
    assert out.shape == (3, encoder.width)
    assert out.isfinite().all()
    torch.testing.assert_close(encoder(x[1:2]), out[1:2], atol=1e-4, rtol=1e-4)
    encoder.train()(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("pool", ["mean", "max", "meanmax", "centre"])
@pytest.mark.parametrize("norm", ["batch", "group", "layer"])
def test_every_pooling_and_norm(name: str, pool: str, norm: str) -> None:
    encoder = resolve(plugin.encoders[name])(pool=pool, norm=norm)
    assert encoder(torch.randn(2, 2, 200)).shape == (2, encoder.width)


@pytest.mark.parametrize("name", ENCODERS)
def test_the_same_seed_gives_the_same_encoder(name: str) -> None:
    made = []
    for _ in range(2):
        torch.manual_seed(3)
        made.append(resolve(plugin.encoders[name])().state_dict())
    assert all(torch.equal(made[0][key], made[1][key]) for key in made[0])


@pytest.mark.parametrize("name", ENCODERS)
def test_the_documented_number_of_parameters(name: str) -> None:
    factory = resolve(plugin.encoders[name])
    millions = sum(p.numel() for p in factory().parameters()) / 1e6
    assert f"{millions:.2f} M by default" in (inspect.getdoc(factory) or "")
    assert all(p.default is not inspect.Parameter.empty for p in parameters(factory).values())


@pytest.mark.parametrize("name", ENCODERS)
def test_pooling_at_the_centre_sees_which_beat_is_meant(name: str) -> None:
    encoder = resolve(plugin.encoders[name])(pool="centre").eval()
    x = torch.zeros(1, 2, 400)
    x[..., 195:205] = 1
    moved = x.roll(120, dims=-1)
    mean = resolve(plugin.encoders[name])(pool="mean").eval()
    near = (mean(x) - mean(moved)).norm() / mean(x).norm()
    far = (encoder(x) - encoder(moved)).norm() / encoder(x).norm()
    assert far > 2 * near
