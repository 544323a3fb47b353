"""One contract for every registered objective, over all of them.

A new objective needs an entry in `CASES` and a version of its own in ``naive.py``.
"""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import naive
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from medcl import objectives
from medcl.nn.distributed import ALONE, Ranks, ranks
from medcl.objectives import OBJECTIVES
from medcl.registry import lookup

B, M, K, D = 8, 6, 5, 7  # samples, samples of a second domain, classes, width


@dataclass(frozen=True)
class Case:
    """What to call an objective with.

    Attributes:
        inputs: name → tensor, floating ones in float64.
        learns: inputs that must get gradient; no other may.
        settings: keyword-only arguments.
        axis: the batch axis of each input, if not 0; None: the same on all ranks, in any order.
        holds: part of what an input that learns does is held constant by the method, so that
            finite differences would see what the gradient must not.
        columns: the input that names samples by their place in the batch of all ranks.
    """

    inputs: Mapping[str, Tensor]
    learns: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    axis: Mapping[str, int | None] = field(default_factory=dict)
    holds: bool = False
    columns: str | None = None

    def batch_axis(self, name: str) -> int | None:
        return self.axis.get(name, 0)

    def along_batch(self, pick: Callable[[int], Tensor]) -> dict[str, Tensor]:
        """Every input at ``pick(its batch size)``."""
        out = {}
        for name, x in self.inputs.items():
            axis = self.batch_axis(name)
            out[name] = x if axis is None else x.index_select(axis, pick(x.shape[axis]))
        return out


RNG = torch.Generator().manual_seed(0)
LABELS = torch.tensor([0, 1, 0, 2, -1, 1, 0, 3])  # an unknown one, and two alone in their class
HALF = torch.tensor([0, 1, 1, 0, -1, -1, -1, -1])  # a rank of two has no label at all
COUNTS = torch.tensor([100, 7, 0, 31, 1])  # of classes in training; one that is not there
GROUPS = torch.tensor([0, 0, 1, 2, 3, 3, 4, 0])
TAU = {"temperature": 0.2}


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=RNG, dtype=torch.float64)


def some(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=RNG) < 0.6


