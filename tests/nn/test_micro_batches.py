"""GradCache: loss and gradients in micro-batches are those of the one batch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import ranks2
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from medcl.nn.distributed import ALONE, Ranks, ranks
from medcl.nn.micro_batches import in_micro_batches
from medcl.objectives.nt_xent import nt_xent

B, SIZE = 24, 5


class Net(nn.Module):
    """An encoder whose dropout keeps what it drew."""

    def __init__(self, norm: Callable[[int], nn.Module] = nn.LayerNorm, p: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.last = nn.Linear(6, 16), norm(16), nn.Linear(16, 4)
        self.p, self.masks = p, list[Tensor]()
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x))
        mask = (torch.rand(x.shape) >= self.p).to(x.dtype)
        self.masks.append(mask)
        out: Tensor = self.last((x * mask).tanh())
        return out


def inputs(n: int = B) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(1)
    a, b = torch.randn(2, n, 6, generator=random, dtype=torch.float64)
    return a, b


def outcome(net: Net, call: Callable[[Tensor], Tensor], n: int = B) -> dict[str, Tensor]:
    torch.manual_seed(2)
    loss = nt_xent(*call(torch.cat(inputs(n))).chunk(2), temperature=0.2)
    loss.backward()
    found = {f"d {name}": p.grad for name, p in net.named_parameters() if p.grad is not None}
    assert len(found) == len(list(net.parameters()))
    return {"loss": loss.detach(), **found, **dict(net.named_buffers())}


def by_hand(net: Net) -> Callable[[Tensor], Tensor]:
    """All activations kept: what autograd makes of the parts without a second pass."""
    return lambda x: torch.cat([net(part) for part in x.tensor_split(-(-len(x) // SIZE))])


def same(one: dict[str, Tensor], other: dict[str, Tensor], rtol: float = 1e-9) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=rtol, atol=1e-12, msg=name)


@pytest.mark.slow
def test_4096_in_micro_batches_of_64_is_one_batch() -> None:
    whole, cut = Net(), Net()
    in_micro_batches(cut, 64)
    same(outcome(cut, cut, 4096), outcome(whole, whole, 4096), rtol=1e-6)
    assert len(cut.masks) == 2 * 128  # 8,192 views in 128 parts, each encoded twice


def test_a_last_micro_batch_is_not_of_one_sample() -> None:
    net, seen = nn.Linear(2, 1), list[int]()
    whole = net.forward

    def forward(x: Tensor) -> Tensor:
        seen.append(len(x))
        return whole(x)

    net.forward = forward  # type: ignore[method-assign]
    in_micro_batches(net, 4)(torch.randn(9, 2))
    assert seen == [3, 3, 3]


def test_dropout_is_the_same_in_both_passes_and_every_part_has_a_gradient() -> None:
    """The faults of sentence-transformers' pull request 3862.

    There the second pass drew new masks, and one loss dropped all gradients but the last part's.
    """
    cut, plain = Net(p=0.5), Net(p=0.5)
    in_micro_batches(cut, SIZE)
    same(outcome(cut, cut), outcome(plain, by_hand(plain)))
    half = len(cut.masks) // 2
    assert half == 10
    first, second = cut.masks[:half], cut.masks[half:]
    torch.testing.assert_close(torch.cat(first), torch.cat(second[::-1]))
    torch.testing.assert_close(torch.cat(first), torch.cat(plain.masks))


def test_random_numbers_go_on_where_the_forward_pass_ended() -> None:
    cut, plain = Net(p=0.5), Net(p=0.5)
    in_micro_batches(cut, SIZE)
    outcome(cut, cut)
    after = torch.rand(3)
    outcome(plain, by_hand(plain))
    torch.testing.assert_close(after, torch.rand(3))


def test_running_statistics_move_once_for_each_micro_batch() -> None:
    cut, plain = Net(nn.BatchNorm1d), Net(nn.BatchNorm1d)
    in_micro_batches(cut, SIZE)
    found = outcome(cut, cut)
    same(found, outcome(plain, by_hand(plain)))
    assert found["norm.num_batches_tracked"] == 10


def test_without_gradient_the_module_sees_the_whole_batch() -> None:
    net = Net(nn.BatchNorm1d)
    parts = in_micro_batches(net, SIZE)
    with torch.no_grad():
        net(inputs()[0])
    assert [len(mask) for mask in net.masks] == [B]
    assert not parts.used


def step(world: Ranks) -> dict[str, Tensor]:
    """Gradients as DDP averages them, of this rank's part of the batch."""
    net = Net()
    in_micro_batches(net, SIZE)
    call = net if world.world == 1 else DistributedDataParallel(net)
    a, b = (x.chunk(world.world)[world.rank] for x in inputs())
    loss = nt_xent(*call(torch.cat([a, b])).chunk(2), temperature=0.2, ranks=world)
    loss.backward()
    found = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
    return {"loss": world.mean(loss.detach()), **found}


def on_rank(rank: int) -> dict[str, Tensor]:
    return step(ranks())


@pytest.mark.slow
def test_two_ranks_equal_one() -> None:
    one = step(ALONE)
    for found in ranks2.run(on_rank):
        same(found, one)
