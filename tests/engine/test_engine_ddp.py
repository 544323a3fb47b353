"""Two gloo processes do what one does with the whole batch."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_engine
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from engine_script import started
from safetensors.torch import load_file
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from medcl.engine.batchnorm import SyncLayers
from medcl.engine.pretrain import pretrain
from medcl.nn.distributed import ALONE, ranks
from medcl.objectives.info_nce import info_nce

WORLD, B = 2, 6


class Twin(nn.Module):
    """Encoder and loss in one forward pass, as the engine runs a method."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(
            nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 4)
        )
        self.double()

    def forward(self, x, y, everyone):
        return info_nce(self.encoder(x), self.encoder(y), temperature=0.2, ranks=everyone)


def inputs():
    random = torch.Generator().manual_seed(1)
    return torch.randn(2, WORLD * B, 8, generator=random, dtype=torch.float64)


def result(net, loss):
    loss.backward()
    grads = {name: p.grad.clone() for name, p in net.named_parameters()}
    return loss.detach(), grads, {k: v.clone() for k, v in net.named_buffers()}


def work(rank, folder):
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=WORLD)
    net = SyncLayers().apply(Twin())
    parallel = DistributedDataParallel(net)
    x, y = inputs()[:, rank * B : (rank + 1) * B]
    loss, grads, buffers = result(net, parallel(x, y, ranks()))
    loss = ranks().mean(loss)
    torch.save((loss, grads, buffers), Path(folder) / f"rank{rank}.pt")
    # Its reducer holds the group: were it the last to, the group would end inside Python's lock and
    # wait for ever for a thread that waits for the lock. Lightning lets go of it first, too.
    del parallel
    dist.destroy_process_group()


@pytest.mark.slow
def test_info_nce_and_batch_norm_over_two_ranks_equal_one(tmp_path):
    mp.start_processes(work, (str(tmp_path),), nprocs=WORLD, start_method="forkserver")
    net = Twin()
    x, y = inputs()
    loss, grads, buffers = result(net, net(x, y, ALONE))
    for rank in range(WORLD):
        theirs = torch.load(tmp_path / f"rank{rank}.pt", weights_only=True)
        torch.testing.assert_close(theirs[0], loss, rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(theirs[1], grads, rtol=1e-5, atol=1e-8)
        torch.testing.assert_close(theirs[2], buffers, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("shape", [(16, 3), (4, 3, 10), (4, 3, 5, 6)])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_rank_norm_alone_is_batch_norm(shape, momentum):
    kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}[len(shape)]
    torch.manual_seed(0)
    theirs = kind(3, momentum=momentum)
    mine = SyncLayers().apply(kind(3, momentum=momentum))
    for _ in range(3):
        x = torch.randn(shape) * 3 + 2
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        torch.testing.assert_close(mine(a), theirs(b))
        mine(a).square().sum().backward()
        theirs(b).square().sum().backward()
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(mine.state_dict(), theirs.state_dict())
    torch.testing.assert_close(mine.eval()(x), theirs.eval()(x))


TRAINER = {"steps": 12, "log_every": 1, "checkpoint_every": 6}
QUIET = {
    "encoder": {"name": "mlp", "dropout": 0.0},
    "views": {"sigma": 0.0},  # ranks draw their own noise: without it, runs can be compared
    "method": {"name": "tiny_contrast"},
    "monitor": {"every": 6, "samples": 64},
    "optimizer": {"name": "sgd", "lr": 0.1},  # Adam blows rounding up where a gradient is zero
}


def columns(folder):
    with (folder / "metrics.csv").open(newline="") as handle:
        table = list(csv.DictReader(handle))
    return {key: np.array([float(row[key]) for row in table if row[key]]) for key in table[0]}


def script(index, out, overrides):
    """As a user's script, which starts the second process itself."""
    command = [sys.executable, Path(__file__).with_name("engine_script.py"), index, out]
    command += [repr(overrides)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def exits(processes):
    """The exit codes of all, once they are over."""
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


@pytest.fixture(scope="module")
def alone(index, tmp_path_factory):
    """One process with the whole batch."""
    recipe = tiny_engine.recipe({**QUIET, "trainer": {**TRAINER, "batch_size": 64}})
    return pretrain(recipe, index, tmp_path_factory.mktemp("alone"))


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_stopped_and_resumed_follow_one_with_the_whole_batch(
    index, alone, tmp_path, strategy
):
    two = {**QUIET, "trainer": {**TRAINER, "batch_size": 32, "devices": 2, "strategy": strategy}}
    assert exits(started(index, tmp_path, two, stop=8, ranks=2)) == [9, 9]
    assert not (tmp_path / "encoder.safetensors").exists()
    if strategy == "ddp":
        done = script(index, tmp_path, two)
        assert done.returncode == 0, done.stderr
        assert done.stdout == ""
    else:  # as a cluster's launcher does it
        assert exits(started(index, tmp_path, two, ranks=2)) == [0, 0]
    a, b = columns(alone.path), columns(tmp_path)
    assert a.keys() == b.keys()
    assert a["step"].tolist() == b["step"].tolist() == list(range(TRAINER["steps"] + 1))
    assert abs(a.pop("knn") - b.pop("knn")).max() < 0.1  # counts votes: rounding can turn one
    for key in a:
        np.testing.assert_allclose(a[key], b[key], rtol=1e-4, atol=1e-5, err_msg=key)
    assert a["loss"][-1] < a["loss"][0]
    mine, theirs = (load_file(run / "encoder.safetensors") for run in (alone.path, tmp_path))
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_nan_on_one_rank_stops_both(index, tmp_path):
    settings = {
        "method": {"name": "tiny_momentum", "break_at": 3},
        "trainer": {"steps": 10, "batch_size": 32, "devices": 2},
    }
    (tmp_path / "run").mkdir()
    assert exits(started(index, tmp_path / "run", settings, ranks=2)) == [1, 1]
    said = [(tmp_path / "run" / f"rank{rank}.txt").read_text() for rank in (0, 1)]
    assert all("became NaN or infinite at step 4." in text for text in said)