def cases() -> dict[str, list[Case]]:
    pair = {"queries": draw(B, D), "keys": draw(B, D)}
    views = {"z1": draw(B, D), "z2": draw(B, D)}
    queue = {"negatives": draw(9, D), "negative_group": torch.arange(9) % 5}
    two = {"a": draw(B, D), "b": draw(B, D)}
    domains = {
        "source1": draw(B, D), "source2": draw(B, D), "target1": draw(M, D), "target2": draw(M, D),
        "logits1": draw(B, K), "logits2": draw(B, K),
    }  # fmt: skip
    sets = (torch.rand(B, K, generator=RNG) < 0.4).long()
    sets[3] = 0
    gaps = sets.double()  # labels unknown, in both ways, of one rank and of the other
    gaps[0], gaps[5, 2] = -1, torch.nan
    # None for two samples, one on either rank; oneself; one named twice; some of the other rank.
    neighbours = torch.tensor(
        [[1, 7, -1], [0, -1, 2], [-1, -1, -1], [3, 0, 1]]
        + [[-1, -1, -1], [4, 4, 0], [6, 2, -1], [0, 1, 2]]
    )
    weighted = torch.rand(B, B, generator=RNG, dtype=torch.float64) * (neighbours[:, :1] >= 0)
    weighted = weighted.where(weighted > 0.5, 0.0)
    meanings = draw(B, 3)
    meanings[2], meanings[4:, 1] = torch.nan, torch.nan
    paths = torch.tensor(
        [[0, 1, 2], [0, 1, 3], [0, 2, -1], [1, -1, -1]]
        + [[-1, -1, -1], [0, 1, 2], [1, 1, 0], [0, 1, -1]]
    )
    ages = torch.tensor([20.0, 30, 30, 71, float("nan"), 20, 55, 90], dtype=torch.float64)
    tokens = {"prediction": draw(B, 4, D), "target": draw(B, 4, D), "mask": some(B, 4)}
    speech = {"context": draw(B, 6, D), "quantised": draw(B, 6, D), "mask": some(B, 6)}
    asked = some(B, 5)
    codes = torch.arange(B * 6).view(B, 6) % 4
    replicated = {"negatives": None, "negative_group": None}
    return {
        "info_nce": [
            Case(pair, ("queries", "keys"), TAU),
            Case(pair, ("queries", "keys"), TAU | {"symmetric": True, "decoupled": True}),
        ] + [
            Case(pair | queue | {"group": GROUPS}, ("queries", "keys"), settings, replicated)
            for settings in ({"temperature": 0.02}, TAU | {"in_batch": False})
        ],
        "nt_xent": [
            Case(views, ("z1", "z2"), TAU),
            Case(views | {"group": GROUPS}, ("z1", "z2"), {"temperature": 0.03, "decoupled": True}),
        ],
        "clip": [
            Case(
                two | {"log_scale": torch.tensor(scale, dtype=torch.float64)},
                ("a", "b", "log_scale"), axis={"log_scale": None},
            ) for scale in (1.0, 3.9)
        ] + [
            Case(
                two | {"log_scale": torch.tensor(3.0, dtype=torch.float64), "group": GROUPS},
                ("a", "b", "log_scale"), axis={"log_scale": None},
            )
        ],
        "supcon": [
            Case({"z": draw(B, D), "labels": labels}, ("z",), TAU)
            for labels in (LABELS, HALF, sets, gaps)
        ],
        "graph_contrast": [
            Case({"z": draw(B, D), "positives": edges}, ("z",), tau, columns="positives")
            for edges in (neighbours, weighted.to_sparse()) for tau in (TAU, {"temperature": 0.02})
        ],
        "soft_contrast": [
            Case(
                {"anchors": draw(B, D), "partners": draw(B, D), "label_embeddings": draw(B, 3)},
                ("anchors", "partners"), TAU | {"label_temperature": 0.3, "symmetric": symmetric},
            ) for symmetric in (False, True)
        ] + [
            Case(
                {"anchors": draw(B, D), "partners": draw(B, D), "label_embeddings": meanings},
                ("anchors", "partners"), TAU | {"label_temperature": 0.3, "symmetric": symmetric},
            ) for symmetric in (False, True)
        ],
        "tree_contrast": [
            Case(views | {"paths": paths}, ("z1", "z2"), TAU | {"unlabelled_weight": 0.5})
        ],
        "ot_contrast": [
            Case(
                {"z": draw(B, D), "reference": reference}, ("z",),
                TAU | {"reference_temperature": 0.5, "iterations": 200},
            ) for reference in (draw(B, 3), meanings)
        ],
        "rank_n_contrast": [
            Case({"z": draw(B, D), "targets": ages}, ("z",), {"temperature": 2.0}),
            Case({"z": draw(B, D), "targets": draw(B, 2)}, ("z",), {"temperature": 0.5}),
            Case(
                {"z": draw(B, D), "targets": ages.where(HALF >= 0, torch.nan)}, ("z",),
                {"temperature": 2.0},
            ),
        ],
        "listwise_wasserstein": [
            Case({"scores": draw(B, K), "relevance": grades}, ("scores",), TAU)
            for grades in (2 * draw(B, K), draw(B, K).where(LABELS[:, None] >= 0, torch.nan))
        ],
        "focal_contrast": [
            Case(
                {
                    "z": draw(B, D), "labels": labels,
                    "hard_positives": draw(B, D), "hard_negatives": draw(B, D),
                },
                ("z", "hard_positives", "hard_negatives"), TAU,
            ) for labels in (LABELS, HALF)
        ],
        "unilateral_contrast": [
            Case(
                {
                    "inliers1": draw(B, D), "inliers2": draw(B, D),
                    "outliers1": draw(M, D), "outliers2": draw(M, D),
                },
                ("inliers1", "inliers2", "outliers1", "outliers2"),
                {"temperature": 0.5, "soft_temperature": soft}, holds=soft is not None,
            ) for soft in (None, 0.7)
        ],
        "domain_contrast": [
            Case(
                domains | {"labels": labels},
                ("source1", "source2", "target1", "target2", "logits1", "logits2"),
                {"contrast": 0.3, "discrepancy": 2.0, "temperature": 0.5},
            ) for labels in (torch.arange(B) % K, LABELS)
        ],
        "mmd": [Case({"x": draw(B, D), "y": draw(M, D)}, ("x", "y"), {"variances": (1.0, 8.0)})],
        "koleo": [
            Case({"z": draw(B, D)}, ("z",)),
            Case({"z": draw(B, D), "group": GROUPS}, ("z",)),
        ],
        "swav": [
            Case(
                {"scores": draw(3, B, K).tanh(), "queue": draw(2, M, K).tanh()}, ("scores",),
                TAU | {"epsilon": 0.3}, {"scores": 1, "queue": 1}, holds=True,
            )
        ],
        "me_max": [Case({"scores": draw(B, K).tanh()}, ("scores",), TAU)],
        "nearest_prototype": [
            Case({"scores": draw(B, K).tanh()}, ("scores",), {"contrast": 0.3})
        ],
        "deepcluster": [
            Case({"scores": draw(2, B, K), "assignment": LABELS}, ("scores",), TAU, {"scores": 1})
        ],
        "negative_cosine": [
            Case({"prediction": draw(B, D), "target": draw(B, D)}, ("prediction",))
        ],
        "vicreg": [
            Case(
                views, ("z1", "z2"),
                {"invariance": 2.0, "variance": 3.0, "covariance": 0.5, "form": form},
            ) for form in ("code", "paper")
        ],
        "barlow_twins": [Case(views, ("z1", "z2"), {"redundancy": 0.1})],
        "sigreg": [
            Case(
                {"z": draw(3, B, D), "directions": nn.functional.normalize(draw(D, K), dim=0)},
                ("z",), {"knots": 9, "limit": 2.5}, {"z": 1, "directions": None},
            )
        ],
        "visreg": [
            Case(
                {"z": draw(3, B, D), "directions": nn.functional.normalize(draw(D, K), dim=0)},
                ("z",), {"scale": 0.7, "shape": 1.3, "center": 0.4},
                {"z": 1, "directions": None}, holds=True,
            )
        ],
        "dino": [
            Case(
                {"student": draw(3, B, K), "teacher": draw(2, B, K), "center": draw(K)},
                ("student",), {"student_temperature": 0.3, "teacher_temperature": 0.2},
                {"student": 1, "teacher": 1, "center": None},
            )
        ],
        "masked_reconstruction": [
            Case(tokens, ("prediction",), {"normalise": normalise}) for normalise in (True, False)
        ],
        "masked_codes": [
            Case(
                {
                    "student": draw(B, 4, K), "codes": draw(B, 4, K).softmax(2),
                    "mask": some(B, 4) & (LABELS[:, None] != 1),  # some without any
                },
                ("student",), TAU,
            )
        ],
        "masked_columns": [
            Case(
                {
                    "logits": draw(B, 2, K), "numbers": draw(B, 3),
                    "codes": torch.arange(2 * B).view(B, 2) % K,
                    "values": draw(B, 3).where(asked[:, 2:], torch.nan), "mask": asked,
                },
                ("logits", "numbers"),
            )
        ],
        "masked_embedding": [
            Case(tokens, ("prediction",), {"distance": distance})
            for distance in ("mse", "cosine", "smooth_l1")
        ],
        "similarity_reconstruction": [
            Case(
                {"z": draw(B, D), "decoded": draw(B, 3, 4), "target": draw(B, 3, 4)},
                ("z", "decoded"), TAU,
            )
        ],
        "future_contrast": [
            Case(
                {"prediction": draw(B, 6, D), "target": draw(B, 6, D)}, ("prediction", "target"),
                {"ahead": ahead, "temperature": 0.7, "normalise": normalise},
            ) for ahead, normalise in ((1, False), (4, True))
        ],
        "quantised_contrast": [
            Case(speech, ("context", "quantised"), TAU),
            Case(speech | {"codes": codes}, ("context", "quantised"), TAU),
        ],
        "codebook_diversity": [
            Case({"probabilities": draw(B, 4, 2, 3).softmax(3)}, ("probabilities",))
        ],
        "token_relation": [
            Case(
                {
                    "student_a": draw(B, 2, 3, 4), "student_b": draw(B, 2, 3, 4),
                    "teacher_a": draw(B, 2, 3, 5), "teacher_b": draw(B, 2, 3, 5),
                },
                ("student_a", "student_b"),
            )
        ],
        "generalised_cross_entropy": [
            Case({"logits": draw(B, K), "labels": labels}, ("logits",), settings)
            for labels, settings in ((LABELS, {}), (HALF, {"q": 0.3}), (LABELS, {"q": 1.0}))
        ],
        "class_balanced": [
            Case({"logits": draw(B, K), "labels": labels, "counts": COUNTS}, ("logits",), settings,
                 {"counts": None})
            for labels, settings in ((LABELS, {}), (HALF, {"beta": 0.9}), (LABELS, {"beta": 0.0}))
        ],
        "ldam": [
            Case({"cosines": draw(B, K).tanh(), "labels": labels, "counts": COUNTS}, ("cosines",),
                 settings, {"counts": None})
            for labels, settings in (
                (LABELS, {"scale": 2.0}), (HALF, {"margin": 0.3, "scale": 5.0}),
                (LABELS, {"scale": 2.0, "weights": torch.tensor([0.2, 1.0, 2.0, 0.5, 1.3])}),
            )
        ],
        "logit_adjusted": [
            Case({"logits": draw(B, K), "labels": labels, "counts": COUNTS}, ("logits",), settings,
                 {"counts": None})
            for labels, settings in ((LABELS, {}), (HALF, {"tau": 0.5}), (LABELS, {"tau": 0.0}))
        ],
        "matching": [
            Case({"matched": draw(B, 2), "mismatched": draw(2 * B, 2)}, ("matched", "mismatched"))
        ],
        "virtual_adversarial": [
            Case({"clean": draw(B, K), "adversarial": draw(B, K)}, ("adversarial",))
        ],
    }  # fmt: skip


