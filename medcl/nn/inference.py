"""Evaluation of trained networks at the speed of the machine, with equal outputs."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize
from torch.nn.utils.fusion import fuse_conv_bn_eval

NORM_OF: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv1d: nn.BatchNorm1d,
    nn.Conv2d: nn.BatchNorm2d,
    nn.Conv3d: nn.BatchNorm3d,
}
VALUES_AT_ONCE = 2**17
"""Of the input, for each thread of a processor. A 1D network widens them about a hundredfold: more
do not stay in the caches, and their memory is asked for anew, page by page, in every layer."""
AT_LEAST = 4
"""Samples at once for each thread, however large they are."""

Network = TypeVar("Network", bound=nn.Module)


def for_inference(module: Network) -> Network:
    """A copy in evaluation mode that does less work for the same outputs, within rounding.

    In each `torch.nn.Sequential`, a batch norm right behind a convolution becomes part of it, and
    an activation right behind them overwrites its input. Other parts stay as they are. The
    module itself does not change; the copy shares all weights with it but those of these
    convolutions, and is of use as long as they are not trained.
    """
    shared = {id(value): value for value in (*module.parameters(), *module.buffers())}
    faster = copy.deepcopy(module, shared).eval()
    for part in list(faster.modules()):
        if type(part) is nn.Sequential and not _watched(part):
            _fold(part)
    return faster


def _fold(layers: nn.Sequential) -> None:
    names = list(layers._modules)
    for name, after in pairwise(names):
        layer, following = layers._modules[name], layers._modules[after]
        assert layer is not None
        assert following is not None
        if _watched(layer) or _watched(following):
            continue
        if not isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d) or type(layer) not in NORM_OF:
            continue
        wanted = NORM_OF[type(layer)]
        if isinstance(following, _BatchNorm) and type(following) is wanted and _measured(following):
            layers._modules[after] = fuse_conv_bn_eval(layer, following)
            layers._modules[name] = nn.Identity()
        elif type(following) is nn.ReLU or type(following) is nn.SiLU:
            layers._modules[after] = type(following)(inplace=True)


def _measured(norm: _BatchNorm) -> bool:
    """Whether it keeps statistics, rather than taking each batch's own."""
    return norm.running_mean is not None


def _watched(module: nn.Module) -> bool:
    """Whether hooks or parametrisations see or change what goes in and comes out."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or parametrize.is_parametrized(module)
    )


def forward(encoder: nn.Module, x: Tensor) -> Tensor:
    """(B, ...) → (B, D) in evaluation mode, without gradients.

    On a processor it takes a few samples at a time, so that they stay in its caches, and memory
    does not grow with the batch. Its threads take different samples: if they share each layer
    instead, they wait for one another hundreds of times, and for good where a core is taken by
    something else. An encoder with hooks, which may keep what they see, is run by one caller.
    """
    with torch.inference_mode():
        if x.device.type != "cpu" or not len(x):
            whole: Tensor = encoder(x)
            return whole
        at_once = max(VALUES_AT_ONCE // max(x[0].numel(), 1), AT_LEAST)
        threads = torch.get_num_threads()
        if threads > 1 and len(x) > at_once and not any(map(_watched, encoder.modules())):
            return torch.cat(_side_by_side(encoder, x.split(at_once), threads))
        return torch.cat([encoder(part) for part in x.split(at_once * threads)])


def _side_by_side(encoder: nn.Module, parts: Sequence[Tensor], threads: int) -> list[Tensor]:
    """Each part by one of some threads, in order."""

    def one(part: Tensor) -> Tensor:
        with torch.inference_mode():  # counts for the thread that asks for it
            done: Tensor = encoder(part)
            return done

    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(one, parts))
    finally:  # what threads that are yet to come begin with; each has its own from then on
        torch.set_num_threads(threads)
