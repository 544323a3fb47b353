"""The encoder beside hand-crafted features: trained, predicted with, and exported as one head."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

import medcl
from medcl.classifiers.linear_handcrafted import LinearHandcrafted
from medcl.errors import UsageError
from medcl.finetune.opened import Study
from medcl.labels.outputs import Outputs
from medcl.run import HANDCRAFTED, Run
from medcl.tensors import tensors
from medcl_biosignals.baselines import handcrafted


def labels(path: Path, count: int = 24) -> Path:
    with path.open("w", newline="") as handle:
        write = csv.writer(handle)
        write.writerow(("filename", "patient", "mi", "af"))
        for n in range(1, count + 1):
            patient = (n + 1) // 2
            row = (f"00000/{n:05d}_lr", patient, int(patient % 2 == 0), int(patient % 5 < 2))
            write.writerow(row)
    return path


@pytest.fixture(scope="module")
def study(run: Run, archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("beside")
    medcl.finetune(
        run.path,
        folder / "study",
        data=archive / "records100",
        labels=labels(folder / "l.csv"),
        settings={
            "classifier": {"name": "linear-handcrafted"},
            "finetune.kind": "multilabel",
            "finetune.classes": ["mi", "af"],
            "finetune.epochs": 30,
            "finetune.batch_size": 16,
            "finetune.folds": 2,
            "finetune.bootstraps": 100,
            "optimizer.lr": 1e-2,
        },
    )
    return Study.open(folder / "study")


def test_groups_are_weighted_whatever_their_width() -> None:
    encoder = torch.nn.Flatten()
    example = {"x": torch.zeros(4, 2, 8), HANDCRAFTED: torch.zeros(4, 64)}
    for weight in (1.0, 0.5):
        outputs = Outputs("binary", ("a", "b"), "ce", None)
        made = LinearHandcrafted(encoder, example, outputs, weight=weight)
        total = made.weights.square()
        assert total[:16].sum() == pytest.approx(weight**2 * total[16:].sum())
    assert made.weights.min() == 1


@pytest.mark.slow
def test_it_tells_what_the_features_tell(study: Study) -> None:
    figures = {c.name: c.metrics["auroc"].value for c in study.result.figures.classes}
    assert figures["mi"] == pytest.approx(1.0, abs=0.02)  # T waves are upside down
    assert figures["af"] > 0.8


@pytest.mark.slow
def test_new_files_are_predicted_with_their_own_features(
    study: Study, archive: Path, tmp_path: Path
) -> None:
    files = sorted((archive / "records100" / "00000").glob("*.hea"))[:4]
    medcl.predict(study, files, tmp_path / "p.parquet", paths=True)
    said = pl.read_parquet(tmp_path / "p.records.parquet")
    record = pl.read_parquet(tmp_path / "p.parquet").select("item", "record").unique()
    joined = said.join(record, on="item").sort("record")
    assert max(joined["p.mi"][:2]) < 0.5 < min(joined["p.mi"][2:])


@pytest.mark.slow
@pytest.mark.parametrize("to", ["torchscript", "safetensors"])
def test_it_is_exported_with_both_inputs(study: Study, tmp_path: Path, to: str) -> None:
    made = medcl.export_classifier(study, tmp_path / to, to=to)  # type: ignore[arg-type]
    assert set(made.inputs) == {"x", HANDCRAFTED}
    batch = study.samples().read(np.arange(5))
    np.testing.assert_allclose(batch[HANDCRAFTED], handcrafted(batch))
    given = tensors(batch)
    if to == "safetensors":
        model = medcl.load_classifier(tmp_path / to)
    else:
        model = torch.jit.load(tmp_path / to / "classifier.pt")
    with torch.inference_mode():
        p = model(given["x"], given[HANDCRAFTED])
    assert p.shape == (5, 2)
    other = model(given["x"], torch.zeros_like(given[HANDCRAFTED]))
    assert (p - other).abs().max() > 0.05


@pytest.mark.slow
def test_a_stream_has_no_such_features_and_says_so(study: Study) -> None:
    batch = study.samples().read(np.arange(2))
    with pytest.raises(UsageError, match="handcrafted"):
        study.model(study.folds[0], {"x": batch["x"]})
