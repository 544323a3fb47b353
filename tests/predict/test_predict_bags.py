"""medcl predict with a study of bags: MUSK 1 (real), from its file and from its index."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from bags_in_memory import MUSK

from medcl.archive.index import build
from medcl.finetune.finetune import finetune, opened
from medcl.finetune.opened import Study
from medcl.labels.activation import probabilities
from medcl.plugin import get
from medcl.predict.batch import predict

SMALL = ("finetune.epochs=3", "finetune.folds=2", "finetune.repeats=2", "finetune.bootstraps=100")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Two folds, twice over."""
    folder = tmp_path_factory.mktemp("musk")
    (folder / "archive").mkdir()
    shutil.copy(MUSK, folder / "archive" / MUSK.name)
    (folder / "key").write_bytes(b"these bags have no secrets at all")
    build(folder / "archive", folder / "idx", get("pathology"), key_file=folder / "key")
    finetune(opened(folder / "idx", "pathology/musk", SMALL), folder / "study")
    return Study.open(folder / "study")


@pytest.mark.slow
@pytest.mark.parametrize("source", ["idx", "archive"])
def test_bags_are_judged_by_who_tested_them(study: Study, tmp_path: Path, source: str) -> None:
    """Of two repeats by two models, each with its own temperature: the mean of what was tested."""
    home = study.path.parent
    predict(study, [home / source], tmp_path / "p.parquet", key_file=home / "key", batch_size=7)
    table = pl.read_parquet(tmp_path / "p.parquet")
    assert len(table) == 92
    assert table["folds"].unique().to_list() == [2]
    parts = []
    for fold in study.folds:
        kept = study.tested(fold)
        told = json.loads((fold / "fold.json").read_text())
        scores = kept.select("^score.*$").to_numpy()
        p = probabilities("binary", scores, told["temperature"])[:, 1]
        parts.append(kept.select("id").with_columns(p=p, t=pl.lit(told["threshold"])))
    want = pl.concat(parts).group_by("id").mean()
    both = table.join(want, left_on="sample", right_on="id", validate="1:1")
    assert len(both) == 92
    name = next(c for c in table.columns if c == f"p.{study.result.classes[1]}")
    np.testing.assert_allclose(both[name], both["p"], atol=1e-5)
    np.testing.assert_allclose(both["threshold"], both["t"], atol=1e-6)
