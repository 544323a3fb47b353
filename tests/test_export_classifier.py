"""What was trained leaves medcl and says the same as medcl predict: 1D, 2D, bags, a probe."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from bags_in_memory import MUSK
from torch import nn
from typer.testing import CliRunner

import medcl
from medcl import plugin as plugins
from medcl import recipe as recipes
from medcl.archive.index import Index, build
from medcl.errors import MedclError, UsageError
from medcl.export import classifier as exporting
from medcl.finetune.finetune import Source, finetune, opened
from medcl.finetune.opened import Study
from medcl.labels import activation
from medcl.run import Run, load_samples
from medcl_cli.main import app

sys.path.append(str(Path(__file__).parent / "probe"))
from bare_run import indexed

LEAN = {"epochs": 2, "bootstraps": 100, "batch_size": 32, "validation": 0.3}


def trained(index: Index, raw: Mapping[str, Any], labels: Path | None, out: Path) -> Study:
    recipe = recipes.parse({"name": "small", "classifier": {"name": "full"}, **raw})
    finetune(Source(recipe, index.path), out, labels=labels)
    return Study.open(out)


@pytest.fixture(scope="module")
def signals(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Two classes of windows of ECG, two folds."""
    folder = tmp_path_factory.mktemp("signals")
    (folder / "archive").mkdir()
    sample = plugins.get("biosignals").sample
    assert sample is not None
    names = ("101", "106", "108", "109", "112", "114", "115", "116")
    for name in names:
        for file in sample.glob(f"{name}.*"):
            shutil.copy(file, folder / "archive" / file.name)
    index = indexed(folder / "archive", "biosignals", folder / "idx")
    labels = folder / "l.csv"
    labels.write_text("key,y\n" + "".join(f"{n},{'ab'[i % 2]}\n" for i, n in enumerate(names)))
    raw = {
        "plugin": "biosignals",
        "prepare": {"fs": 50.0, "band": [0.5, 20.0], "leads": ["MLII|II|V5|*"]},
        "dataset": {"kind": "window", "seconds": 5.0, "stride": 5.0, "quality": 0.0},
        "encoder": {"name": "resnet1d", "widths": [8, 8], "blocks": 1},
        "finetune": {**LEAN, "folds": 2},
    }
    return trained(index, raw, labels, folder / "study")


