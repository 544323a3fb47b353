"""`pretrain` as a whole, on scikit-learn's digits: what it writes, refuses, notices and says."""

from __future__ import annotations

import csv
import json
import logging
import math
import re
import shutil
import sys
from contextlib import nullcontext

import numpy as np
import polars as pl
import pytest
import tiny_engine
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.functional import cross_entropy

from medcl.checkpoints import saved, step_of
from medcl.engine import online_evaluation
from medcl.engine.data import select
from medcl.engine.online_evaluation import evaluating
from medcl.engine.pretrain import build, pretrain
from medcl.errors import MedclError, UsageError
from medcl.run import Run, load_samples

HEALTHY = {"method": {"name": "tiny_contrast"}, "trainer": {"steps": 100, "log_every": 10}}


@pytest.fixture(scope="module")
def healthy(index, tmp_path_factory):
    """A run of an honest method, left alone."""
    out = tmp_path_factory.mktemp("healthy") / "run"
    return pretrain(tiny_engine.recipe(HEALTHY), index, out, command="medcl pretrain tiny")


def rows(run):
    with (run.path / "metrics.csv").open(newline="") as handle:
        return list(csv.DictReader(handle))


@pytest.mark.slow
def test_run_directory_is_complete(healthy, index):
    run = Run.open(healthy.path)
    assert run.recipe == healthy.recipe
    assert run.facts["finished"] is True
    assert run.facts["command"] == "medcl pretrain RECIPE.yaml"
    assert run.data == index.resolve()
    assert {"medcl", "torch", "lightning"} <= run.facts["versions"].keys()
    assert run.facts["samples_per_second"] > 0
    assert run.facts["patients"] == sum(part == "train" for part in run.split().values())
    assert set(run.split().values()) == {"train", "test"}
    assert any((run.path / "tensorboard").iterdir())
    assert [p.name for p in (run.path / "checkpoints").iterdir()].count("step-000000100.ckpt") == 1
    assert not list(run.path.rglob("*.tmp"))


def test_encoder_is_that_of_the_last_checkpoint_and_moved(healthy):
    trained, fresh = healthy.encoder(), healthy.encoder(trained=False)
    state = torch.load(saved(healthy.path / "checkpoints")[-1], weights_only=True)
    for key, value in trained.state_dict().items():
        assert torch.equal(value, state["state_dict"][f"method.encoder.{key}"])
    assert not torch.equal(trained.body[0].weight, fresh.body[0].weight)


def test_training_helps_and_is_not_called_collapsed(healthy):
    found = rows(healthy)
    assert float(found[-1]["loss"]) < float(found[1]["loss"])
    assert float(found[-1]["knn"]) > float(found[0]["knn"]) + 0.02
    assert float(found[-1]["spread"]) > 0.5
    assert healthy.facts["warnings"] == []


def test_metrics_have_one_row_a_log_step(healthy):
    found = rows(healthy)
    steps = [int(row["step"]) for row in found]
    assert steps == [0, 1, 10, 20, 25, 30, 40, 50, 60, 70, 75, 80, 90, 100]
    evaluated = {int(row["step"]) for row in found if row["effective_rank"]}
    assert evaluated == {0, 25, 50, 75, 100}
    assert all(math.isfinite(float(row["loss"])) for row in found[1:])


def test_only_training_patients_are_ever_read(index, tmp_path, monkeypatch):
    recipe = tiny_engine.recipe({"trainer": {"steps": 30}, "method": {"partner": True}})
    samples = load_samples(recipe, index)
    seen = set()
    read = tiny_engine.read

    def spy(x, positions):
        seen.update(positions.tolist())
        return read(x, positions)

    monkeypatch.setattr(tiny_engine, "read", spy)
    run = pretrain(recipe, index, tmp_path)
    split = run.split()
    assert {split[samples.patients[position]] for position in seen} == {"train"}
    assert len(seen) > 900


