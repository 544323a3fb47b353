"""PaPaGei-S against its formulas, written out one window at a time with scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.integrate import trapezoid
from scipy.signal import argrelmin
from scipy.stats import skew

from medcl.errors import UsageError
from medcl.methods.contract import State, View
from medcl_biosignals.encoders.hong import preact_resnet1d
from medcl_biosignals.methods.papagei import Mixture, PaPaGeiS, binned, binned_contrast
from medcl_biosignals.morphology import ipa, minima, sqi, svri

FS = 50.0


def waves(count: int = 24, seconds: float = 10.0, seed: int = 0) -> torch.Tensor:
    """Synthetic pulse waves (count, T): a beat and its reflection, with wander and noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * FS)) / FS
    made = []
    for _ in range(count):
        rate, late, size = rng.uniform(0.8, 1.8), rng.uniform(0.25, 0.4), rng.uniform(0.2, 0.7)
        phase = (t * rate + rng.uniform(0, 1)) % 1
        beat = np.exp(-(((phase - 0.2) / 0.09) ** 2))
        again = size * np.exp(-(((phase - 0.2 - late) / 0.11) ** 2))
        wander = rng.uniform(0, 0.3) * np.sin(2 * np.pi * 0.2 * t)
        wave = beat + again + wander + rng.uniform(0, 0.02) * rng.standard_normal(len(t))
        made.append((wave - wave.mean()) / wave.std())
    return torch.tensor(np.stack(made))


def naive_svri(x: np.ndarray) -> float:
    scaled = (x - x.min()) / (x.max() - x.min())
    peak = int(np.argmax(x))
    return float(scaled[peak:].mean() / scaled[:peak].mean()) if peak > 0 else np.nan


