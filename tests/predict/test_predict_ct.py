"""medcl predict with a study of CT slices: the sample's volumes, which are real."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from medcl import plugin as plugins
from medcl import recipe as recipes
from medcl.archive.index import Index, build
from medcl.finetune.finetune import Source, finetune
from medcl.finetune.opened import Study
from medcl.predict.batch import predict

RECIPE = {
    "name": "small",
    "plugin": "ct",
    "prepare": {"spacing": [0.0, 12.0, 12.0], "crop": "none"},
    "dataset": {"kind": "slice", "size": [32, 32]},
    "encoder": {"name": "resnet2d", "depth": 10, "base": 8, "stem": "small"},
    "classifier": {"name": "full"},
    "finetune": {"epochs": 1, "batch_size": 8, "validation": 0, "bootstraps": 100, "label": "part"},
}


@pytest.mark.slow
def test_new_volumes_get_classes(tmp_path: Path) -> None:
    plugin = plugins.get("ct")
    assert plugin.sample is not None
    key = tmp_path / "key"
    key.write_text("public volumes: hide nothing")
    build(plugin.sample, tmp_path / "idx", plugin, key_file=key)
    index = Index.open(tmp_path / "idx")
    rows, split = ["key,part"], ["key,split"]
    for item in index.items["id"]:
        where = index.locate(item)
        rows.append(f"{where},{'chest' if 'chest' in where else 'belly'}")
        split.append(f"{where},{'test' if 'nii' in where else 'train'}")
    (tmp_path / "parts.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "split.csv").write_text("\n".join(split) + "\n")
    finetune(
        Source(recipes.parse(RECIPE), tmp_path / "idx"),
        tmp_path / "study",
        labels=tmp_path / "parts.csv",
        split=tmp_path / "split.csv",
    )
    study = Study.open(tmp_path / "study")
    records = [plugin.sample / "abdomen_ct.nii.gz", plugin.sample / "chest.zip"]
    made = predict(study, records, tmp_path / "p.parquet", key_file=key)
    table = pl.read_parquet(tmp_path / "p.parquet")
    assert (made.records, made.patients) == (3, 2)  # a chest in two kernels
    p = table.select("p.belly", "p.chest").to_numpy()
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-5)
    people = pl.read_parquet(tmp_path / "p.patients.parquet")
    assert sorted(people["seen"]) == [False, True]  # the chest was trained on
    assert made.notes[0].startswith("1 of 2 patients are training patients of every model")
    kept = study.tested(study.folds[0])
    place = table.filter(~pl.col("seen")).join(kept, left_on="sample", right_on="id")
    assert len(place) == len(kept) > 10
    scores = place.select("score.0", "score.1").to_numpy()
    want = 1 / (1 + np.exp(scores[:, 0] - scores[:, 1]))
    np.testing.assert_allclose(place["p.chest"], want, atol=1e-4)
