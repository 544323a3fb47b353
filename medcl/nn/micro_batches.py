"""Batches larger than memory, exactly: the encoder sees some samples at a time, the loss sees all.

GradCache (Gao 2021, arXiv 2101.06983): a contrastive loss needs the embeddings of the whole batch,
but an encoder's activations only of one sample. Each micro-batch is encoded and its activations are
dropped; in the backward pass it is encoded again, with the same random numbers. This is
`torch.utils.checkpoint` over parts of the batch, at the cost of one more forward pass. Loss and
gradients are those of the whole batch; accumulation changes a contrastive loss, as each part has
its own negatives only.

- **Dropout**: the state of the random numbers is kept for each part and restored. (Copies of this
  idea in sentence-transformers lost it on a GPU, and in one loss all gradients but the last part's:
  its pull request 3862.)
- **Batch normalisation** takes mean and variance of the micro-batch, of all ranks where it is
  synchronised; running statistics move once for each micro-batch, not again in the second pass. So
  with batch normalisation the result is that of the micro-batches, not of the whole batch. Group
  and layer normalisation know no batch: with them it is exact.
- **Several processes**: each cuts its own batch; gradients are averaged once, after the last part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


class MicroBatches:
    """Takes the place of a module's ``forward``: (B, ...) → (B, ...), at most ``size`` at a time.

    Without gradient nothing is kept anyway, and the module sees the whole batch.

    Attributes:
        used: whether a batch that gets a gradient has come this way.
    """

    def __init__(self, module: nn.Module, size: int) -> None:
        self.module, self.size = module, size
        self.whole: Callable[[Tensor], Tensor] = module.forward
        self.used = False

    def __call__(self, x: Tensor) -> Tensor:
        """The module's output for ``x``."""
        if not torch.is_grad_enabled():
            return self.whole(x)
        self.used = True
        # Parts of nearly equal size: a last one of a single sample would have no variance.
        parts = x.tensor_split(-(-len(x) // self.size))
        return torch.cat(
            [
                checkpoint(self.whole, part, use_reentrant=False, context_fn=self._contexts)
                for part in parts
            ]
        )

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """Of the first pass, and of the second."""
        return nullcontext(), resting(self.module)


def in_micro_batches(module: nn.Module, size: int) -> MicroBatches:
    """From now on ``module`` sees at most ``size`` samples at a time. Its weights keep their names.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> x = torch.randn(5, 2)
        >>> whole = layer(x)
        >>> used = in_micro_batches(layer, 2)
        >>> torch.allclose(layer(x), whole), used.used
        (True, True)
    """
    parts = MicroBatches(module, size)
    module.forward = parts
    return parts


@contextmanager
def resting(module: nn.Module) -> Iterator[None]:
    """Running statistics of batch normalisation move on copies within the context."""
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
    buffers = [dict(norm.named_buffers(recurse=False)) for norm in norms]
    for norm, own in zip(norms, buffers, strict=True):
        for name, buffer in own.items():
            setattr(norm, name, buffer.clone())
    try:
        yield
    finally:
        for norm, own in zip(norms, buffers, strict=True):
            for name, buffer in own.items():
                setattr(norm, name, buffer)
