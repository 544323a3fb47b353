"""The graph of tiles, its convolution, and what it can be trained with."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from medcl_pathology.mil.bags import Bags
from medcl_pathology.mil.graph import GraphConv, neighbours
from medcl_pathology.mil.graph_losses import (
    Communities,
    Reconstruction,
    modularity,
    scaled_cosine_error,
)

SIZES = st.lists(st.integers(1, 12), min_size=1, max_size=4)


def synthetic_tiles(counts: list[int], seed: int = 0, grid: bool = False) -> Bags:
    generator = torch.Generator().manual_seed(seed)
    bag = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    coords = torch.rand(len(bag), 2, generator=generator)
    if grid:  # tiles of one bag in different places, many of them equally far away
        each = [torch.randperm(16, generator=generator)[:n] for n in counts]
        cell = torch.cat(each)
        coords = torch.stack((cell // 4, cell % 4), 1) * 256.0
    x = torch.randn(len(bag), 5, generator=generator)
    return Bags(x, bag, len(counts), coords=coords)


@settings(max_examples=40)
@given(SIZES, st.integers(1, 9), st.integers(0, 999))
def test_neighbours_are_the_nearest_of_the_same_bag(counts: list[int], k: int, seed: int) -> None:
    bags = synthetic_tiles(counts, seed)
    graph = neighbours(bags, k)
    assert bags.coords is not None
    for i, row in enumerate(graph.tolist()):
        mates = [j for j in range(len(bags.x)) if bags.bag[j] == bags.bag[i] and j != i]
        far = {j: float((bags.coords[i] - bags.coords[j]).norm()) for j in mates}
        nearest = sorted(mates, key=far.__getitem__)[:k]
        assert row == nearest + [i] * (k - len(nearest))


@pytest.mark.parametrize("grid", [False, True])
@settings(max_examples=20)
@given(counts=SIZES, seed=st.integers(0, 999))
def test_messages_do_not_depend_on_the_order_of_tiles(
    grid: bool, counts: list[int], seed: int
) -> None:
    bags = synthetic_tiles(counts, seed, grid)
    assert bags.coords is not None
    starts = torch.tensor([0, *counts]).cumsum(0).tolist()
    order = torch.cat([torch.randperm(n) + s for n, s in zip(counts, starts, strict=False)])
    other = Bags(bags.x[order], bags.bag, bags.count, coords=bags.coords[order])
    torch.manual_seed(0)
    conv = GraphConv(5, 3)
    one = conv(bags.x, neighbours(bags, 4))[order]
    torch.testing.assert_close(one, conv(other.x, neighbours(other, 4)))


def test_a_tile_without_a_place_or_alone_has_only_itself() -> None:
    coords = torch.tensor([[0.0, 0.0], [torch.nan, 0.0], [1.0, 0.0], [5.0, 5.0]])
    bags = Bags(torch.zeros(4, 1), torch.tensor([0, 0, 0, 1]), 2, coords=coords)
    assert neighbours(bags, 2).tolist() == [[2, 0], [1, 1], [0, 2], [3, 3]]


def test_tiles_in_one_place_are_neighbours_of_each_other() -> None:
    bags = Bags(torch.zeros(5, 1), torch.zeros(5).long(), 1, coords=torch.zeros(5, 2))
    for i, row in enumerate(neighbours(bags, 3).tolist()):
        assert i not in row
        assert len(set(row)) == 3


def test_the_convolution_is_its_formula_with_its_gradient() -> None:
    torch.manual_seed(0)
    bags = synthetic_tiles([6, 1, 4])
    graph = neighbours(bags, 3)
    conv = GraphConv(5, 2).double()
    x = bags.x.double().requires_grad_()
    by_hand = torch.stack(
        [
            conv.own.weight @ x[i] + conv.own.bias + conv.near.weight @ x[graph[i]].mean(0)
            for i in range(len(x))
        ]
    )
    torch.testing.assert_close(conv(x, graph), by_hand)
    assert torch.autograd.gradcheck(lambda t: conv(t, graph), (x,))


def test_scaled_cosine_error_in_closed_form() -> None:
    x = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    z = torch.tensor([[0.0, 5.0], [0.0, 9.0], [-1.0, -1.0]])  # cosines 0, 1, −1
    torch.testing.assert_close(scaled_cosine_error(x, z, gamma=1.0), torch.tensor(1.0))
    torch.testing.assert_close(scaled_cosine_error(x, z, gamma=3.0), torch.tensor((1 + 8) / 3))
    near = torch.tensor([[1.0, 0.5]], requires_grad=True)
    loss = scaled_cosine_error(x[:1], near)
    torch.testing.assert_close(loss, (1 - 1 / torch.tensor(1.25).sqrt()) ** 2)
    loss.backward()
    assert near.grad is not None
    assert near.grad.any()


class Encoder(nn.Module):
    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.conv = GraphConv(features, width)

    def forward(self, x: Tensor, graph: Tensor) -> Tensor:
        return self.conv(x, graph).relu()


def two_regions(side: int = 12) -> tuple[Bags, Tensor]:
    """Synthetic: a slide whose left half has other features than its right half."""
    generator = torch.Generator().manual_seed(1)
    at = torch.stack(
        torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij"), -1
    ).flatten(0, 1)
    region = (at[:, 0] >= side // 2).long()
    means = torch.randn(2, 16, generator=generator) * 2
    x = means[region] + torch.randn(side * side, 16, generator=generator)
    return Bags(x, torch.zeros(len(x)).long(), 1, coords=at.float()), region


def test_masked_tiles_are_told_from_their_surroundings() -> None:
    torch.manual_seed(0)
    bags, _ = two_regions()
    graph = neighbours(bags, 8)
    encode, task = Encoder(16, 24), Reconstruction(16, 24)
    parameters = [*encode.parameters(), *task.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=1e-2)
    first = torch.stack([task(encode, bags.x, graph) for _ in range(10)]).mean().item()
    for _ in range(120):
        optimiser.zero_grad()
        task(encode, bags.x, graph).backward()
        optimiser.step()
    last = torch.stack([task(encode, bags.x, graph) for _ in range(10)]).mean().item()
    assert last < 0.5 * first
    # No neighbour to tell it from: a graph of self-loops cannot do as well.
    alone = torch.arange(len(bags.x))[:, None].expand(-1, 8)
    assert task(encode, bags.x, alone).item() > last


def test_modularity_of_two_cliques_and_of_nothing() -> None:
    # Tiles 0-1-2 and 3-4-5, every one linked to the two others of its triangle.
    graph = torch.tensor([[1, 2], [0, 2], [0, 1], [4, 5], [3, 5], [3, 4]])
    parts = torch.tensor([0, 0, 0, 1, 1, 1])
    right = nn.functional.one_hot(parts, 2).float()
    torch.testing.assert_close(modularity(right, graph), torch.tensor(0.5))
    torch.testing.assert_close(modularity(torch.ones(6, 1), graph), torch.tensor(0.0))
    wrong = nn.functional.one_hot(torch.tensor([0, 1, 0, 1, 0, 1]), 2).float()
    assert modularity(wrong, graph) < 0
    assert modularity(right, torch.arange(6)[:, None]) == 0


def test_communities_find_the_regions_of_a_slide() -> None:
    torch.manual_seed(0)
    bags, region = two_regions()
    graph = neighbours(bags, 8)
    encode, task = Encoder(16, 24), Communities(24, count=2)
    optimiser = torch.optim.Adam([*encode.parameters(), *task.parameters()], lr=1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        task(encode, bags.x, graph).backward()
        optimiser.step()
    with torch.no_grad():
        found = task.belonging(encode(bags.x, graph)).argmax(1)
    agreement = (found == region).float().mean().item()
    assert max(agreement, 1 - agreement) > 0.95