def test_all_are_read_where_the_split_says_so_and_knn_looks_at_training_patients(
    index, tmp_path, monkeypatch
):
    recipe = tiny_engine.recipe({"trainer": {"steps": 30}, "split": {"pretrain": "all"}})
    trained, evaluated = [], []

    def spy(samples, split, label=None, sites=None, *, all_patients=False):
        chosen = select(samples, split, label, sites, all_patients=all_patients)
        (trained if all_patients else evaluated).append(chosen)
        return chosen

    monkeypatch.setattr("medcl.engine.pretrain.select", spy)
    run = pretrain(recipe, index, tmp_path)
    side = run.split()
    assert run.facts["patients"] == len(side)
    (chosen,), (at,) = trained, evaluated
    sides = np.array([side[chosen.samples.patients[row]] for row in chosen.rows])
    assert set(sides) == {"train", "test"}
    assert np.array_equal(chosen.label == -1, sides == "test")
    assert {side[at.samples.patients[row]] for row in at.rows} == {"train"}


def test_a_finished_run_is_left_alone(healthy, index):
    before = {p: p.stat().st_mtime_ns for p in healthy.path.rglob("*")}
    again = pretrain(healthy.recipe, index, healthy.path)
    assert again == healthy
    assert before == {p: p.stat().st_mtime_ns for p in healthy.path.rglob("*")}


def test_a_run_killed_before_its_last_words_only_writes_them(healthy, index, tmp_path):
    run = shutil.copytree(healthy.path, tmp_path / "run")
    (run / "encoder.safetensors").unlink()
    pretrain(healthy.recipe, index, run)
    assert (run / "encoder.safetensors").read_bytes() == (
        healthy.path / "encoder.safetensors"
    ).read_bytes()
    assert (run / "metrics.csv").read_text() == (healthy.path / "metrics.csv").read_text()


def test_another_recipe_in_the_same_folder_names_the_key(healthy, index):
    other = tiny_engine.recipe({**HEALTHY, "optimizer": {"lr": 0.5}})
    with pytest.raises(UsageError, match=r"optimizer.lr is 0.001 there and 0.5 here"):
        pretrain(other, index, healthy.path)
    deeper = tiny_engine.recipe({**HEALTHY, "encoder": {"name": "mlp", "width": 16}})
    with pytest.raises(UsageError, match=r"encoder.width is 32 there and 16 here"):
        pretrain(deeper, index, healthy.path)


