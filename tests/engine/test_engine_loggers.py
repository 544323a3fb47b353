"""Metrics reach each logger, once a step, also where a run is resumed; nothing else does."""

from __future__ import annotations

import csv
import json
import sys
import types
from typing import Any

import pytest
import tiny_engine

from medcl.engine import loggers
from medcl.engine.pretrain import pretrain
from medcl.errors import UsageError

RUN = {
    "method": {"name": "tiny_contrast"},
    "trainer": {"steps": 4, "log_every": 1, "batch_size": 32},
    "monitor": {"every": 4},
}


class Wandb(types.ModuleType):
    """What medcl uses of the package, keeping what it is given."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.sent: dict[str, dict[int, dict[str, float]]] = {}
        self.asked: list[dict[str, Any]] = []
        self.finished = 0

    def Settings(self, **settings: Any) -> dict[str, Any]:
        return settings

    def init(self, **settings: Any) -> Wandb:
        self.asked.append(settings)
        self.now = self.sent.setdefault(settings["id"], {})
        return self

    def log(self, values: dict[str, float], step: int) -> None:
        self.now.setdefault(step, {}).update(values)

    def finish(self) -> None:
        self.finished += 1


@pytest.fixture
def wandb(monkeypatch):
    stub = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", stub)
    monkeypatch.setattr(loggers, "find_spec", lambda name: stub)
    return stub


def run_with(*names: str, **trainer: Any) -> Any:
    recipe = {**RUN, "monitor": {"every": 4, "loggers": names}}
    return tiny_engine.recipe({**recipe, "trainer": {**RUN["trainer"], **trainer}})


def test_wandb_gets_the_rows_of_metrics_csv(index, tmp_path, wandb):
    out = tmp_path / "patient Jane Doe"
    run = pretrain(run_with("wandb"), index, out)
    with (run.path / "metrics.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    (sent,) = wandb.sent.values()
    assert {step: values["loss"] for step, values in sent.items() if step} == {
        int(row["step"]): float(row["loss"]) for row in rows if row["loss"]
    }
    assert {"rankme", "lidar", "knn", "linear"} <= sent[4].keys()
    assert wandb.finished == 1
    assert not (run.path / "tensorboard").exists()
    (asked,) = wandb.asked
    assert asked.pop("dir") == str(out)  # where it writes, not what it sends
    assert "Jane" not in json.dumps(asked)
    assert asked["settings"]["x_disable_meta"]


def test_a_logger_that_is_not_installed_is_one_sentence(index, tmp_path):
    if loggers.find_spec("mlflow") is not None:
        pytest.skip("mlflow is installed")
    with pytest.raises(UsageError, match=r"pip install 'medcl\[mlflow\]'"):
        pretrain(run_with("mlflow"), index, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_mlflow_has_the_metrics_of_each_step(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    for start in (0, 2):  # the second is resumed
        (logger,) = loggers.opened(["mlflow"], tmp_path, "abc", "simclr", after=start)
        for step in (start + 1, start + 2):
            logger.log(step, {"loss": float(step)})
        logger.close()
    client = MlflowClient()
    runs = client.search_runs([client.get_experiment_by_name("medcl").experiment_id])
    assert [run.info.run_name for run in runs] == ["simclr"]
    history = client.get_metric_history(runs[0].info.run_id, "loss")
    assert [(m.step, m.value) for m in history] == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)]


def test_wandb_offline_writes_into_the_run(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    (logger,) = loggers.opened(["wandb"], tmp_path, "abc", "simclr", after=0)
    logger.log(1, {"loss": 0.5})
    logger.close()
    (data,) = tmp_path.glob("wandb/offline-run-*/run-abc.wandb")
    held = data.read_bytes()
    assert b"loss" in held
    assert str(tmp_path).encode() not in held
