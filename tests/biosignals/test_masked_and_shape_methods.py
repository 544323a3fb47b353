"""One contract over PaPaGei-S, AIM and described, as that of `tests/methods/test_contract.py`."""

from __future__ import annotations

import copy
import inspect
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stops import counted
from test_papagei import FS, waves
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "nn"))
import ranks2

from medcl.methods.contract import Method, State
from medcl.nn.distributed import ALONE, Ranks, ranks
from medcl.nn.encoders import width_of
from medcl.registry import checked, parameters, resolve
from medcl_biosignals.encoders.hong import preact_resnet1d
from medcl_biosignals.encoders.sensors import sensor_vit
from medcl_biosignals.morphology import svri
from medcl_biosignals.plugin import plugin

NAMES = ("papagei-s", "aim", "described")
ENCODERS: dict[str, Callable[[], nn.Module]] = {
    "papagei-s": lambda: preact_resnet1d(channels=1, base=8, blocks=6, width=16, dropout=0.1),
    "aim": lambda: sensor_vit(patch=25, width=32, depth=2, heads=2),
    "described": lambda: preact_resnet1d(channels=2, base=8, blocks=4, width=16, dropout=0.0),
}
SETTINGS: dict[str, dict[str, Any]] = {
    "papagei-s": {"fs": FS, "mask_same_patient": False},
    "aim": {"width": 32, "depth": 1, "heads": 2},
    "described": {"fs": FS, "channels": 2, "hidden": 32, "out": 16, "mask_same_patient": False},
}
KINDS = {"PaPaGeiS": "papagei-s", "AIM": "aim", "Described": "described"}
PEOPLE = waves(160).float()  # synthetic


