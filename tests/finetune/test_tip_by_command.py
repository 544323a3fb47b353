"""TIP by its commands: index with a table, pretrain, fine-tune on labels, predict."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from medcl.plugin import get
from medcl_cli.main import app

PEOPLE = ("101", "106", "114", "118", "119", "201", "207", "208")
PRETRAIN = ("trainer.steps=3", "trainer.batch_size=16", "encoder.widths=[8,16]", "encoder.blocks=1",
            "method.inner=16", "method.depth=1", "method.heads=2", "method.out=8",
            "split.test=0.25")  # fmt: skip
FINETUNE = ("finetune.epochs=2", "finetune.folds=2", "finetune.repeats=1", "finetune.batch_size=32",
            "finetune.bootstraps=100")  # fmt: skip


def told(*words: str, **settings: tuple[str, ...]) -> str:
    asked = [*words, *(w for each in settings.get("s", ()) for w in ("-s", each))]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.long
def test_a_pretrained_tip_goes_on_to_labels_and_predicts_without_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key").write_text("tip in tests: hides nothing at all")
    monkeypatch.setenv("MEDCL_KEY_FILE", str(tmp_path / "key"))
    monkeypatch.chdir(tmp_path)
    sample = get("biosignals").sample
    assert sample is not None
    Path("archive").mkdir()
    for name in PEOPLE:
        for file in sample.glob(f"{name}.*"):
            shutil.copy(file, Path("archive") / file.name)
    ages = ["75", "24", "", "69", "51", "68", "89", "23"]  # synthetic, one missing
    sexes = ["F", "F", "F", "M", "", "M", "F", "F"]
    rows = zip(PEOPLE, sexes, ages, strict=True)
    Path("clinical.csv").write_text("key,sex,age\n" + "".join(f"{','.join(row)}\n" for row in rows))
    labels = [f"{name},{'ab'[n % 2]}" for n, name in enumerate(PEOPLE)]
    Path("labels.csv").write_text("key,group\n" + "\n".join(labels) + "\n")

    told("index", "archive", "--plugin", "biosignals", "--table", "clinical.csv", "--out", "idx")
    told("pretrain", "biosignals/tip-ecg", "--data", "idx", "--out", "run", s=PRETRAIN)
    assert json.loads(Path("run/run.json").read_text())["finished"]
    labels_to = ("--labels", "labels.csv", "--out", "study")
    told("finetune", "run", "-r", "biosignals/tip-classify", *labels_to, s=FINETUNE)
    raw = json.loads(Path("study/finetune.json").read_text())
    assert raw["test"]["patients"] == len(PEOPLE)

    # The trained network begins from the run: after two epochs it is near it, and not it.
    pretrained = load_file("run/encoder.safetensors")
    (weights, *_) = sorted(Path("study").rglob("*.safetensors"))
    trained = load_file(weights)
    conv = next(key for key in pretrained if pretrained[key].dim() == 3)
    (same,) = [value for key, value in trained.items() if key.endswith(f"encoder.{conv}")]
    moved = (same - pretrained[conv]).norm() / pretrained[conv].norm()
    assert 0 < moved < 0.5
    torch.manual_seed(1)
    other = torch.randn_like(same) * same.std()
    assert (same - other).norm() > 2 * (same - pretrained[conv]).norm()

    told("predict", "study", "archive", "--out", "predicted.parquet")  # of recordings: no table
    found = pl.read_parquet("predicted.parquet")
    assert len(found) >= len(PEOPLE)
    assert found["patient"].n_unique() == len(PEOPLE)
    assert (found["p.a"] + found["p.b"] - 1).abs().max() < 1e-5
