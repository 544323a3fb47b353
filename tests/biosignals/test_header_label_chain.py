"""From what headers say to a study that learnt from it: every step on the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from medcl.finetune.opened import Study
from medcl_cli.main import app

PEOPLE = {
    "101": "75 F", "106": "24 F", "119": "-1 F", "208": "23 F",
    "118": "69 M", "203": "43 M", "205": "59 M", "223": "73 M",
}  # fmt: skip
"""Age and sex as the headers of MIT-BIH say them; of 119 the age is left out here."""
TINY = [
    "encoder={name: resnet1d, channels: 2, widths: [8, 16], blocks: 1, stride: 4}",
    "trainer={steps: 4, batch_size: 16}",
    "prepare.fs=100", "views.fs=100", "dataset.seconds=4", "dataset.stride=60",
    "dataset.quality=0", "probe.task=null", "monitor={every: 100, samples: 32}",
]  # fmt: skip
TAUGHT = [
    "classifier.name=full", "finetune.label=sex",
    "finetune.auxiliary={age: {weight: 0.1, noisy: true}}",
    "finetune.epochs=1", "finetune.bootstraps=100", "finetune.validation=0",
]  # fmt: skip


def ran(*words: object, settings: list[str] | None = None) -> str:
    asked = [word for setting in settings or () for word in ("-s", setting)]
    done = CliRunner().invoke(app, [*map(str, words), *asked])
    assert done.exit_code == 0, done.exception
    return done.stdout


@pytest.mark.slow
def test_ages_of_headers_are_learnt_beside_the_label_and_the_study_is_questioned(
    sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, idx, run, study = (tmp_path / name for name in ("archive", "idx", "run", "study"))
    archive.mkdir()
    for name, said in PEOPLE.items():
        for file in sample.glob(f"{name}.*"):
            shutil.copy(file, archive / file.name)
        with (archive / f"{name}.hea").open("a") as header:
            header.write(f"# {said} 1085 1629 x1\n")
    (tmp_path / "key").write_text("MIT-BIH is public: this key hides nothing")
    monkeypatch.setenv("MEDCL_KEY_FILE", str(tmp_path / "key"))

    ran("index", archive, "--plugin", "biosignals", "--out", idx)
    ages = pl.read_parquet(idx / "items.parquet")["label.age"]
    assert sorted(ages.drop_nulls()) == [23, 24, 43, 59, 69, 73, 75]
    ran("pretrain", "simclr-ecg", "--data", idx, "--out", run, settings=TINY)
    told = json.loads(ran("finetune", run, "--folds", 2, "--out", study, "--json", settings=TAUGHT))
    assert told["label"] == "sex"

    opened = Study.open(study)
    assert len(opened.folds) == 2
    for fold in opened.folds:
        facts = json.loads((fold / "fold.json").read_text())
        (also,) = facts["auxiliary"]
        assert (also["name"], also["kind"], also["weight"]) == ("age", "regression", 0.1)
        model = opened.model(fold, opened.samples().read(np.arange(2)))
        assert any("also" in name for name in model.state_dict()), "nothing was there to learn it"

    asked = json.loads(ran("evaluate", study, "--fast", "--json"))
    assert asked["audit"]["passed"]
    assert asked["audit"]["test_patients"] == len(PEOPLE)
    assert (study / "evaluation" / "evaluation.json").is_file()
