"""Nearest neighbours: tiled equals whole, own patients stay out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.neighbors import NearestNeighbors

from medcl.embeddings import knn as module
from medcl.embeddings.knn import knn, neighbours


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    x, y = load_digits(return_X_y=True)
    return x.astype(np.float32), y


def test_it_finds_what_scikit_learn_finds(digits: tuple[np.ndarray, np.ndarray]) -> None:
    x, _ = digits
    near, where = neighbours(x[:100], x[100:], k=7)
    distance, expected = (
        NearestNeighbors(n_neighbors=7, metric="cosine").fit(x[100:]).kneighbors(x[:100])
    )
    np.testing.assert_allclose(1 - near, distance, atol=1e-5)
    assert (where == expected).mean() > 0.99  # equal distances may come in either order


def test_tiles_do_not_matter(
    digits: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    x, _ = digits
    whole = neighbours(x[:50], x[50:500], k=5)
    monkeypatch.setattr(module, "TILE", (7, 31))
    tiled = neighbours(x[:50], x[50:500], k=5)
    np.testing.assert_allclose(whole[0], tiled[0], atol=1e-6)
    np.testing.assert_array_equal(whole[1], tiled[1])


@pytest.mark.parametrize("columns", [255, 256, 259, 1000, 2049, 4103])
@pytest.mark.parametrize("k", [1, 5, 20, 64])
def test_largest_by_blocks_are_the_largest(columns: int, k: int) -> None:
    products = torch.randn(9, columns, generator=torch.Generator().manual_seed(columns))
    products[0, 100:] = -torch.inf  # fewer others than neighbours asked for, where k is larger
    near, where = module._largest(products, k)
    torch.testing.assert_close(near, products.topk(k, dim=1).values, rtol=0, atol=0)
    torch.testing.assert_close(products.gather(1, where), near, rtol=0, atol=0)
    assert all(len(set(row.tolist())) == k for row in where)


def test_votes_are_weighted_by_similarity() -> None:
    bank = np.array([[1, 0], [0.8, 0.6], [0, 1]], np.float32)
    targets = np.array([[1.0], [2.0], [4.0]])
    found = knn(bank[:1], bank, targets, k=3, temperature=0.5)
    weight = np.exp(np.array([1, 0.8, 0]) / 0.5)
    assert found[0, 0] == pytest.approx((weight * targets[:, 0]).sum() / weight.sum(), rel=1e-5)
    unknown = np.array([[1.0], [np.nan], [4.0]])
    found = knn(bank[:1], bank, unknown, k=3, temperature=0.5)
    assert found[0, 0] == pytest.approx((weight[0] + 4 * weight[2]) / (weight[0] + weight[2]))


def test_the_same_patient_does_not_vote(digits: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = digits
    groups = np.arange(len(x)) // 100
    _, where = neighbours(x, x, k=5, query_groups=groups, bank_groups=groups)
    assert (groups[where] != groups[:, None]).all()
    onehot = np.eye(10)[y]
    self_seen = knn(x, x, onehot, k=1).argmax(1)
    assert (self_seen == y).all()  # a trivial answer: each finds itself
    honest = knn(x, x, onehot, k=1, query_groups=groups, bank_groups=groups).argmax(1)
    assert 0.9 < (honest == y).mean() < 1


def test_where_nobody_may_vote_the_mean_answers() -> None:
    x = np.eye(3, dtype=np.float32)
    same = np.zeros(3)
    found = knn(x, x, np.array([[0.0], [3.0], [6.0]]), k=2, query_groups=same, bank_groups=same)
    np.testing.assert_allclose(found, 3)
