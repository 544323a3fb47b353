"""Vectors beside samples: a teacher's cached features train as the teacher itself does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import tiny_engine
import torch

from medcl.embeddings.embeddings import embed
from medcl.embeddings.vectors import with_vectors
from medcl.engine.pretrain import pretrain
from medcl.errors import MedclError, UsageError
from medcl.plugin import Samples
from medcl.run import build_encoder, load_samples

STEPS = {"steps": 6, "checkpoint_every": 3, "log_every": 1}
SAMPLES = Samples(
    ["a:0", "a:1", "b:0"],
    ["a", "a", "b"],
    ["p", "p", "q"],
    lambda rows: {"x": np.zeros((len(rows), 2), np.float32)},
)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"id": ["b:0", "a:1", "a:0"], "vector": [[3.0, 0], [2, 0], [1, 0]]}, [1, 2, 3]),
        ({"item": ["b", "a"], "v0": [3.0, 1.0], "v1": [0.0, 0.0]}, [1, 1, 3]),
        ({"patient": ["q", "p"], "vector": [[7.0], [5.0]]}, [5, 5, 7]),
    ],
)
def test_vectors_are_joined_by_key(table: dict, expected: list[float], tmp_path) -> None:
    pl.DataFrame(table).write_parquet(tmp_path / "v.parquet")
    joined = with_vectors(SAMPLES, {"text": str(tmp_path / "v.parquet")})
    batch = joined.read(np.array([2, 0, 1]))
    assert batch["x"].shape == (3, 2)
    assert batch["text"].dtype == np.float32
    assert batch["text"][:, 0].tolist() == [expected[2], expected[0], expected[1]]
    drawing = replace(SAMPLES, draw=lambda rows, seeds: {"x": seeds})
    drawn = with_vectors(drawing, {"text": str(tmp_path / "v.parquet")}).draw
    assert drawn(np.array([2]), np.array([9]))["text"][0, 0] == expected[2]


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ({"id": ["a:0", "b:0"], "v": [1.0, 2.0]}, "1 of 3 samples have no vector"),
        ({"item": ["a", "a", "b"], "v": [1.0, 2.0, 3.0]}, "more than once"),
        ({"name": ["a", "b"], "v": [1.0, 2.0]}, "none of the columns"),
        ({"item": ["a", "b"]}, "one column of lists"),
        ({"item": ["a", "b"], "v": [[1.0], [1.0, 2.0]]}, "differ in length"),
        ({"item": ["a", "b"], "v": [1.0, float("nan")]}, "not finite"),
    ],
)
def test_what_cannot_be_joined_is_said(table: dict, why: str, tmp_path) -> None:
    pl.DataFrame(table).write_parquet(tmp_path / "v.parquet")
    with pytest.raises((UsageError, MedclError), match=why):
        with_vectors(SAMPLES, {"text": str(tmp_path / "v.parquet")})
    (tmp_path / "v.csv").write_text("item,v\n", encoding="utf-8")
    for source in ("v.csv", "nothing"):
        with pytest.raises(UsageError, match=r"vectors\.text"):
            with_vectors(SAMPLES, {"text": str(tmp_path / source)})


@pytest.mark.slow
def test_cached_features_train_as_the_teacher_itself(index, tmp_path) -> None:
    weights = tmp_path / "teacher.safetensors"
    from safetensors.torch import load_file, save_file

    start = tiny_engine.recipe({"encoder": {"name": "mlp", "width": 24}})
    teacher = build_encoder(start, 11)
    save_file(teacher.state_dict(), weights)
    embed(teacher, load_samples(start, index)).save(tmp_path / "features")
    common = {"name": "distil", "out": 24}
    quiet = {"views": {"sigma": 0.0}, "trainer": STEPS}
    live = {"teacher": "tiny/mlp", "settings": {"width": 24}, "weights": str(weights)}
    runs = {}
    for name, method, vectors in (
        ("live", {**common, **live}, {}),
        ("cached", common, {"teacher": str(tmp_path / "features")}),
    ):
        recipe = tiny_engine.recipe({**quiet, "method": method, "vectors": vectors})
        runs[name] = load_file(pretrain(recipe, index, tmp_path / name).encoder_file())
    for key, value in runs["live"].items():
        torch.testing.assert_close(runs["cached"][key], value, rtol=1e-3, atol=1e-5, msg=key)
    assert not torch.equal(
        runs["live"]["body.0.weight"],
        build_encoder(tiny_engine.recipe(), tiny_engine.recipe().seed).state_dict()[
            "body.0.weight"
        ],
    )