CASES = cases()
EACH = [
    pytest.param(name, case, id=f"{name}-{k}")
    for name in OBJECTIVES
    for k, case in enumerate(CASES.get(name, []))
]


def called(
    fn: Callable[..., Tensor],
    inputs: Mapping[str, Tensor],
    settings: Mapping[str, Any],
    dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, dict[str, Tensor | None]]:
    """The loss, and the gradient of every floating input."""
    given = {
        n: x.detach().clone().to(dtype).requires_grad_() if x.is_floating_point() else x
        for n, x in inputs.items()
    }
    loss = fn(**given, **settings)
    leaves = {n: x for n, x in given.items() if x.requires_grad}
    grads = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    return loss.detach(), dict(zip(leaves, grads, strict=True))


def objective(name: str) -> Callable[..., Tensor]:
    """As a function of named inputs; ``settings`` and keyword-only tensors alike."""
    fn: Callable[..., Tensor] = lookup(OBJECTIVES_BY_TARGET, name, "objective")
    return fn


OBJECTIVES_BY_TARGET = {name: o.target for name, o in OBJECTIVES.items()}


def relative(a: Mapping[str, Tensor | None], b: Mapping[str, Tensor | None], names: tuple) -> float:
    """‖a − b‖ / ‖b‖ over all gradients together."""
    x, y = (torch.cat([side[n].flatten().double() for n in names]) for side in (a, b))
    return ((x - y).norm() / y.norm()).item()