def test_other_data_in_the_same_folder(healthy, tmp_path):
    with pytest.raises(UsageError, match="on other data"):
        pretrain(healthy.recipe, tmp_path, healthy.path)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"trainer": {"batch_size": 4096}}, r"training samples do not fill a batch of 4,096"),
        ({"trainer": {"precision": "16"}}, "precision 16 needs a GPU"),
        ({"method": {"name": "tiny_needy"}}, "Needy needs 'table' of every sample"),
        pytest.param(
            {"trainer": {"accelerator": "gpu"}},
            "does not support the settings of 'trainer'",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU"),
        ),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_written(
    index, tmp_path, overrides, message
):
    with pytest.raises(UsageError, match=message):
        pretrain(tiny_engine.recipe(overrides), index, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_nan_stops_the_run_and_keeps_the_last_good_checkpoint(index, tmp_path):
    recipe = tiny_engine.recipe({"method": {"break_at": 47}})
    with pytest.raises(MedclError, match=r"NaN or infinite at step 48\. Lower optimizer.lr"):
        pretrain(recipe, index, tmp_path)
    kept = saved(tmp_path / "checkpoints")
    assert [step_of(path) for path in kept] == [20, 40]
    assert not (tmp_path / "encoder.safetensors").exists()
    assert all(math.isfinite(float(row["loss"])) for row in rows(Run(tmp_path, recipe))[1:])


def test_infinite_gradient_of_a_finite_loss_never_reaches_a_checkpoint(
    index, tmp_path, monkeypatch
):
    class Spike(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return grad * torch.inf

    step = tiny_engine.Contrast.step

    def spiked(self, views, batch, state):
        result = step(self, views, batch, state)
        if state.step == 39:  # the last before a checkpoint
            result["loss"] = Spike.apply(result["loss"])
        return result

    monkeypatch.setattr(tiny_engine.Contrast, "step", spiked)
    with pytest.raises(MedclError, match="Weights became NaN or infinite at or before step 40"):
        pretrain(tiny_engine.recipe({"method": {"name": "tiny_contrast"}}), index, tmp_path)
    kept = saved(tmp_path / "checkpoints")
    assert [step_of(path) for path in kept] == [20]


def test_a_method_that_collapses_is_called_so(index, tmp_path, caplog):
    overrides = {
        "method": {"name": "tiny_collapsing"},
        "optimizer": {"lr": 0.02},
        "trainer": {"steps": 200},
    }
    with caplog.at_level(logging.WARNING):
        run = pretrain(tiny_engine.recipe(overrides), index, tmp_path)
    messages = [record.getMessage() for record in caplog.records]
    assert any("the encoder has collapsed" in message for message in messages)
    assert len(messages) == len(set(messages)), "said again and again"
    assert "the encoder has collapsed" in run.facts["warnings"][0]


def test_bf16_trains_near_fp32(index, tmp_path, healthy):
    half = {**HEALTHY, "trainer": {**HEALTHY["trainer"], "precision": "bf16"}}
    run = pretrain(tiny_engine.recipe(half), index, tmp_path)
    ours, theirs = (np.array([float(r["loss"]) for r in rows(x)[1:]]) for x in (run, healthy))
    assert not np.array_equal(ours, theirs)
    np.testing.assert_allclose(ours, theirs, rtol=0.1)
    assert all(p.dtype == torch.float32 for p in run.encoder().parameters())


def test_views_are_float32_and_outside_autograd_under_bf16(index, tmp_path, monkeypatch):
    seen = []
    forward = tiny_engine.Noise.forward

    def spy(self, x, generator, kind="global"):
        product = x @ x.T  # would be bfloat16 under autocast
        seen.append((x.dtype, product.dtype, torch.is_grad_enabled()))
        return forward(self, x, generator, kind)

    monkeypatch.setattr(tiny_engine.Noise, "forward", spy)
    pretrain(tiny_engine.recipe({"trainer": {"steps": 2, "precision": "bf16"}}), index, tmp_path)
    assert set(seen) == {(torch.float32, torch.float32, False)}


def test_clipping_bounds_the_gradient(index, tmp_path, monkeypatch):
    norms = []
    step = torch.optim.SGD.step

    def spy(self, closure=None):
        result = step(self, closure)  # Lightning's closure has run and clipped by now
        grads = [p.grad for g in self.param_groups for p in g["params"] if p.grad is not None]
        norms.append(float(torch.stack([g.norm() for g in grads]).norm()))
        return result

    monkeypatch.setattr(torch.optim.SGD, "step", spy)
    settings = {"trainer": {"steps": 10}, "optimizer": {"name": "sgd", "clip": 0.01}}
    pretrain(tiny_engine.recipe(settings), index, tmp_path)
    assert len(norms) == 10
    assert max(norms) <= 0.01 * (1 + 1e-4)


def test_accumulation_averages_the_micro_batches(index, tmp_path, monkeypatch):
    """Of a loss that is a mean over samples, 2 micro-batches of 32 are one batch of 64."""

    def step(self, views, batch, state):
        x = self.encoder(views[0])
        return {"loss": cross_entropy(x, batch["label"]), "embedding": x.detach()}

    monkeypatch.setattr(tiny_engine.Contrast, "step", step)
    plain = {
        "encoder": {"name": "mlp", "norm": False, "dropout": 0.0},
        "views": {"sigma": 0.0},
        "method": {"name": "tiny_contrast"},
        "optimizer": {"name": "sgd", "lr": 0.1},
    }
    seen = {}
    for name, size, accumulate in (("one", 64, 1), ("two", 32, 2)):
        trainer = {"steps": 10, "batch_size": size, "accumulate": accumulate, "log_every": 1}
        recipe = tiny_engine.recipe({**plain, "trainer": trainer})
        run = pretrain(recipe, index, tmp_path / name)
        seen[name] = run.encoder().state_dict(), [float(row["loss"]) for row in rows(run)[1:]]
    torch.testing.assert_close(seen["one"], seen["two"], rtol=1e-5, atol=1e-6)
    assert seen["one"][1][-1] < seen["one"][1][0]


def test_after_step_is_called_once_an_optimiser_step(index, tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr(tiny_engine.Contrast, "after_step", lambda self, s: called.append(s.step))
    settings = {"steps": 7, "accumulate": 3}
    method = {"name": "tiny_contrast"}
    pretrain(tiny_engine.recipe({"trainer": settings, "method": method}), index, tmp_path)
    assert called == list(range(7))


def test_monitoring_does_not_change_training(index, tmp_path, healthy):
    often = {**HEALTHY, "monitor": {"every": 7, "samples": 100}}
    run = pretrain(tiny_engine.recipe(often), index, tmp_path)
    for key, value in healthy.encoder().state_dict().items():
        assert torch.equal(value, run.encoder().state_dict()[key])


def test_no_labels_no_knn_and_a_task_brings_its_own(index, tmp_path):
    bare = {"dataset": {"digit": False}, "trainer": {"steps": 3}}
    run = pretrain(tiny_engine.recipe(bare), index, tmp_path / "bare")
    assert "knn" not in rows(run)[0]
    tasked = {**bare, "probe": {"task": "digit"}}
    run = pretrain(tiny_engine.recipe(tasked), index, tmp_path / "task")
    assert float(rows(run)[0]["knn"]) > 0.3


def test_a_task_whose_label_is_absent_is_not_probed_on_another(index, tmp_path):
    other = {"dataset": {"label": "colour"}, "trainer": {"steps": 3}, "probe": {"task": "digit"}}
    with pytest.raises(UsageError, match=r"Task 'digit' asks for the label 'digit'.*colour"):
        pretrain(tiny_engine.recipe(other), index, tmp_path / "absent")
    assert not (tmp_path / "absent").exists()
    laid_over = {**other, "probe": {"task": "digit", "dataset": {"label": "digit"}}}
    run = pretrain(tiny_engine.recipe(laid_over), index, tmp_path / "task")
    assert float(rows(run)[0]["knn"]) > 0.3


@pytest.mark.slow
def test_a_plugin_that_crashes_costs_its_item_only(index, tmp_path):
    recipe = tiny_engine.recipe({"prepare": {"crash": "p07"}, "trainer": {"steps": 2}})
    run = pretrain(recipe, index, tmp_path)
    known = run.facts["samples"] + run.facts["samples_outside_training"]
    assert known == 1797 - 45  # the digits of the one patient


def test_an_unknown_task_is_named_with_the_nearest(index):
    with pytest.raises(UsageError, match=r"Unknown task 'digits'.*Did you mean 'digit'"):
        load_samples(tiny_engine.recipe(), index, task="digits")


def test_knn_banks_and_queries_are_of_different_patients(index, healthy, monkeypatch):
    recipe = healthy.recipe
    chosen = select(load_samples(recipe, index), healthy.split())
    module = build(recipe, chosen)
    embedded = []

    def spy(bank, bank_label, query, query_label, *, neighbours):
        embedded.append((bank, query))
        return 0.5

    monkeypatch.setattr(online_evaluation.online_probes, "knn", spy)
    module.method.encoder = nn.Identity()  # the embedding is the sample
    online_evaluation._Evaluation(module, nullcontext, recipe.monitor).probes(chosen)
    [(bank, query)] = embedded
    table = chosen.samples.read(np.arange(len(chosen.samples)))["x"]
    owner = {row.tobytes(): p for row, p in zip(table, chosen.samples.patients, strict=True)}
    owners = [{owner[row.numpy().tobytes()] for row in part} for part in (bank, query)]
    assert owners[0].isdisjoint(owners[1])
    assert min(map(len, owners)) > 5


def test_evaluating_gives_each_part_its_mode_back():
    net = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout())
    net[0].eval()
    with evaluating(net):
        assert not net[1].training
    assert [net.training, net[0].training, net[1].training] == [True, False, True]


def test_nothing_is_printed_off_a_terminal(index, tmp_path, capfd):
    pretrain(tiny_engine.recipe({"trainer": {"steps": 5}}), index, tmp_path)
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == ""


def test_a_terminal_gets_a_bar_and_a_summary(index, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    recipe = tiny_engine.recipe({"trainer": {"steps": 5}})
    pretrain(recipe, index, tmp_path)
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "samples/s" in captured.err
    assert "encoder.safetensors" in re.sub(r"[│\s]", "", captured.err)  # folded over lines
    pretrain(recipe, index, tmp_path)
    assert "done" in capfd.readouterr().err


@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff\xfe"])
@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("run.json", lambda run: run.facts),
        ("split.parquet", Run.split),
        ("encoder.safetensors", Run.encoder),
    ],
)
def test_a_damaged_run_names_the_file_and_the_remedy(healthy, tmp_path, name, read, content):
    run = Run.open(shutil.copytree(healthy.path, tmp_path / "run"))
    if content is None:
        (run.path / name).unlink()
    else:
        (run.path / name).write_bytes(content)
    with pytest.raises(MedclError, match=r"(missing|damaged|no encoder yet).*medcl pretrain") as e:
        read(run)
    assert str(run.path) in str(e.value)


def test_a_truncated_encoder_comes_back_from_the_last_checkpoint(healthy, index, tmp_path):
    run = Run.open(shutil.copytree(healthy.path, tmp_path / "run"))
    weights = run.path / "encoder.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MedclError, match=r"encoder\.safetensors is damaged"):
        run.encoder()
    weights.unlink()
    pretrain(run.recipe, index, run.path)
    assert weights.read_bytes() == whole


def test_split_file_and_run_json_hold_keys_not_names(healthy, index):
    frame = pl.read_parquet(healthy.path / "split.parquet")
    assert frame.columns == ["patient", "split"]
    text = json.dumps(healthy.facts) + frame.write_csv()
    assert "p07" not in text  # the raw patient of p07.npy


def test_a_launcher_of_other_processes_is_refused(index, tmp_path, monkeypatch):
    """Under torchrun without trainer.devices each process trained the whole run into one folder."""
    for name, value in {"WORLD_SIZE": "4", "RANK": "1", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=r"trainer\.devices=2 and trainer\.nodes=2"):
        pretrain(tiny_engine.recipe({"trainer": {"steps": 2}}), index, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_it_continues_from_the_weights_of_a_run_or_a_file(healthy, index, tmp_path):
    selection = select(load_samples(healthy.recipe, index), healthy.split())
    weights = load_file(healthy.path / "encoder.safetensors")
    for path in (healthy.path, healthy.path / "encoder.safetensors"):
        changed = tiny_engine.recipe({**HEALTHY, "seed": 3, "trainer": {"weights": str(path)}})
        module = build(changed, selection)
        for name, value in module.method.encoder.state_dict().items():
            assert not value.is_floating_point() or torch.equal(value, weights[name]), name
    wrong = tiny_engine.recipe({**HEALTHY, "trainer": {"weights": str(tmp_path)}})
    with pytest.raises(UsageError, match="name the file of weights"):
        build(wrong, selection)


def test_micro_batches_of_a_run_change_nothing_but_memory(index, tmp_path):
    plain = {
        "method": {"name": "tiny_contrast"},
        "encoder": {"name": "mlp", "norm": False, "dropout": 0.0},
        "trainer": {"steps": 5, "batch_size": 64, "log_every": 1},
    }
    cut = {**plain, "trainer": {**plain["trainer"], "micro_batch": 10}}
    one = pretrain(tiny_engine.recipe(plain), index, tmp_path / "one")
    other = pretrain(tiny_engine.recipe(cut), index, tmp_path / "other")
    for ours, theirs in zip(rows(one), rows(other), strict=True):
        assert float(ours["loss"] or 0) == pytest.approx(float(theirs["loss"] or 0), rel=1e-5)
    weights = other.encoder().state_dict()
    for name, value in one.encoder().state_dict().items():
        torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=1e-5)


def test_micro_batches_that_would_change_nothing_are_refused(index, tmp_path, monkeypatch):
    monkeypatch.setattr(
        tiny_engine.Contrast,
        "step",
        lambda self, views, batch, state: {"loss": self.encoder.body(views[0]).sum()},
    )
    recipe = tiny_engine.recipe(
        {"method": {"name": "tiny_contrast"}, "trainer": {"micro_batch": 8}}
    )
    with pytest.raises(UsageError, match=r"trainer\.micro_batch would change nothing"):
        pretrain(recipe, index, tmp_path / "run")
