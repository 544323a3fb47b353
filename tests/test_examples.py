"""The examples of the docs do what they say."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch.nn.functional import normalize

from medcl.methods.contract import Method

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def waves(seed: int) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Windows of 16 "patients" with slow rhythms and fast ones in turn."""
    torch.manual_seed(seed)
    patient = torch.arange(128) // 8
    rate = torch.where(patient % 2 == 0, 2.0, 12.0)[:, None, None] + torch.rand(128, 1, 1)
    x = torch.sin(rate * torch.linspace(0, 6, 150) + 6 * torch.rand(128, 2, 1))
    return x + 0.1 * torch.randn(128, 2, 150), patient, (patient % 2).numpy()


@pytest.mark.slow
def test_a_method_trains_in_a_loop_of_ones_own() -> None:
    module = example("own_loop")
    x, patient, fast = waves(0)
    encoder = module.pretrain(x, patient, epochs=4)
    assert not encoder.training
    with torch.no_grad():
        h = encoder(x)
    assert h.shape == (128, 64)
    h = normalize(h - h.mean(0), dim=1)
    near = (h[64:] @ h[:64].T).topk(5).indices.numpy()  # of the other patients
    assert ((fast[:64][near].mean(1) > 0.5) == fast[64:]).mean() > 0.8
    text = (EXAMPLES / "own_loop.py").read_text()
    body = text.partition("    loader = ")[2].partition("\n    return")[0]
    assert body.count("\n") <= 10, "ten lines"


@pytest.mark.slow
def test_the_loop_takes_other_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    from medcl.methods import BYOL, DINO, MoCoV3, SwAV, VICReg

    module = example("own_loop")
    x, patient, _ = waves(1)
    for method in (BYOL, DINO, MoCoV3, SwAV, VICReg):
        made: list[Method] = []

        def remembered(encoder, method=method, made=made):
            made.append(method(encoder))
            return made[0]

        monkeypatch.setattr(module, "SimCLR", remembered)
        encoder = module.pretrain(x[:32], patient[:32], epochs=1)
        assert encoder is made[0].encoder
        assert all(weights.isfinite().all() for weights in encoder.parameters())


def test_a_loss_trains_alone() -> None:
    module = example("own_loss")
    torch.manual_seed(0)
    digits = torch.from_numpy(load_digits().data[:512]).float() / 16
    losses = module.train(digits, torch.arange(512) // 4, steps=80)
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:3])