def built(name: str, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    factory = resolve(plugin.methods[name])
    return factory(ENCODERS[name](), **checked(factory, SETTINGS[name], "method"))


def drawn(name: str) -> tuple[Tensor, dict[str, Tensor]]:
    at = torch.randint(120, (32,))
    x = PEOPLE[at][:, None]
    if name == "aim":
        x = torch.cat([x, x.roll(7, dims=2), torch.full_like(x, torch.nan)], dim=1)
    if name == "described":
        x = torch.cat([x, x.roll(7, dims=2)], dim=1)
    return x, {"patient": at, "x": x}


def trained(method: Any, moving: torch.optim.Optimizer, start: int, stop: int) -> list[dict]:
    results = []
    for n in range(start, stop):
        x, batch = drawn(KINDS[type(method).__name__])
        views = [x if v.kind == "none" else x * (1 + 0.1 * torch.randn(len(x), 1, 1)) for v in
                 method.views]  # fmt: skip
        result = method.step(views, batch, State(n, stop))
        moving.zero_grad()
        result["loss"].backward()
        moving.step()
        results.append({key: value.detach() for key, value in result.items()})
    return results


def optimiser(method: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(method.parameters(), lr=2e-3)


@pytest.mark.parametrize("name", NAMES)
def test_step_gives_what_the_contract_says(name: str) -> None:
    method = built(name)
    assert isinstance(method, Method)
    x, batch = drawn(name)
    result = method.step([x for _ in method.views], batch, State())
    assert result["loss"].shape == ()
    assert result["loss"].requires_grad
    assert result["embedding"].shape == (32, width_of(method.encoder))
    assert not result["embedding"].requires_grad
    others = {key: value for key, value in result.items() if key not in ("loss", "embedding")}
    assert all(value.shape == () for value in others.values())
    result["loss"].backward()
    lacking = [key for key, p in method.named_parameters() if p.requires_grad and p.grad is None]
    assert not lacking


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_continues_bit_for_bit(name: str) -> None:
    method = built(name)
    moving = optimiser(method)
    trained(method, moving, 0, 3)
    saved = io.BytesIO()
    torch.save((method.state_dict(), moving.state_dict(), torch.get_rng_state()), saved)
    straight = trained(method, moving, 3, 6)
    saved.seek(0)
    weights, moments, rng = torch.load(saved, weights_only=True)
    again = built(name, seed=1)
    again.load_state_dict(weights)
    moving_again = optimiser(again)
    moving_again.load_state_dict(moments)
    torch.set_rng_state(rng)
    for one, two in zip(straight, trained(again, moving_again, 3, 6), strict=True):
        for key in one:
            assert torch.equal(one[key], two[key]), key


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_run_and_a_copy_shares_nothing(name: str) -> None:
    method = built(name)
    twin = copy.deepcopy(method)
    losses = []
    for each in (method, twin):
        torch.manual_seed(5)
        losses.append(trained(each, optimiser(each), 0, 2)[-1]["loss"])
    assert torch.equal(*losses)


@pytest.mark.parametrize("name", NAMES)
def test_a_broken_encoder_shows_in_the_loss(name: str) -> None:
    method = built(name)
    with torch.no_grad():
        for parameter in method.encoder.parameters():
            parameter.fill_(torch.nan)
    x, batch = drawn(name)
    assert method.step([x for _ in method.views], batch, State())["loss"].isnan()


@pytest.mark.parametrize("name", NAMES)
def test_settings_are_keyword_only_with_types_and_defaults(name: str) -> None:
    factory = resolve(plugin.methods[name])
    settings = parameters(factory)
    assert [n for n in inspect.signature(factory).parameters if n not in settings] == ["encoder"]
    for key, parameter in settings.items():
        assert parameter.annotation is not parameter.empty, key
        assert parameter.default is not parameter.empty, key
    assert "arXiv" in (factory.__doc__ or "")


def error(encoder: nn.Module) -> float:
    """Of the sVRI of unseen waves, from the five nearest embeddings, against guessing the mean."""
    encoder.eval()
    with torch.no_grad():
        h = nn.functional.normalize(encoder(PEOPLE[:, None]), dim=1)
    truth = svri(PEOPLE)
    nearest = (h[120:] @ h[:120].T).topk(5).indices
    miss = (truth[:120][nearest].mean(1) - truth[120:]).square().mean()
    return float(miss / (truth[:120].mean() - truth[120:]).square().mean())


@pytest.mark.slow
def test_papagei_s_learns_the_shape_of_unseen_waves() -> None:
    method = built("papagei-s")
    before = error(method.encoder)
    results = trained(method.train(), optimiser(method), 0, 60)
    after = error(method.encoder)
    print(f"papagei-s: {before:.3f} → {after:.3f}")
    assert after < 0.85 * before
    assert results[-1]["contrast"] < results[0]["contrast"]


@pytest.mark.slow
def test_aim_reconstructs_better_than_the_mean() -> None:
    method = built("aim")
    results = trained(method.train(), optimiser(method), 0, 120)
    losses = [result["loss"].item() for result in results]
    print(f"aim: {losses[0]:.3f} → {sum(losses[-10:]) / 10:.3f}")
    assert sum(losses[-10:]) / 10 < 0.95  # guessing the mean of such waves gives 1
    assert results[0]["missing"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("name", NAMES)
def test_no_step_waits_for_a_device(name: str) -> None:
    method = built(name)
    x, batch = drawn(name)
    with counted() as stops:
        method.step([x for _ in method.views], batch, State())["loss"].backward()
    assert not stops


def described_by(world: Ranks) -> dict[str, Tensor]:
    """Three steps of `described`, of a batch of which each rank holds its part."""
    method = built("described").double()
    for part in method.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.eval()  # over ranks it is the engine's business
    moving = torch.optim.SGD(method.parameters(), lr=1e-3)
    mine = slice(32 // world.world * world.rank, 32 // world.world * (world.rank + 1))
    for step in range(3):
        torch.manual_seed(step)
        x, batch = drawn("described")
        given = {
            key: value[mine].double() if key == "x" else value[mine] for key, value in batch.items()
        }
        views = [view[mine].double() for view in (x, 1.1 * x)]
        moving.zero_grad()
        method.step(views, given, State(step, 3, world))["loss"].backward()
        for p in method.parameters():
            p.grad = None if p.grad is None else world.mean(p.grad)  # as DDP does
        moving.step()
    return method.state_dict()


def on_rank(rank: int) -> dict[str, Tensor]:
    return described_by(ranks())


@pytest.mark.slow
def test_two_ranks_are_one_process_with_both_batches() -> None:
    alone, start = described_by(ALONE), built("described").double().state_dict()
    assert any(not torch.equal(alone[key], start[key]) for key in start)
    for rank in ranks2.run(on_rank):
        for key, value in alone.items():
            torch.testing.assert_close(rank[key], value, rtol=1e-6, atol=1e-9, msg=key)


@pytest.mark.slow
def test_described_learns_to_describe_waves_drawn_anew() -> None:
    """How well it does on people is measured with its encoder, `ecg-small` (docs/results.md)."""
    method = built("described")
    misses = [float(r["miss"]) for r in trained(method.train(), optimiser(method), 0, 120)]
    before, after = np.mean(misses[:20]), np.mean(misses[-20:])
    print(f"described: {before:.3f} → {after:.3f}")
    assert after < 0.95 * before  # 120 steps are few