def test_every_registered_objective_has_a_case_and_a_naive_version() -> None:
    assert set(CASES) == set(OBJECTIVES)
    assert all(CASES.values())
    assert [name for name in OBJECTIVES if not hasattr(naive, name)] == []


@pytest.mark.parametrize("name", OBJECTIVES)
def test_signature_is_the_schema_and_the_docstring_tells_the_source(name: str) -> None:
    fn = objective(name)
    for parameter in inspect.signature(fn).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY:
            assert parameter.default is not parameter.empty
        assert parameter.annotation is not parameter.empty
    assert inspect.signature(fn).parameters["ranks"].default is ALONE
    source = Path(inspect.getfile(fn)).read_text()
    first = OBJECTIVES[name].paper.split(",")[0].split()[0]  # the first author
    assert first in source
    for section in ("Args:", "Returns:", "Example:"):
        assert section in (fn.__doc__ or "")


MODULES = sorted(p.name for p in pkgutil.iter_modules(objectives.__path__))
MODULES.remove("tiled_triton")  # cannot be imported without Triton, and has no examples


@pytest.mark.parametrize("module", MODULES)
def test_examples_of_the_docstrings(module: str) -> None:
    loaded = importlib.import_module(f"medcl.objectives.{module}")
    assert doctest.testmod(loaded, extraglobs={"torch": torch}).failed == 0


