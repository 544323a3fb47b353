"""A first-in-first-out queue of keys with patients and labels of their samples."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medcl.nn.distributed import ALONE, Ranks

MISSING = -1


class Queue(nn.Module):
    """The last ``size`` keys seen, equal on all ranks (MoCo: He 2020, arXiv 1911.05722).

    Unlike MoCo's, it starts empty, not with noise: there are fewer negatives until it is full. All
    state is in buffers, so a checkpoint holds it.
    """

    store: Tensor  # (size, width)
    owners: Tensor  # (size,) patient codes
    classes: Tensor  # (size,) labels
    pointer: Tensor  # () position of the next key
    filled: Tensor  # () number of valid keys

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("store", torch.zeros(size, width))
        self.register_buffer("owners", torch.full((size,), MISSING))
        self.register_buffer("classes", torch.full((size,), MISSING))
        self.register_buffer("pointer", torch.tensor(0))
        self.register_buffer("filled", torch.tensor(0))
        self._count = 0  # `filled`, for the host, which would wait for a device's number
        self.register_load_state_dict_post_hook(_recount)

    @property
    def count(self) -> int:
        """The number of valid keys."""
        return self._count

    def _copy(self, buffer: Tensor) -> Tensor:
        # A copy: `push` writes in place, and the backward pass may still need the values.
        return buffer[: self._count].clone()

    @property
    def keys(self) -> Tensor:
        """The valid keys (K, width), K ≤ size."""
        return self._copy(self.store)

    @property
    def patients(self) -> Tensor:
        """Patient codes of `keys` (K,), −1 where unknown."""
        return self._copy(self.owners)

    @property
    def labels(self) -> Tensor:
        """Labels of `keys` (K,), −1 where missing."""
        return self._copy(self.classes)

    @torch.no_grad()
    def push(
        self,
        keys: Tensor,
        patients: Tensor | None = None,
        labels: Tensor | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        """Append this rank's keys (B, width) and every other rank's, dropping the oldest.

        All ranks must call it with the same B. If there are more keys than fit, the last ones stay.
        """
        unknown = torch.full((len(keys),), MISSING, device=keys.device)
        pushed = (
            ranks.gather(keys.detach().to(self.store.dtype)),
            ranks.gather(unknown if patients is None else patients.long()),
            ranks.gather(unknown if labels is None else labels.long()),
        )
        count = len(pushed[0])
        fits = min(count, self.size)
        at = (self.pointer + torch.arange(count - fits, count, device=keys.device)) % self.size
        for buffer, new in zip((self.store, self.owners, self.classes), pushed, strict=True):
            buffer[at] = new[count - fits :]
        self.pointer.copy_((self.pointer + count) % self.size)
        self._count = min(self._count + count, self.size)
        self.filled.fill_(self._count)


def _recount(queue: Queue, _keys: object) -> None:
    queue._count = int(queue.filled)
