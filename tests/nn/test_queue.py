import pytest
import ranks2
import torch

from medcl.nn.distributed import ranks
from medcl.nn.queue import Queue


def numbered(first: int, count: int) -> torch.Tensor:
    return torch.arange(first, first + count, dtype=torch.float)[:, None].expand(-1, 2)


def content(queue: Queue) -> list[float]:
    return sorted(queue.keys[:, 0].tolist())


def test_queue_keeps_the_last_keys_even_where_batches_do_not_divide_it():
    queue = Queue(7, 2)
    assert len(queue.keys) == 0
    for first in range(0, 12, 3):
        queue.push(numbered(first, 3), patients=torch.arange(first, first + 3))
    assert content(queue) == [5, 6, 7, 8, 9, 10, 11]
    assert torch.equal(queue.keys[:, 0].long(), queue.patients)  # each key with its patient
    assert (queue.labels == -1).all()


def test_a_batch_larger_than_the_queue_leaves_its_last_keys_and_order():
    queue = Queue(4, 2)
    queue.push(numbered(0, 10))
    assert content(queue) == [6, 7, 8, 9]
    queue.push(numbered(10, 1))
    assert content(queue) == [7, 8, 9, 10]


def test_reading_survives_a_later_push():
    queue = Queue(4, 2)
    queue.push(numbered(0, 4))
    read = queue.keys
    queue.push(numbered(4, 4))
    assert read[:, 0].tolist() == [0, 1, 2, 3]


def test_a_checkpoint_holds_the_whole_queue():
    queue, again = Queue(5, 2), Queue(5, 2)
    queue.push(numbered(0, 8), labels=torch.arange(8))
    again.load_state_dict(queue.state_dict())
    for each in (queue, again):
        each.push(numbered(8, 2))
    assert torch.equal(queue.store, again.store)
    assert torch.equal(queue.classes, again.classes)


def push_two(rank: int) -> dict[str, torch.Tensor]:
    queue = Queue(6, 2)
    for first in (0, 10):
        at = first + 2 * rank
        queue.push(numbered(at, 2), patients=torch.arange(at, at + 2), ranks=ranks())
    return dict(queue.state_dict())


@pytest.mark.slow
def test_queue_is_equal_on_two_ranks_and_to_one_process_with_both_batches():
    first, second = ranks2.run(push_two)
    alone = Queue(6, 2)
    for start in (0, 10):
        alone.push(numbered(start, 4), patients=torch.arange(start, start + 4))
    for name, value in alone.state_dict().items():
        assert torch.equal(first[name], value), name
        assert torch.equal(second[name], value), name
