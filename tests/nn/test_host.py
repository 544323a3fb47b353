"""What a processor may look at, a device's host must not wait for; and the counter that says so."""

from __future__ import annotations

import pytest
import torch
from stops import counted

from medcl.nn import host
from medcl.seeds import host_uniform


@pytest.mark.parametrize(
    "stop",
    [
        lambda x: x.sum().item(),
        lambda x: bool((x > 0).any()),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x.masked_select(x > 0),
        lambda x: x.unique(),
        lambda x: x.tolist(),
        lambda x: x.cpu(),
        lambda x: x.repeat_interleave(torch.tensor([1, 2, 3])),
        lambda x: x.clone().index_put_((x > 0,), torch.tensor(0.0)),
    ],
)
def test_the_counter_sees_every_kind_of_stop(stop):
    x = torch.tensor([1.0, -2.0, 3.0])
    with counted() as stops:
        stop(x)
    assert stops.total() >= 1
    with counted() as stops:
        torch.where(x > 0, x, x[torch.tensor([0, 1, 2])]).repeat_interleave(2).sum()
    assert not stops


def test_on_a_processor_rows_and_numbers_are_known():
    assert host.chosen_rows(torch.tensor([False, True, True])).tolist() == [1, 2]
    assert host.value(torch.tensor(3.5)) == 3.5
    host.refuse(torch.tensor([False]), ValueError("wrong"))
    with pytest.raises(ValueError, match="wrong"):
        host.refuse(torch.tensor([False, True]), ValueError("wrong"))


def test_on_a_device_they_are_not_and_errors_come_later(monkeypatch):
    monkeypatch.setattr(host, "waits", lambda x: True)
    with counted() as stops:
        assert host.chosen_rows(torch.tensor([False, True])) is None
        assert host.value(torch.tensor(3.5)) is None
        host.refuse(torch.tensor([False]), ValueError("wrong"))
    assert not stops
    with pytest.raises(RuntimeError, match="wrong"):
        host.refuse(torch.tensor([True]), ValueError("wrong"))


def test_the_hosts_number_follows_the_generator_and_leaves_it_alone():
    random = torch.Generator().manual_seed(0)
    before = random.get_state()
    first = host_uniform(random)
    assert torch.equal(random.get_state(), before)
    assert host_uniform(torch.Generator().manual_seed(0)) == first
    drawn = {host_uniform(torch.Generator().manual_seed(seed)) for seed in range(200)}
    assert len(drawn) == 200
    assert 0.4 < sum(drawn) / 200 < 0.6
    torch.rand(1, generator=random)
    assert host_uniform(random) != first
    torch.manual_seed(3)
    own = [host_uniform(None), host_uniform(None)]
    torch.manual_seed(3)
    assert own == [host_uniform(None), host_uniform(None)]
    assert own[0] != own[1]