@pytest.mark.slow
@pytest.mark.parametrize(("name", "case"), EACH)
def test_equals_the_naive_version(name: str, case: Case) -> None:
    want, wanted = called(getattr(naive, name), case.inputs, case.settings)
    loss, grads = called(objective(name), case.inputs, case.settings)
    assert loss.ndim == 0
    assert loss.dtype == torch.float64
    assert loss.item() == pytest.approx(want.item(), rel=1e-9, abs=1e-12)
    assert relative(grads, wanted, case.learns) < 1e-8
    # In float32, against the naive float64 on the same (rounded) inputs.
    rounded = {
        n: x.float().double() if x.is_floating_point() else x for n, x in case.inputs.items()
    }
    want, wanted = called(getattr(naive, name), rounded, case.settings)
    loss, grads = called(objective(name), case.inputs, case.settings, torch.float32)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(want.item(), rel=2e-6, abs=1e-6)
    assert relative(grads, wanted, case.learns) < 1e-6


@pytest.mark.parametrize(("name", "case"), EACH)
def test_gradient_is_right_and_reaches_what_it_should(name: str, case: Case) -> None:
    fn = objective(name)
    _, grads = called(fn, case.inputs, case.settings)
    for n, grad in grads.items():
        if n in case.learns:
            assert grad is not None, n
            assert grad.any(), n
        else:
            assert grad is None or not grad.any(), n
    if case.holds:
        return
    leaves = [case.inputs[n].clone().requires_grad_() for n in case.learns]

    def of_leaves(*values: Tensor) -> Tensor:
        inputs = dict(case.inputs) | dict(zip(case.learns, values, strict=True))
        return fn(**inputs, **case.settings)

    assert torch.autograd.gradcheck(of_leaves, leaves, fast_mode=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16, "autocast"])
@pytest.mark.parametrize(("name", "case"), EACH)
def test_finite_in_every_precision(name: str, case: Case, kind: Any) -> None:
    dtype = torch.float32 if kind == "autocast" else kind
    with torch.autocast("cpu", torch.bfloat16, enabled=kind == "autocast"):
        loss, grads = called(objective(name), case.inputs, case.settings, dtype)
    # Nothing but the inputs' own rounding may show: sums are made in float32, whatever comes in.
    rounded = {
        n: x.to(dtype).double() if x.is_floating_point() else x for n, x in case.inputs.items()
    }
    want, _ = called(objective(name), rounded, case.settings)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(want.item(), rel=1e-5, abs=1e-6)
    assert all(g is None or (g.isfinite().all() and g.dtype == dtype) for g in grads.values())


