"""The monitors on embeddings whose answer is known, and against naive versions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from sklearn.datasets import load_digits
from sklearn.metrics import balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier

from medcl.engine.monitors import (
    alignment,
    effective_rank,
    embedding_std,
    lidar,
    rankme,
    spread,
    uniformity,
    verdict,
)
from medcl.engine.online_probes import knn, linear


def gaussian(n=4000, d=64, rank=None):
    random = torch.Generator().manual_seed(0)
    z = torch.randn(n, rank or d, generator=random)
    return z if rank is None else z @ torch.linalg.qr(torch.randn(d, d, generator=random))[0][:rank]


def test_a_sphere_is_healthy():
    z = gaussian()
    assert float(embedding_std(z)) == pytest.approx(1 / math.sqrt(64), rel=0.02)
    assert float(spread(z)) == pytest.approx(1, rel=0.02)
    assert 60 < float(effective_rank(z)) <= 64
    assert float(uniformity(z)) == pytest.approx(-4 * (1 - 1 / 64), rel=0.03)
    assert verdict(float(spread(z)), float(effective_rank(z)), first=0.3) is None


def test_a_point_is_collapsed():
    z = torch.ones(100, 64)
    assert float(spread(z)) < 1e-6
    assert float(effective_rank(z)) == 0
    assert float(uniformity(z)) == pytest.approx(0, abs=1e-5)
    assert "collapsed" in verdict(float(spread(z)), float(effective_rank(z)), first=0.3)


def test_effective_rank_counts_dimensions_in_use():
    assert float(effective_rank(gaussian(rank=8))) == pytest.approx(8, rel=0.05)
    line = torch.outer(torch.linspace(-1, 1, 100).sign(), torch.ones(16))
    assert float(effective_rank(line)) == pytest.approx(1, abs=1e-3)
    assert "fewer than two dimensions" in verdict(float(spread(line)), 1.0, first=0.3)


def test_an_untrained_encoder_with_close_embeddings_is_not_called_collapsed():
    assert verdict(0.08, 20.0, first=0.08) is None


def test_alignment_and_uniformity_equal_naive_ones():
    x, y = gaussian(50, 8), gaussian(100, 8)[50:]
    a = (x / x.norm(dim=1, keepdim=True)).double().numpy()
    b = (y / y.norm(dim=1, keepdim=True)).double().numpy()
    squared = [sum((p - q) ** 2) for p, q in zip(a, b, strict=True)]
    assert float(alignment(x, y)) == pytest.approx(np.mean(squared), rel=1e-5)
    expected = math.log(np.exp(-2 * pdist(a) ** 2).mean())
    assert float(uniformity(x)) == pytest.approx(expected, rel=1e-5)


def test_monitors_take_half_precision_and_give_no_gradient():
    z = gaussian(64, 16).bfloat16().requires_grad_()
    for value in (spread(z), effective_rank(z), uniformity(z), alignment(z, z)):
        assert value.dtype == torch.float32
        assert not value.requires_grad


def test_knn_equals_scikit_learn_on_digits():
    digits = load_digits()
    x, y = torch.tensor(digits.data).float(), torch.tensor(digits.target)
    bank, query = slice(0, 1000), slice(1000, None)

    def weights(distance):  # cosine distance
        return np.exp(-distance / 0.07)

    theirs = KNeighborsClassifier(20, metric="cosine", weights=weights).fit(x[bank], y[bank])
    expected = balanced_accuracy_score(y[query], theirs.predict(x[query]))
    mine = knn(x[bank], y[bank], x[query], y[query], neighbours=20)
    assert mine == pytest.approx(expected, abs=1e-6)
    assert expected > 0.9


def test_rankme_is_the_papers():
    """Against numpy, of embeddings that are neither centred nor of unit length."""
    x = gaussian(200, 12) * torch.arange(1, 13) + 3
    sigma = np.linalg.svd(x.double().numpy(), compute_uv=False)
    p = sigma / sigma.sum() + 1e-7
    assert float(rankme(x)) == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-4)
    assert float(rankme(torch.ones(100, 16))) == pytest.approx(1, abs=1e-3)
    assert float(rankme(gaussian(rank=8))) == pytest.approx(8, rel=0.05)


def test_lidar_counts_directions_that_tell_samples_apart():
    """Five directions differ between samples, all sixteen between views."""
    random = torch.Generator().manual_seed(0)
    sample = torch.zeros(600, 16)
    sample[:, :5] = 3 * torch.randn(600, 5, generator=random)
    noise = 0.1 * torch.randn(2, 600, 16, generator=random)
    z = (sample + noise).double().numpy()
    mean = z.mean(0)
    within = (z - mean).reshape(-1, 16)
    s_w = within.T @ within / len(within) + 1e-4 * np.eye(16)
    s_b = np.cov(mean.T, bias=True)
    value, vector = np.linalg.eigh(s_w)
    root = vector @ np.diag(value**-0.5) @ vector.T
    lam = np.linalg.eigvalsh(root @ s_b @ root)
    p = lam / lam.sum() + 1e-7
    found = float(lidar(sample + noise))
    assert found == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-4)
    assert found == pytest.approx(5, rel=0.1)
    assert float(rankme((sample + noise)[0])) > 5


def test_lidar_of_a_collapsed_encoder_is_finite():
    assert math.isfinite(float(lidar(torch.ones(2, 30, 8))))


def test_the_linear_probe_is_a_logistic_regression_on_standardised_features():
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    digits = load_digits()
    x, y = torch.tensor(digits.data).float(), torch.tensor(digits.target)
    bank, query = slice(0, 600), slice(600, 1000)
    theirs = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced"))
    theirs.fit(x[bank], y[bank])
    expected = balanced_accuracy_score(y[query], theirs.predict(x[query]))
    assert linear(x[bank], y[bank], x[query], y[query]) == pytest.approx(expected, abs=0.01)
    assert expected > 0.85
