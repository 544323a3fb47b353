"""Networks made ready for inference: the same outputs, and nothing of the original changes."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from medcl.nn import inference


def trained(module: nn.Module) -> nn.Module:
    """With statistics and scales that are not the initial ones, some of them small."""
    torch.manual_seed(1)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            if part.running_mean is not None:
                nn.init.normal_(part.running_mean)
                nn.init.uniform_(part.running_var, 0.01, 4.0)
            if part.affine:
                nn.init.normal_(part.weight)
                nn.init.normal_(part.bias)
    return module.eval()


def line(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers, nn.Flatten())


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "1d": (lambda: line(nn.Conv1d(3, 8, 5, 2), nn.BatchNorm1d(8), nn.SiLU()), (3, 64), 1),
    "bias": (lambda: line(nn.Conv2d(3, 4, 3, bias=True), nn.BatchNorm2d(4)), (3, 9, 9), 1),
    "3d": (lambda: line(nn.Conv3d(1, 4, 3), nn.BatchNorm3d(4), nn.ReLU()), (1, 5, 6, 7), 1),
    "circular": (
        lambda: line(nn.Conv1d(2, 4, 3, padding=1, padding_mode="circular"), nn.BatchNorm1d(4)),
        (2, 16),
        1,
    ),
    "depthwise": (lambda: line(nn.Conv1d(4, 4, 3, groups=4), nn.BatchNorm1d(4)), (4, 16), 1),
    "no affine": (lambda: line(nn.Conv1d(4, 4, 3), nn.BatchNorm1d(4, affine=False)), (4, 16), 1),
    "twice": (
        lambda: line(nn.Conv1d(4, 4, 3), nn.BatchNorm1d(4), nn.Conv1d(4, 2, 1), nn.BatchNorm1d(2)),
        (4, 16),
        2,
    ),
    "of the batch": (
        lambda: line(nn.Conv1d(4, 4, 3), nn.BatchNorm1d(4, track_running_stats=False)),
        (4, 16),
        0,
    ),
    "norm first": (lambda: line(nn.BatchNorm1d(4), nn.Conv1d(4, 4, 3), nn.ReLU()), (4, 16), 0),
    "activation between": (
        lambda: line(nn.Conv1d(4, 4, 3), nn.ReLU(), nn.BatchNorm1d(4)),
        (4, 16),
        0,
    ),
    "weight norm": (
        lambda: line(
            nn.utils.parametrizations.weight_norm(nn.Conv1d(4, 4, 3)), nn.BatchNorm1d(4), nn.ReLU()
        ),
        (4, 16),
        0,
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_are_equal_and_norms_fewer(name: str) -> None:
    build, shape, folded = NETWORKS[name]
    module = trained(build())
    before = {key: value.clone() for key, value in module.state_dict().items()}
    x = torch.randn(6, *shape)
    faster = inference.for_inference(module)

    def norms(of: nn.Module) -> int:
        return sum("BatchNorm" in type(part).__name__ for part in of.modules())

    with torch.no_grad():
        torch.testing.assert_close(faster(x), module(x), rtol=1e-4, atol=1e-5)
    assert norms(module) - norms(faster) == folded
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


def test_a_convolution_used_twice_is_folded_into_each_norm() -> None:
    conv = nn.Conv1d(4, 4, 3, padding=1)
    module = trained(line(conv, nn.BatchNorm1d(4), conv, nn.BatchNorm1d(4), nn.ReLU()))
    x = torch.randn(3, 4, 20)
    with torch.no_grad():
        torch.testing.assert_close(
            inference.for_inference(module)(x), module(x), rtol=1e-4, atol=1e-5
        )


def test_an_activation_shared_with_another_place_overwrites_nothing_there() -> None:
    class Keeps(nn.Module):
        """Uses one activation on a value that it needs again."""

        def __init__(self) -> None:
            super().__init__()
            self.act = nn.ReLU()
            self.body = nn.Sequential(nn.Conv1d(2, 2, 1), self.act)

        def forward(self, x: Tensor) -> Tensor:
            y = self.body(x) - 1
            return (y + self.act(y)).mean(-1)

    module = Keeps().eval()
    x = torch.randn(3, 2, 9)
    with torch.no_grad():
        assert torch.equal(inference.for_inference(module)(x), module(x))


def test_the_input_is_not_overwritten_and_hooks_still_see_their_layer() -> None:
    module = trained(line(nn.Conv1d(2, 2, 1), nn.BatchNorm1d(2), nn.ReLU()))
    seen: list[Tensor] = []
    module[0].register_forward_hook(lambda _module, _inputs, output: seen.append(output.clone()))
    x = torch.randn(3, 2, 9)
    kept = x.clone()
    faster = inference.for_inference(module)
    with torch.no_grad():
        torch.testing.assert_close(faster(x), module(x))
    assert torch.equal(x, kept)
    assert len(seen) == 2
    assert torch.equal(seen[0], seen[1])


def test_weights_that_are_not_folded_are_shared() -> None:
    module = nn.Sequential(nn.Conv1d(2, 2, 1), nn.BatchNorm1d(2), nn.Flatten(), nn.Linear(18, 3))
    faster = inference.for_inference(module)
    assert faster[3].weight is module[3].weight
    assert module.training
    assert not faster.training


@pytest.mark.parametrize("samples", [0, 1, 3, 4, 5, 9])
def test_samples_go_through_in_parts(samples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "VALUES_AT_ONCE", 100)
    sizes: list[int] = []

    class Mean(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            sizes.append(len(x))
            return x.mean(-1)

    x = torch.randn(samples, 2, 40)
    assert torch.equal(inference.forward(Mean(), x), x.mean(-1))
    assert sum(sizes) == samples
    assert max(sizes) <= inference.AT_LEAST * torch.get_num_threads()


def test_threads_take_different_samples_and_leave_the_number_of_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inference, "VALUES_AT_ONCE", 100)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    inside: set[int] = set()

    class Mean(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            assert torch.is_inference_mode_enabled()
            inside.add(torch.get_num_threads())
            return x.mean(-1)

    x = torch.randn(41, 2, 40)
    try:
        assert torch.equal(inference.forward(Mean(), x), x.mean(-1))
        assert inside == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_an_encoder_with_hooks_is_run_by_one_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "VALUES_AT_ONCE", 100)
    before, caller = torch.get_num_threads(), threading.get_ident()
    callers: set[int] = set()
    encoder = nn.Flatten()
    encoder.register_forward_hook(lambda *_: callers.add(threading.get_ident()))
    torch.set_num_threads(2)
    try:
        inference.forward(encoder, torch.randn(41, 2, 40))
    finally:
        torch.set_num_threads(before)
    assert callers == {caller}