@pytest.mark.parametrize(("name", "case"), EACH)
def test_order_of_samples_does_not_matter(name: str, case: Case) -> None:
    order = {n: torch.randperm(n, generator=RNG) for n in (B, M, 2 * B)}
    loss, grads = called(objective(name), case.inputs, case.settings)
    inputs = case.along_batch(order.__getitem__)
    if case.columns is not None:
        inputs[case.columns] = renamed(inputs[case.columns], order[B])
    other, shuffled = called(objective(name), inputs, case.settings)
    assert other.item() == pytest.approx(loss.item(), rel=1e-9, abs=1e-12)
    for n in case.learns:
        axis = case.batch_axis(n)
        want = (
            grads[n] if axis is None else grads[n].index_select(axis, order[grads[n].shape[axis]])
        )
        torch.testing.assert_close(shuffled[n], want, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize(("name", "case"), EACH)
def test_deterministic(name: str, case: Case) -> None:
    loss, grads = called(objective(name), case.inputs, case.settings, torch.float32)
    again, once_more = called(objective(name), case.inputs, case.settings, torch.float32)
    assert torch.equal(loss, again)
    assert all(torch.equal(grads[n], once_more[n]) for n in case.learns)


@pytest.mark.parametrize(("name", "case"), EACH)
def test_a_nan_that_comes_in_comes_out(name: str, case: Case) -> None:
    """Training stops on a loss that is NaN: one that reads 0 or is left out would hide it."""
    _, grads = called(objective(name), case.inputs, case.settings)
    for n in case.learns:
        x = case.inputs[n].clone()
        x.view(-1)[grads[n].abs().argmax()] = torch.nan  # where it is certain to matter
        for dtype in (torch.float64, torch.float32):
            loss, _ = called(objective(name), {**case.inputs, n: x}, case.settings, dtype)
            assert loss.isnan(), (n, dtype)


def renamed(columns: Tensor, order: Tensor) -> Tensor:
    """Columns as they are called after the samples were put in ``order``."""
    if columns.is_sparse:
        return columns.index_select(1, order)
    return torch.where(columns >= 0, order.argsort()[columns], -1)


def half(case: Case, group: Ranks) -> dict[str, Tensor]:
    """This rank's part of every input."""
    return case.along_batch(lambda n: torch.arange(n).chunk(group.world)[group.rank])


def as_one_of_two(rank: int, folder: str) -> None:
    """What one process does: every case on its half, results to a file."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    out = {}
    for name in OBJECTIVES:
        for k, case in enumerate(CASES[name]):
            settings = dict(case.settings) | {"ranks": ranks()}
            out[f"{name}-{k}"] = called(objective(name), half(case, ranks()), settings)
    torch.save(out, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def of_two_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("two_ranks")
    mp.start_processes(as_one_of_two, (str(folder),), nprocs=2, start_method="forkserver")
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "case"), EACH)
def test_two_ranks_equal_one(
    name: str, case: Case, of_two_ranks: list[dict[str, Any]], request: pytest.FixtureRequest
) -> None:
    """The mean of two ranks' losses is the loss of one with both halves; so are the gradients."""
    loss, grads = called(objective(name), case.inputs, case.settings)
    key = request.node.callspec.id
    parts = [rank[key] for rank in of_two_ranks]
    assert (sum(p[0] for p in parts) / 2).item() == pytest.approx(loss.item(), rel=1e-9, abs=1e-12)
    for n in case.learns:
        axis = case.batch_axis(n)
        got = [p[1][n] / 2 for p in parts]  # the engine averages what ranks find
        whole = got[0] + got[1] if axis is None else torch.cat(got, axis)
        torch.testing.assert_close(whole, grads[n], rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize(("name", "case"), EACH)
def test_registered_need_is_what_is_asked_of_the_ranks(name: str, case: Case) -> None:
    """An objective that needs nothing must not talk; the others must."""
    asked = []

    class Listening(Ranks):
        def gather(self, x: Tensor) -> Tensor:
            asked.append("gather")
            return torch.cat([x, x])

        def mean(self, x: Tensor) -> Tensor:
            asked.append("mean")
            return x

    inputs = dict(case.inputs)
    if case.columns is not None and inputs[case.columns].is_sparse:
        inputs[case.columns] = torch.cat([inputs[case.columns]] * 2, dim=1)  # the other rank's
    objective(name)(**inputs, **case.settings, ranks=Listening(0, 2))
    if OBJECTIVES[name].needs == "nothing":
        assert not asked
    elif not case.settings.get("in_batch", True):
        assert not asked  # the queue is the same on all ranks
    elif OBJECTIVES[name].needs == "negatives":
        assert "gather" in asked
    elif name != "swav":  # its Sinkhorn gathers the maximum of a rank, a number
        assert set(asked) == {"mean"}