@pytest.fixture(scope="module")
def images(digits_index: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Ten classes of images, one split."""
    raw = {
        "plugin": "toy",
        "encoder": {"name": "small", "channels": 4},
        "finetune": {**LEAN, "label": "digit"},
    }
    out = tmp_path_factory.mktemp("images") / "study"
    return trained(Index.open(digits_index), raw, None, out)


@pytest.fixture(scope="module")
def bags(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("bags")
    (folder / "archive").mkdir()
    shutil.copy(MUSK, folder / "archive" / MUSK.name)
    (folder / "key").write_bytes(b"these bags have no secrets at all")
    build(folder / "archive", folder / "idx", plugins.get("pathology"), key_file=folder / "key")
    short = ("finetune.epochs=2", "finetune.folds=2", "finetune.bootstraps=100")
    finetune(opened(folder / "idx", "pathology/musk", short), folder / "study")
    return Study.open(folder / "study")


def predicted(study: Study, out: Path) -> pl.DataFrame:
    """What medcl predict says, by the mean of all folds (as of a new patient)."""
    from medcl.predict.study_predictor import Folds

    folds, samples = Folds(study, None, "cpu", known=False), study.samples()
    parts = []
    for n in range(0, min(len(samples), 24)):
        columns, _ = folds(samples.read(np.array([n])), None)
        parts.append(pl.DataFrame(columns))
    return pl.concat(parts)


def run_it(folder: Path, to: str, x: torch.Tensor) -> np.ndarray:
    if to == "onnx":
        runtime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
        session = runtime.InferenceSession(str(folder / "classifier.onnx"))
        return session.run(None, {"x": x.numpy()})[0]
    with torch.inference_mode():
        if to == "torchscript":
            return torch.jit.load(folder / "classifier.pt")(x).numpy()
        return medcl.load_classifier(folder)(x).numpy()


@pytest.mark.slow
@pytest.mark.parametrize("to", ["safetensors", "torchscript", "onnx"])
@pytest.mark.parametrize("which", ["signals", "images", "bags"])
def test_an_exported_study_says_what_predict_says(
    which: str, to: Any, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if to == "onnx":
        pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    study: Study = request.getfixturevalue(which)
    made = medcl.export_classifier(study.path, tmp_path / "out", to=to)
    facts = json.loads((made.path / "classifier.json").read_text())
    want = predicted(study, tmp_path)
    samples = study.samples()
    got = np.concatenate(
        [
            run_it(made.path, to, torch.from_numpy(samples.read(np.array([n]))["x"]).float())
            for n in range(len(want))
        ]
    )
    assert list(made.classes) == facts["classes"] == list(study.result.classes)
    expected = want.select([f"p.{c}" for c in made.classes]).to_numpy()
    np.testing.assert_allclose(got, expected, atol=1e-5)
    if made.threshold is not None:
        assert made.threshold == pytest.approx(want["threshold"][0], abs=1e-6)
    assert facts["any_length"] is True
    assert made.difference <= facts["tolerance"]
    if which == "signals":
        assert facts["prepare"]["fs"] == 50.0
        assert facts["dataset"]["seconds"] == 5.0
        assert made.inputs["x"] == (1, None)
        assert made.threshold is not None
        x = torch.randn(3, 1, 777)  # a length that was not tried
        models = [study.model(f, {"x": x.numpy()}) for f in study.folds]
        temperature = facts["temperatures"]
        each = [
            activation.probabilities("binary", m.predict({"x": x})["scores"].numpy(), t)
            for m, t in zip(models, temperature, strict=True)
        ]
        np.testing.assert_allclose(run_it(made.path, to, x), np.mean(each, 0), atol=1e-5)
    card = (made.path / "README.md").read_text()
    assert "Not for diagnosis" in card
    for file in made.path.iterdir():
        assert str(study.data.parent).encode() not in file.read_bytes()


@pytest.mark.parametrize(
    "kind", ["binary", "multiclass", "multilabel", "ordinal", "hazard", "cox", "regression"]
)
def test_probabilities_are_those_of_predict(kind: Any) -> None:
    scores = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)) * 3
    want = activation.probabilities(kind, scores.numpy(), 1.7)
    got = exporting.probabilities(kind, scores, 1.7)
    np.testing.assert_allclose(got.numpy(), want, atol=1e-6)


class OneLength(nn.Module):
    """A network for one length only."""

    def __init__(self, width: int, length: int) -> None:
        super().__init__()
        self.width = width
        self.line = nn.Linear(length, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.line(x.flatten(1))


@pytest.mark.slow
def test_a_probe_leaves_with_its_encoder(digits_run: Run, tmp_path: Path) -> None:
    """The head that medcl probe fitted; of a pooled label, on the mean of an item's samples."""
    medcl.probe(digits_run)
    made = medcl.export_classifier(digits_run, tmp_path / "p", to="torchscript", task="digit")
    samples = load_samples(digits_run.recipe, digits_run.data)
    x = torch.from_numpy(samples.read(np.arange(60))["x"])
    table = pl.read_parquet(digits_run.path / "probe" / "predictions.parquet")
    of_id = {row["id"]: row for row in table.iter_rows(named=True)}
    p = run_it(made.path, "torchscript", torch.from_numpy(samples.read(np.arange(720))["x"]))
    for n, name in enumerate(samples.ids):
        if name in of_id:
            want = [of_id[name][f"pretrained.linear.{c}"] for c in made.classes]
            np.testing.assert_allclose(p[n], want, atol=1e-5)
    labels = tmp_path / "l.csv"
    labels.write_text("key,y\n" + "".join(f"writer_{n:02d},{'ab'[n % 2]}\n" for n in range(12)))
    medcl.probe(digits_run, labels=labels)
    pooled = medcl.export_classifier(digits_run, tmp_path / "q", to="safetensors", task="y")
    facts = json.loads((pooled.path / "classifier.json").read_text())
    assert facts["takes"] == "all samples of one item or patient"
    assert run_it(pooled.path, "safetensors", x).shape == (1, 2)
    with pytest.raises(UsageError, match="Unknown task 'z'"):
        medcl.export_classifier(digits_run, tmp_path / "r", task="z")


def test_a_network_of_one_length_is_exported_for_that(
    images: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = images.model

    def fixed(self: Study, fold: Path, example: Mapping[str, np.ndarray]) -> nn.Module:
        made = model(fold, example)
        torch.manual_seed(0)
        made.classifier.encoder = OneLength(16, 64).eval()
        return made

    monkeypatch.setattr(Study, "model", fixed)
    made = medcl.export_classifier(images, tmp_path / "out", to="torchscript")
    assert made.inputs["x"] == (1, 8, 8)
    facts = json.loads((made.path / "classifier.json").read_text())
    assert facts["any_length"] is False


def test_other_values_are_not_kept(
    images: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "probabilities", lambda kind, z, t: (z / t / 2).softmax(1))
    with pytest.raises(MedclError, match="other values than medcl predict"):
        medcl.export_classifier(images, tmp_path / "out", to="torchscript")
    assert not (tmp_path / "out").exists()


def test_the_command_line(images: Study, tmp_path: Path) -> None:
    asked = ["export", str(images.path), "--to", "safetensors", "--out", str(tmp_path / "o")]
    done = CliRunner().invoke(app, [*asked, "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["input"], told["format"]) == ("x 1 × any × any", "safetensors")
    again = CliRunner().invoke(app, asked)
    assert "exists" in str(again.exception)
    with pytest.raises(UsageError, match="not huggingface-folder"):
        medcl.export_classifier(images, tmp_path / "h", to="huggingface-folder")
    weights = tmp_path / "o" / "classifier.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(MedclError, match="damaged"):
        medcl.load_classifier(tmp_path / "o")
