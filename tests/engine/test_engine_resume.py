"""A run that was broken off and started again ends like one that was left alone, bit for bit."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import tiny_engine
import torch
from engine_script import started
from safetensors.torch import load_file
from tiny_engine import broken_off

from medcl.archive.index import Index, build
from medcl.archive.pseudonym import KEY_VARIABLE
from medcl.archive.splits import split
from medcl.checkpoints import saved
from medcl.engine import checkpointing
from medcl.engine.checkpointing import Checkpoints
from medcl.engine.pretrain import pretrain
from medcl.errors import UsageError
from medcl.io import stopping
from medcl.io.atomic import replacing
from medcl.run import Run

BOTH = pytest.mark.parametrize("partner", [False, True], ids=["samples", "patient pairs"])


class Stopped(Exception):
    pass


def same_outcome(one: Path, other: Path) -> None:
    assert (one / "metrics.csv").read_text() == (other / "metrics.csv").read_text()
    a, b = load_file(one / "encoder.safetensors"), load_file(other / "encoder.safetensors")
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)
    last = saved(one / "checkpoints")[-1].name
    a, b = (torch.load(run / "checkpoints" / last, weights_only=True) for run in (one, other))
    assert all(torch.equal(a["state_dict"][key], b["state_dict"][key]) for key in a["state_dict"])


def broken(index, out, monkeypatch):
    """A run that was stopped after its first checkpoint."""
    once = Checkpoints.on_train_batch_end

    def stop(self, trainer, module, outputs, batch, batch_idx):
        once(self, trainer, module, outputs, batch, batch_idx)
        if trainer.global_step == 21:
            raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "on_train_batch_end", stop)
        with pytest.raises(Stopped):
            pretrain(broken_off(False), index, out)
    return out


@pytest.fixture
def growing(tmp_path, monkeypatch):
    """An index whose archive can be added to; under a fixed key, so that its split is fixed."""
    (tmp_path / "key").write_text("0123456789abcdef" * 4)
    monkeypatch.setenv(KEY_VARIABLE, str(tmp_path / "key"))
    return tiny_engine.index(tmp_path / "growing")


def grow(index):
    """Twenty patients more, with the digits of others."""
    folder = index.parent / "archive"
    for p in range(20):
        shutil.copy(folder / f"p{p:02}.npy", folder / f"p{p + 40}.npy")
    build(folder, index, tiny_engine.TINY)


@pytest.mark.slow
def test_a_grown_index_cannot_move_test_patients_into_training(growing, tmp_path, monkeypatch):
    out = broken(growing, tmp_path / "run", monkeypatch)
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    grow(growing)
    with pytest.raises(UsageError, match=r"1,797 samples then, 2,697 now\. Take another --out"):
        pretrain(broken_off(False), growing, out)
    assert before == {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    drawn = split(Index.open(growing).items, **broken_off(False).split.drawn())
    kept = Run.open(out).split()
    moved = [p for p in kept if (kept[p], drawn[p]) == ("test", "train")]
    assert moved, "the split drawn anew is the same: nothing was at stake here"


def test_the_stored_split_counts_on_resuming(index, undisturbed, tmp_path, monkeypatch):
    out = broken(index, tmp_path, monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr("medcl.engine.pretrain.split", lambda *_, **__: pytest.fail("drawn anew"))
        pretrain(broken_off(False), index, out)
    same_outcome(undisturbed(False), out)


def test_a_finished_run_is_returned_whatever_became_of_the_index(growing, tmp_path):
    recipe = tiny_engine.recipe({"trainer": {"steps": 2}})
    run = pretrain(recipe, growing, tmp_path / "run")
    before = {p: p.stat().st_mtime_ns for p in run.path.rglob("*")}
    grow(growing)
    assert pretrain(recipe, growing, run.path) == run
    assert before == {p: p.stat().st_mtime_ns for p in run.path.rglob("*")}


@pytest.mark.parametrize("name", ["recipe.yaml", "run.json"])
def test_checkpoints_of_nobody_knows_what_are_not_taken_over(index, tmp_path, monkeypatch, name):
    out = broken(index, tmp_path, monkeypatch)
    (out / name).unlink()
    with pytest.raises(UsageError, match=f"holds checkpoints and no {name}"):
        pretrain(broken_off(False), index, out)


def test_two_at_once_do_not_train_into_one_folder(index, tmp_path, monkeypatch):
    out, refused = tmp_path / "run", []
    once = Checkpoints.on_train_batch_end
    recipe = tiny_engine.recipe({"trainer": {"steps": 3}})

    def meanwhile(self, trainer, module, outputs, batch, batch_idx):
        once(self, trainer, module, outputs, batch, batch_idx)
        if not refused:
            refused.append(None)
            with pytest.raises(UsageError, match="Another process is training into") as caught:
                pretrain(recipe, index, out)
            refused[0] = caught

    monkeypatch.setattr(Checkpoints, "on_train_batch_end", meanwhile)
    assert pretrain(recipe, index, out).facts["finished"]
    assert refused[0] is not None


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("number", stopping.SIGNALS)
def test_a_signal_saves_the_step_and_ends_the_run(
    index, undisturbed, tmp_path, monkeypatch, number, request
):
    if signal.getsignal(number) == signal.SIG_IGN:  # SIGHUP under nohup, which stays ignored
        request.addfinalizer(lambda: signal.signal(number, signal.SIG_IGN))
        signal.signal(number, signal.SIG_DFL)
    once = Checkpoints.on_train_batch_end

    def told(self, trainer, module, outputs, batch, batch_idx):
        if trainer.global_step == 33:
            os.kill(os.getpid(), number)
        once(self, trainer, module, outputs, batch, batch_idx)

    monkeypatch.setattr(Checkpoints, "on_train_batch_end", told)
    before = signal.getsignal(number)
    run = stopping.handled()(pretrain)
    with pytest.raises(stopping.Stopped) as stop:
        run(broken_off(False), index, tmp_path)
    assert stop.value.code == 128 + number
    assert signal.getsignal(number) == before
    assert [p.name for p in saved(tmp_path / "checkpoints")][-1] == "step-000000033.ckpt"
    assert not (tmp_path / "encoder.safetensors").exists()
    monkeypatch.setattr(Checkpoints, "on_train_batch_end", once)
    pretrain(broken_off(False), index, tmp_path)
    same_outcome(undisturbed(False), tmp_path)


def test_kill_while_writing_a_checkpoint_leaves_the_older_one(
    index, undisturbed, tmp_path, monkeypatch
):
    whole = torch.save

    def half(value, file, *args, **kwargs):
        whole(value, file, *args, **kwargs)
        if Path(file.name).name.startswith(".step-000000040"):
            file.flush()
            os.truncate(file.name, Path(file.name).stat().st_size // 2)
            raise Stopped

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(Stopped):
        pretrain(broken_off(False), index, tmp_path)
    monkeypatch.undo()
    assert [p.name for p in saved(tmp_path / "checkpoints")] == ["step-000000020.ckpt"]
    pretrain(broken_off(False), index, tmp_path)
    same_outcome(undisturbed(False), tmp_path)


@pytest.mark.slow
def test_killed_process_ends_the_same(index, tmp_path):
    """kill -9 at random moments, again and again until the run comes to its end."""
    chance = random.Random(os.getpid())  # a new moment at every run of this test
    steps = {"steps": 300, "checkpoint_every": 15, "log_every": 1}
    kills = 0
    while True:
        (process,) = started(index, tmp_path / "killed", {"trainer": steps})
        start = wait_for_progress(process, tmp_path / "killed/metrics.csv")
        if kills < 2:
            time.sleep(chance.uniform(0, 0.3))
            process.kill()
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL, start
        kills += 1
    assert kills > 0, "the run was over before it could be killed"
    pretrain(tiny_engine.recipe({"trainer": steps}), index, tmp_path / "undisturbed")
    same_outcome(tmp_path / "undisturbed", tmp_path / "killed")


def wait_for_progress(process: BaseProcess, path: Path) -> int:
    """Until this process has written a row (or is over)."""
    before = path.stat().st_mtime_ns if path.exists() else 0
    while process.is_alive():
        if path.exists() and path.stat().st_mtime_ns != before:
            return before
        time.sleep(0.01)
    return before


def test_a_checkpoint_runs_no_code(tmp_path):
    path = tmp_path / "step-000000001.ckpt"
    with replacing(path) as temporary:
        torch.save({"state_dict": {}, "trap": Path}, temporary)  # a class, not a tensor
    with pytest.raises(Exception, match="Weights only load failed"):
        checkpointing.AtomicIO().load_checkpoint(path)
