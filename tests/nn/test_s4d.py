"""Diagonal state spaces against the recurrence that they are, and as streams."""

from __future__ import annotations

import cmath
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from medcl.errors import UsageError
from medcl.nn.s4d import S4D, S4DStack, _convolved, _convolved_directly, _fast_length


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def recurrent(layer: S4D, x: Tensor, way: int) -> Tensor:
    """One state at a time in complex numbers: s ← e^{ΔA}·s + B̄·u, y = 2·Re(Σ C·s)."""
    out = torch.zeros_like(x)
    dt, c = layer.get_buffer("log_dt").exp()[way].tolist(), layer.C[way].tolist()
    for h in range(x.shape[1]):
        for n, (re, im) in enumerate(c[h]):
            a = complex(-0.5, math.pi * n)
            turn = cmath.exp(a * dt[h])
            for b in range(len(x)):
                s = 0j
                for t in range(x.shape[2]):
                    s = turn * s + (turn - 1) / a * x[b, h, t].item()
                    out[b, h, t] += 2 * (complex(re, im) * s).real
    return out


def mixed(layer: S4D, y: Tensor) -> Tensor:
    return F.glu(layer.mix(F.gelu(y)), dim=1)


@pytest.mark.parametrize("causal", [True, False])
def test_a_layer_is_its_recurrence(causal: bool) -> None:
    layer = S4D(3, 2, causal=causal, steps=(0.05, 0.5)).double()
    x = drawn(2, 3, 11)
    with torch.no_grad():
        y = recurrent(layer, x, 0) + x * layer.D[:, None]
        if not causal:  # the second way runs from the end
            y = y + recurrent(layer, x.flip(-1), 1).flip(-1)
        torch.testing.assert_close(layer(x), mixed(layer, y))


@pytest.mark.parametrize("cuts", [[1] * 23, [23], [5, 1, 17], [22, 1]])
def test_a_stack_streams_what_it_gives_for_the_whole(cuts: list[int]) -> None:
    stack = S4DStack(4, 3, 5, causal=True).double()
    x, states, found = drawn(2, 4, 23), None, []
    with torch.no_grad():
        for part in x.split(cuts, dim=-1):
            y, states = stack.stream(part, states)
            found.append(y)
        torch.testing.assert_close(torch.cat(found, dim=-1), stack(x))
    with pytest.raises(UsageError, match="encoder.causal"):
        S4DStack(4, 1, 5, causal=False).stream(x.float(), None)


def test_a_causal_stack_sees_no_future_and_a_bidirectional_one_all() -> None:
    x = drawn(1, 4, 40)
    later = x.clone()
    later[..., 30:] += 1
    for causal in (True, False):
        stack = S4DStack(4, 2, 4, causal=causal).double()
        same = torch.isclose(stack(x), stack(later), atol=1e-12).all(1)[0]
        assert bool(same[:30].all()) == causal
        assert not same[30:].any()


@pytest.mark.parametrize("length", [1, 2, 7, 64])
@pytest.mark.parametrize("ways", [1, 2])
def test_the_convolution_of_an_export_is_that_by_fft(length: int, ways: int) -> None:
    x, kernel = drawn(2, 3, length), drawn(ways, 3, length) + 1
    torch.testing.assert_close(_convolved_directly(x, kernel), _convolved(x, kernel))


def test_lengths_of_ffts_are_long_enough_and_hardly_longer() -> None:
    for least in range(1, 3000):
        n = _fast_length(least)
        assert least <= n <= 1.25 * least
        for prime in (2, 3, 5):
            while n % prime == 0:
                n //= prime
        assert n == 1


def test_half_precision_is_that_of_its_layers_not_of_its_ffts() -> None:
    layer, x = S4D(8, 4), drawn(2, 8, 50).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = layer(x.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), layer(x), atol=0.05, rtol=0.05)
