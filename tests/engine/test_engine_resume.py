"""A run that was broken off and started again ends like one that was left alone, bit for bit."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny_engine
import torch
from safetensors.torch import load_file
from tiny_engine import broken_off

from medcl.archive.atomic import replacing
from medcl.engine import checkpoints
from medcl.engine.checkpoints import Checkpoints
from medcl.engine.pretrain import pretrain

BOTH = pytest.mark.parametrize("partner", [False, True], ids=["samples", "patient pairs"])


class Stopped(Exception):
    pass


def same_outcome(one: Path, other: Path) -> None:
    assert (one / "metrics.csv").read_text() == (other / "metrics.csv").read_text()
    a, b = load_file(one / "encoder.safetensors"), load_file(other / "encoder.safetensors")
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)
    last = checkpoints.saved(one / "checkpoints")[-1].name
    a, b = (torch.load(run / "checkpoints" / last, weights_only=True) for run in (one, other))
    assert all(torch.equal(a["state_dict"][key], b["state_dict"][key]) for key in a["state_dict"])


@BOTH
@pytest.mark.parametrize("step", [1, 19, 20, 33, 49])
def test_interrupted_run_ends_the_same(index, undisturbed, tmp_path, monkeypatch, partner, step):
    once = Checkpoints.on_train_batch_end

    def stop(self, trainer, module, outputs, batch, batch_idx):
        once(self, trainer, module, outputs, batch, batch_idx)
        if trainer.global_step == step:
            raise Stopped

    monkeypatch.setattr(Checkpoints, "on_train_batch_end", stop)
    with pytest.raises(Stopped):
        pretrain(broken_off(partner), index, tmp_path)
    assert not (tmp_path / "encoder.safetensors").exists()
    monkeypatch.setattr(Checkpoints, "on_train_batch_end", once)
    pretrain(broken_off(partner), index, tmp_path)
    same_outcome(undisturbed(partner), tmp_path)


def test_kill_while_writing_a_checkpoint_leaves_the_older_one(
    index, undisturbed, tmp_path, monkeypatch
):
    whole = torch.save

    def half(value, path, *args, **kwargs):
        whole(value, path, *args, **kwargs)
        if Path(path).name.startswith(".step-000000040"):
            os.truncate(path, Path(path).stat().st_size // 2)
            raise Stopped

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(Stopped):
        pretrain(broken_off(False), index, tmp_path)
    monkeypatch.undo()
    assert [p.name for p in checkpoints.saved(tmp_path / "checkpoints")] == ["step-000000020.ckpt"]
    pretrain(broken_off(False), index, tmp_path)
    same_outcome(undisturbed(False), tmp_path)


def test_killed_process_ends_the_same(index, tmp_path):
    """kill -9 at random moments, again and again until the run comes to its end."""
    chance = random.Random(os.getpid())  # a new moment at every run of this test
    script = Path(__file__).with_name("engine_script.py")
    steps = {"steps": 300, "checkpoint_every": 15, "log_every": 1}
    kills, patience = 0, 60
    while True:
        command = [sys.executable, script, index, tmp_path / "killed", repr({"trainer": steps})]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        start = wait_for_progress(process, tmp_path / "killed/metrics.csv")
        if kills < 2:
            time.sleep(chance.uniform(0, 0.3))
            process.send_signal(signal.SIGKILL)
        code = process.wait(timeout=patience)
        if code == 0:
            break
        assert code == -signal.SIGKILL, (start, process.stderr.read())
        kills += 1
    assert kills > 0, "the run was over before it could be killed"
    pretrain(tiny_engine.recipe({"trainer": steps}), index, tmp_path / "undisturbed")
    same_outcome(tmp_path / "undisturbed", tmp_path / "killed")


def wait_for_progress(process: subprocess.Popen[str], path: Path) -> int:
    """Until this process has written a row (or is over)."""
    before = path.stat().st_mtime_ns if path.exists() else 0
    while process.poll() is None:
        if path.exists() and path.stat().st_mtime_ns != before:
            return before
        time.sleep(0.01)
    return before


def test_a_checkpoint_runs_no_code(tmp_path):
    path = tmp_path / "step-000000001.ckpt"
    with replacing(path) as temporary:
        torch.save({"state_dict": {}, "trap": Path}, temporary)  # a class, not a tensor
    with pytest.raises(Exception, match="Weights only load failed"):
        checkpoints.AtomicIO().load_checkpoint(path)
