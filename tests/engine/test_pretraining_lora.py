"""LoRA in continued pretraining: little is trained; a run has plain, merged weights."""

from __future__ import annotations

import pytest
import tiny_engine
import torch
from safetensors.torch import load_file, save_file

from medcl import checkpoints
from medcl.engine.pretrain import pretrain
from medcl.errors import UsageError
from medcl.nn.lora import PRETRAINING, adapt, merged
from medcl.run import build_encoder

STEPS = {"steps": 6, "checkpoint_every": 3, "log_every": 1, "lora": 2}


def test_merged_weights_are_the_adapted_network() -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.GELU(), torch.nn.Linear(4, 3))
    plain = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.GELU(), torch.nn.Linear(4, 3))
    assert adapt(net, 2, 2 * PRETRAINING) == ("0", "2")
    assert sorted(n for n, p in net.named_parameters() if p.requires_grad) == [
        f"{layer}.parametrizations.weight.0.{part}" for layer in (0, 2) for part in "ab"
    ]
    for name, parameter in net.named_parameters():
        if name.endswith(".b"):
            torch.nn.init.normal_(parameter)
    plain.load_state_dict(merged(net.state_dict()))
    x = torch.randn(7, 5)
    torch.testing.assert_close(plain(x), net(x))


@pytest.mark.slow
def test_a_run_continues_given_weights_by_low_ranks_alone(index, tmp_path) -> None:
    with pytest.raises(UsageError, match="set trainer.weights"):
        pretrain(tiny_engine.recipe({"trainer": STEPS}), index, tmp_path / "none")
    start = build_encoder(tiny_engine.recipe(), 7).state_dict()
    save_file(start, tmp_path / "start.safetensors")
    recipe = tiny_engine.recipe(
        {
            "method": {"name": "tiny_contrast"},
            "trainer": {**STEPS, "weights": str(tmp_path / "start.safetensors")},
        }
    )
    run = pretrain(recipe, index, tmp_path / "run")
    found = load_file(run.encoder_file())
    assert set(found) == set(start)  # it opens as any other run's
    run.encoder()
    moved = {name for name in found if not torch.equal(found[name], start[name])}
    weights = {
        f"{name}.weight"
        for name, part in run.encoder().named_modules()
        if isinstance(part, torch.nn.Linear)
    }
    running = {name for name in found if "running" in name or "num_batches" in name}
    assert weights <= moved <= weights | running
    for name in weights:
        assert torch.linalg.matrix_rank(found[name] - start[name], rtol=1e-3) <= 2
    assert any(
        "parametrizations" in name
        for name in checkpoints.encoder_weights(checkpoints.saved(run.path / "checkpoints")[-1])
    )
