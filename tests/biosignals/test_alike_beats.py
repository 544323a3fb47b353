"""Soft contrast of beats: the targets are the stated kernel, and it learns from real beats."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch

from medcl.errors import UsageError
from medcl.methods.contract import State, after_step
from medcl_biosignals.dataset import dataset
from medcl_biosignals.encoders.resnet import resnet1d
from medcl_biosignals.likeness import likeness
from medcl_biosignals.methods.alike_beats import AlikeBeats, description, redundancy
from medcl_biosignals.views import views

Prepared = tuple[pl.DataFrame, dict[str, dict[str, np.ndarray]]]


def batches(prepared: Prepared, size: int = 64) -> list[dict[str, torch.Tensor]]:
    items, store = prepared
    samples = dataset(items, store.__getitem__, kind="beat", seconds=2.0)
    order = np.random.default_rng(0).permutation(len(samples))
    return [
        {key: torch.from_numpy(value) for key, value in samples.read(which).items()}
        for which in order[: len(order) // size * size].reshape(-1, size)
    ]


def small() -> AlikeBeats:
    torch.manual_seed(0)
    encoder = resnet1d(widths=(8, 16), blocks=1, kernel=5, stride=4, pool="centre")
    return AlikeBeats(encoder, temperature=0.1, sigma=1.5, hidden=32, out=16)


def test_it_is_a_method_and_learns(prepared: Prepared) -> None:
    method = small()
    optimizer = torch.optim.AdamW(method.parameters(), lr=3e-3)
    augment, generator = views(fs=100.0), torch.Generator().manual_seed(0)
    losses = []
    for batch in batches(prepared)[:40]:
        x = [augment(batch["x"], generator, view.kind) for view in method.views]
        result = method.step(x, batch, State())
        assert result["embedding"].shape == (64, method.encoder.width)
        assert not result["embedding"].requires_grad
        optimizer.zero_grad()
        result["loss"].backward()
        optimizer.step()
        after_step(method, State())
        losses.append(result["loss"].item())
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


def test_the_loss_is_the_stated_one(prepared: Prepared) -> None:
    batch = batches(prepared)[0]
    method = small().eval()
    x = batch["x"]
    result = method.step([x, x.clone()], batch, State())
    h = method.encoder(x)
    z = method.projector(h)
    z = torch.nn.functional.normalize(z, dim=1)
    logits = z @ z.T / 0.1
    d = description(batch)
    exact = (-(torch.cdist(d, d) ** 2) / (2 * 1.5**2)).softmax(1)
    expected = -(exact * logits.log_softmax(1)).sum(1).mean()
    # The sphere is not quite flat: far pairs weigh a little more than the Gaussian says.
    assert result["contrast"].item() == pytest.approx(expected.item(), rel=0.02)
    miss = torch.nn.functional.smooth_l1_loss(method.describer(h), d)
    torch.testing.assert_close(result["miss"], miss)
    both = torch.cat([h, h])
    correlation = torch.corrcoef(both.T).nan_to_num()  # some units are dead at the start
    redundant = correlation.fill_diagonal_(0).square().sum() / len(correlation)
    torch.testing.assert_close(redundancy(both), redundant, rtol=1e-2, atol=1e-3)
    torch.testing.assert_close(
        result["loss"], result["contrast"] + 5 * miss + 0.3 * redundancy(both)
    )


def test_windows_are_refused_with_what_to_do(prepared: Prepared) -> None:
    items, store = prepared
    batch = dataset(items, store.__getitem__, seconds=2.0).read(np.arange(4))
    x = torch.from_numpy(batch["x"])
    with pytest.raises(UsageError, match="dataset.kind=beat"):
        small().step([x, x], {"x": x}, State())


def test_a_dead_lead_does_not_change_the_description(prepared: Prepared) -> None:
    batch = batches(prepared)[0]
    both = description(batch)
    assert both.shape == (64, 10)
    likeness = batch["likeness"].reshape(64, 6, 2)
    torch.testing.assert_close(both[:, 4:], likeness.mean(2))
    x = batch["x"].clone()
    x[:, 1] = 0
    one = description({**batch, "x": x})
    torch.testing.assert_close(one[:, 4:], likeness[..., 0])


def test_a_strange_beat_is_unlike_its_neighbours_and_they_unlike_it() -> None:
    t = np.arange(2000) / 100.0
    beats = np.arange(100, 2000, 80)
    x = np.zeros((2, 2000), dtype=np.float32)
    for number, beat in enumerate(beats):
        sign, width = (-2.0, 0.05) if number == 10 else (1.0, 0.02)
        x[0] += sign * np.exp(-((t - beat / 100) ** 2) / (2 * width**2))
    described = likeness(x, beats, 100.0)  # the second lead is dead
    assert described.shape == (len(beats), 12)
    np.testing.assert_allclose(described[:, 1::2], np.tile([1, 0, 0], (len(beats), 2)), atol=1e-5)
    first = described[:, ::2]  # correlation, power, height: before, then after
    np.testing.assert_allclose(first[5], [1, 0, 0, 1, 0, 0], atol=0.02)
    assert first[10, 0] < -0.5
    assert first[10, 1] > np.log(4)
    assert first[10, 2] == pytest.approx(np.log(2), abs=0.2)
    np.testing.assert_allclose(first[10, 3:], first[10, :3], atol=0.02)
    assert first[9, 4] == pytest.approx(-first[10, 1], abs=0.02)
    assert first[11, 1] == pytest.approx(-first[10, 1], abs=0.02)
    assert likeness(x, np.zeros(0, dtype=int), 100.0).shape == (0, 12)
    np.testing.assert_allclose(likeness(x, beats[:1], 100.0)[0, ::2], [1, 0, 0, 1, 0, 0], atol=1e-6)


def test_redundancy_is_zero_for_independent_dimensions() -> None:
    h = torch.randn(20_000, 8, generator=torch.Generator().manual_seed(0))
    assert redundancy(h).item() < 0.01
    assert redundancy(h[:, :1].expand(-1, 8)).item() == pytest.approx(7, rel=1e-3)
