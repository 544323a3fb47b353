"""The Triton kernels against the tiles: on a CUDA device, or in Triton's interpreter on the CPU:

TRITON_INTERPRET=1 pytest tests/objectives/test_tiled_triton.py
"""

from __future__ import annotations

import os

import pytest
import torch

from medcl.objectives import tiled
from medcl.objectives.info_nce import info_nce
from medcl.objectives.nt_xent import nt_xent
from medcl.objectives.pairs import Hidden
from medcl.objectives.supcon import supcon
from medcl.objectives.unit import unit

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if not INTERPRETED and not torch.cuda.is_available():
    reason = "no CUDA device, and TRITON_INTERPRET=1 is not set (it must be before triton's import)"
    pytest.skip(reason, allow_module_level=True)
kernels = pytest.importorskip("medcl.objectives.tiled_triton", reason="Triton is not installed")


DEVICE = "cpu" if INTERPRETED else "cuda"
N, M, D = 70, 150, 20  # two blocks of rows, three of columns, a width that is no power of two


def draw(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, D, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def count(n: int) -> torch.Tensor:
    return torch.arange(n, device=DEVICE)


HIDES = {
    "nothing": Hidden(),
    "columns": Hidden(columns=torch.stack([count(N), count(N) - 3], dim=1)),
    "groups": Hidden(None, count(N) % 7, count(M) % 5),
    "both": Hidden(count(N)[:, None] + 40, count(N) % 7, count(M) % 9),
    "all": Hidden(None, 0 * count(N), 0 * count(M)),
}


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("hide", HIDES)
@pytest.mark.parametrize("tau", [0.01, 0.1, 1.0])
def test_sums_and_gradients(tau: float, hide: str, swapped: bool) -> None:
    found = []
    for kind in (torch.float32, torch.float64):
        rows, cols = (
            unit(draw(n, seed).to(kind), tau**-0.5).detach().requires_grad_()
            for n, seed in ((N, 0), (M, 1))
        )
        if kind == torch.float32:
            x, y = (cols, rows) if swapped else (rows, cols)
            lse = kernels.log_sums(x, y, HIDES[hide], swapped=swapped)
        else:
            s = rows @ cols.T
            hidden = torch.zeros_like(s.detach())
            HIDES[hide](hidden, slice(0, N), slice(0, M))
            lse = (s + hidden).logsumexp(0 if swapped else 1)
        mix = torch.linspace(-1, 2, len(lse), dtype=kind, device=DEVICE)
        total = (mix * lse).masked_fill(lse == -torch.inf, 0.0).sum()
        found.append((lse.detach().double(), *torch.autograd.grad(total, (rows, cols))))
    for got, want in zip(*found, strict=True):
        want = want.nan_to_num(nan=0.0, neginf=-torch.inf)  # logsumexp of nothing: NaN gradients
        torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-5 / tau**0.5)


@pytest.mark.parametrize("name", ["nt_xent", "info_nce", "symmetric", "queue", "supcon"])
def test_the_objectives_with_the_kernels_switched_on(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = count(N) // 2
    losses = {
        "nt_xent": lambda a, b: nt_xent(a, b, group=group),
        "info_nce": lambda a, b: info_nce(a, b, temperature=0.02),
        "symmetric": lambda a, b: info_nce(a, b, group=group, symmetric=True),
        "queue": lambda a, b: info_nce(a, b, negatives=draw(M, 5), in_batch=False),
        "supcon": lambda a, b: supcon(torch.cat([a, b]), group.repeat(2)),
    }
    found = []
    for on in ("0", "1"):
        monkeypatch.setenv("MEDCL_TRITON", on)
        a, b = draw(N).requires_grad_(), draw(N, 1).requires_grad_()
        loss = losses[name](a, b)
        found.append((loss.detach(), *torch.autograd.grad(loss, (a, b))))
    for got, want in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-7)
    assert not torch.equal(found[0][1], found[1][1])  # it did take another way


def test_float64_and_weights_stay_with_the_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDCL_TRITON", "1")
    z = draw(4)
    assert tiled.by_triton(z, None)
    assert not tiled.by_triton(z.double(), None)
    assert not tiled.by_triton(z, lambda tile, rows, cols: None)
    monkeypatch.delenv("MEDCL_TRITON")
    assert not tiled.by_triton(z, None)