def naive_ipa(x: np.ndarray) -> float:
    feet = argrelmin(x, order=int(FS) // 5)[0]
    if len(feet) < 2:
        return 0.0
    beat = x[feet[0] : feet[1]]
    notches = argrelmin(beat)[0]
    if not len(notches):
        return 0.0
    return float(trapezoid(beat[: notches[0]]) / trapezoid(beat[notches[0] :]))


def test_the_three_numbers_are_those_of_the_authors() -> None:
    x = waves()
    np.testing.assert_allclose(svri(x).numpy(), [naive_svri(each) for each in x.numpy()], rtol=1e-9)
    want = [naive_ipa(each) for each in x.numpy()]
    assert sum(value != 0 for value in want) > 12  # most have a beat with a notch
    np.testing.assert_allclose(ipa(x, FS).numpy(), want, rtol=1e-8)
    size = round(5 * FS)
    want = [np.mean([skew(each[:size]), skew(each[size:])]) for each in x.numpy()]
    np.testing.assert_allclose(sqi(x, FS).numpy(), want, rtol=1e-8)


@pytest.mark.parametrize("order", [1, 3, 10])
def test_minima_are_scipys(order: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 6, (20, 60)).astype(float)  # with ties, and at the ends
    marks = minima(torch.tensor(x), order).numpy()
    for row, mark in zip(x, marks, strict=True):
        assert np.flatnonzero(mark).tolist() == argrelmin(row, order=order)[0].tolist()


def test_windows_without_a_shape_say_so() -> None:
    t = torch.arange(500) / FS
    still, falling, one = torch.zeros(500), -t, -(t - 5).abs()  # no foot, no beat
    x = torch.stack([still, falling, one])
    assert svri(x).isnan().tolist() == [True, True, False]
    assert ipa(x, FS).tolist() == [0.0, 0.0, 0.0]
    assert sqi(x, FS)[0] == 0
    assert sqi(x, FS).isfinite().all()
    assert binned(svri(x), 8, 0.0).tolist()[:2] == [-1, -1]


def test_bins_are_equal_parts_of_the_range() -> None:
    values = torch.tensor([0.0, 0.1, 0.3, 0.5, 0.74, 0.76, 1.0, torch.nan])
    assert binned(values, 4, 0.0).tolist() == [0, 0, 1, 2, 2, 3, 3, -1]
    many = torch.cat([torch.linspace(0, 1, 99), torch.tensor([1000.0])])  # an artefact
    assert len(binned(many, 4, 0.0).unique()) == 2
    assert len(binned(many, 4, 0.02).unique()) == 4
    assert binned(torch.ones(5), 4, 0.01).tolist() == [0] * 5
    assert binned(torch.full((3,), torch.nan), 4, 0.01).tolist() == [-1] * 3


def naive_contrast(z, bins, tau, group=None) -> float:
    """NTXentLoss of pytorch-metric-learning: a mean over pairs, each with its own denominator."""
    z = torch.nn.functional.normalize(z.double(), dim=1)
    losses = []
    for a in range(len(z)):
        shown = [
            n for n in range(len(z)) if bins[n] not in (-1, bins[a]) and
            (group is None or group[n] != group[a])
        ]  # fmt: skip
        negatives = sum(torch.exp(z[a] @ z[n] / tau) for n in shown)
        for p in range(len(z)):
            if p != a and bins[a] == bins[p] != -1:
                own = torch.exp(z[a] @ z[p] / tau)
                losses.append(-torch.log(own / (own + negatives)))
    return float(sum(losses) / len(losses))


def test_the_contrast_is_pair_by_pair() -> None:
    torch.manual_seed(0)
    z, bins = torch.randn(20, 6, dtype=torch.double), torch.randint(-1, 4, (20,))
    for group in (None, torch.randint(0, 5, (20,))):
        made = binned_contrast(z.float(), bins, temperature=0.07, group=group)
        assert made.item() == pytest.approx(naive_contrast(z, bins, 0.07, group), rel=1e-4)
    leaf = torch.randn(6, 3, requires_grad=True)
    for alone in (torch.arange(6), torch.zeros(6).long(), torch.full((6,), -1)):
        loss = binned_contrast(leaf, alone, temperature=0.07)
        assert loss == 0  # no pair, or no negative
        (gradient,) = torch.autograd.grad(loss, leaf)
        assert (gradient == 0).all()


def test_the_loss_weighs_its_three_parts() -> None:
    torch.manual_seed(0)
    encoder = preact_resnet1d(channels=1, base=4, blocks=4, width=8, dropout=0.0)
    method = PaPaGeiS(encoder, fs=FS, trim=0.0, dropout=0.0, mask_same_patient=False).eval()
    assert method.views == (View(), View("none"))
    x = waves(16).float()[:, None]
    seen = x + 0.1 * torch.randn_like(x)
    got = method.step([seen, x], {"patient": torch.zeros(16).long()}, State())
    h = encoder(seen).detach()
    index = np.array([naive_svri(each) for each in x[:, 0].double().numpy()])
    edges = np.linspace(index.min(), index.max(), 9)
    bins = torch.tensor(np.clip(np.digitize(index, edges) - 1, 0, 7))
    contrast = naive_contrast(h, bins, 0.07)
    of_ipa = (method.of_ipa(h) - ipa(x[:, 0], FS)).abs().mean().item()
    of_sqi = (method.of_sqi(h) - sqi(x[:, 0], FS)).abs().mean().item()
    assert got["contrast"].item() == pytest.approx(contrast, rel=1e-4)
    want = 0.6 * contrast + 0.2 * of_ipa + 0.2 * of_sqi
    assert got["loss"].item() == pytest.approx(want, rel=1e-4)
    assert got["bins"] == len(bins.unique())


def test_experts_are_mixed_by_the_gate() -> None:
    torch.manual_seed(0)
    mixture, h = Mixture(6, 3).eval(), torch.randn(5, 6)
    with torch.no_grad():
        gate = torch.softmax(h @ mixture.gate.weight.T + mixture.gate.bias, dim=1)
        want = sum(gate[:, k] * mixture.experts[k](h)[:, 0] for k in range(3))
        torch.testing.assert_close(mixture(h), want)


def test_one_channel_is_needed() -> None:
    method = PaPaGeiS(preact_resnet1d(channels=2, base=4, blocks=2, width=8), fs=FS)
    x = torch.randn(4, 2, 500)
    with pytest.raises(UsageError, match=r"one slot in prepare\.leads"):
        method.step([x, x], {"patient": torch.arange(4)}, State())
