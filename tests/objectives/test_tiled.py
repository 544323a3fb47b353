"""The tiled sums against the whole matrix, over many tiles; and what they cost."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from medcl.objectives import rows as row_blocks
from medcl.objectives.info_nce import info_nce
from medcl.objectives.koleo import koleo
from medcl.objectives.nt_xent import nt_xent
from medcl.objectives.pairs import Hidden
from medcl.objectives.rank_n_contrast import rank_n_contrast
from medcl.objectives.tiled import row_sums, two_sided_sums
from medcl.objectives.unit import unit

N = 10
GROUP = torch.tensor([0, 0, 1, 2, 3, 3, 4, 0, 5, 5])
SELF = torch.arange(N).unsqueeze(1)


def draw(n: int, d: int = 4, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=rng, dtype=torch.float64)


def dense(s: Tensor, hidden: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    w = w.masked_fill(hidden, 0.0)
    return s.masked_fill(hidden, -torch.inf).logsumexp(1), (w * s).sum(1), w.sum(1)


@pytest.mark.parametrize("bound", [1.0, torch.inf], ids=["fixed shift", "running maximum"])
@pytest.mark.parametrize("kind", ["mirrored", "rows", "both"])
@pytest.mark.parametrize("tile", [3, 4, 64])
def test_sums_and_gradients_equal_the_whole_matrix(tile: int, kind: str, bound: float) -> None:
    rows = unit(draw(N)).requires_grad_()
    cols = rows if kind == "mirrored" else unit(draw(N, seed=1)).requires_grad_()
    w = draw(N, N, seed=2).abs()
    w = w + w.T
    hide = Hidden(SELF, GROUP, GROUP)
    hidden = (GROUP.unsqueeze(1) == GROUP) | torch.eye(N, dtype=torch.bool)
    settings = {"hide": hide, "weights": lambda i, j: w[i, j], "bound": bound, "tile": tile}
    s = rows @ cols.T
    want = dense(s, hidden, w)
    if kind == "both":
        one, other = two_sided_sums(rows, cols, **settings)
        got, want = (*one, *other), (*want, *dense(s.T, hidden, w))
    else:
        got = row_sums(rows, None if kind == "mirrored" else cols, **settings)
    for x, y in zip(got, want, strict=True):
        torch.testing.assert_close(x, y)
    # A loss that weighs every row of every output differently.
    mix = [draw(N, 1, seed=3 + k).squeeze(1) for k in range(len(got))]
    leaves = {id(x): x for x in (rows, cols)}.values()
    grads = [
        torch.autograd.grad(sum((m * x).sum() for m, x in zip(mix, out, strict=True)), leaves)
        for out in ([x for k, x in enumerate(got)], [x for k, x in enumerate(want)])
    ]
    for x, y in zip(*grads, strict=True):
        torch.testing.assert_close(x, y)


def test_a_row_with_everything_hidden_is_minus_infinity_without_gradient() -> None:
    z = unit(draw(3)).requires_grad_()
    sums = row_sums(z, hide=Hidden(row_group=torch.zeros(3), col_group=torch.zeros(3)))
    assert (sums.lse == -torch.inf).all()
    losses, counts = sums.cross_entropy()
    assert not counts.any()
    (grad,) = torch.autograd.grad(losses.sum(), z)
    assert not grad.any()


@pytest.mark.slow
@pytest.mark.parametrize("tau", [0.01, 0.1])
def test_many_tiles_in_float32_equal_plain_float64(tau: float) -> None:
    z1, z2 = draw(1300, 16).float(), draw(1300, 16, seed=1).float()  # 2,600 rows: 3 × 3 tiles

    def plain(a: Tensor, b: Tensor) -> Tensor:
        z = normalize(torch.cat([a, b]))
        s = (z @ z.T / tau).fill_diagonal_(-torch.inf)
        return cross_entropy(s, torch.arange(len(z)).roll(len(a)))

    grads = []
    for fn, kind in (
        (lambda a, b: nt_xent(a, b, temperature=tau), torch.float32),
        (plain, torch.float64),
    ):
        leaves = [z.to(kind).requires_grad_() for z in (z1, z2)]
        grads.append(torch.cat(torch.autograd.grad(fn(*leaves), leaves)).double())
    assert ((grads[0] - grads[1]).norm() / grads[1].norm()).item() < 1e-6


@pytest.mark.parametrize("symmetric", [False, True])
def test_cross_modal_over_many_tiles(symmetric: bool) -> None:
    q, k = draw(1300, 8), draw(1300, 8, seed=1)
    s = normalize(q) @ normalize(k).T / 0.1
    t = torch.arange(len(q))
    want = cross_entropy(s, t)
    if symmetric:
        want = (want + cross_entropy(s.T, t)) / 2
    loss = info_nce(q, k, temperature=0.1, symmetric=symmetric)
    assert loss.item() == pytest.approx(want.item(), rel=1e-12)


def test_row_blocks_do_not_change_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    z, y = draw(20), draw(20, 1, seed=1)
    whole = rank_n_contrast(z, y), koleo(z)
    monkeypatch.setattr(row_blocks, "ELEMENTS", 60)  # three rows at a time
    leaf = z.clone().requires_grad_()
    cut = rank_n_contrast(leaf, y)
    assert cut.item() == pytest.approx(whole[0].item(), rel=1e-12)
    (grad,) = torch.autograd.grad(cut, leaf)
    assert grad.abs().sum() > 0
    assert koleo(z).item() == whole[1].item()


def test_a_learnt_temperature_gets_its_gradient() -> None:
    z = draw(6)
    log_scale = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)

    def fn(log_scale: Tensor) -> Tensor:
        return row_sums(unit(z, (log_scale / 2).exp())).lse.sum()

    assert torch.autograd.gradcheck(fn, log_scale)


PEAK = """
import resource, torch
from medcl.objectives.{module} import {name}
torch.set_num_threads(1)
def run(n):
    a, b = (torch.randn(n, 128).requires_grad_() for _ in range(2))
    {name}({arguments}).backward()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = run(2048)
print(run({n}) - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments", "limit"),
    [
        ("nt_xent", "a, b", 200),  # 32,768 views: the naive one holds 4,096 MB, several times
        ("supcon", "a, torch.arange(n) % 50", 110),  # the naive one holds 1,024 MB, several times
        ("graph_contrast", "a, (torch.arange(n)[:, None] + torch.arange(1, 9)) % n", 150),
    ],
)
def test_memory_is_that_of_the_embeddings(name: str, arguments: str, limit: int) -> None:
    """At 16,384 samples of width 128; measured: 130, 70 and 115 MB."""
    code = PEAK.format(module=name, name=name, arguments=arguments, n=16384)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(run.stdout) < limit  # MB, the inputs and their gradients included (16 to 32)
