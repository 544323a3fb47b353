"""Embeddings: in order, on disk, finite, and not made twice."""

from __future__ import annotations

import errno
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn

from medcl import manifest
from medcl.embeddings import embeddings as module
from medcl.embeddings.embeddings import Embeddings, embed, embed_run, features
from medcl.errors import MedclError, UsageError
from medcl.io.room import NoRoomError
from medcl.plugin import Samples
from medcl.run import Run, load_samples


def read(x: np.ndarray, positions: np.ndarray) -> dict[str, np.ndarray]:
    return {"x": x[positions]}


@pytest.fixture
def samples() -> Samples:
    x = np.random.default_rng(0).standard_normal((23, 3)).astype(np.float32)
    ids = [f"s{i}" for i in range(23)]
    labels = {"class": np.array(["a", "b", ""] * 7 + ["a", "b"]), "both": np.ones((23, 2), int)}
    return Samples(ids, ["i"] * 23, ["p", "q"] * 11 + ["p"], partial(read, x), labels)


def everything(samples: Samples) -> np.ndarray:
    return samples.read(np.arange(len(samples)))["x"]


@pytest.mark.parametrize("workers", [0, 2])
def test_rows_are_in_order(samples: Samples, workers: int) -> None:
    encoder = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5))
    made = embed(encoder, samples, batch_size=5, device="cpu", workers=workers)
    with torch.no_grad():
        expected = encoder[0](torch.from_numpy(everything(samples))).numpy()
    np.testing.assert_allclose(made.x, expected, atol=1e-6)  # and dropout was off
    assert made.x.dtype == np.float32
    assert list(made.ids) == list(samples.ids)


def test_take_keeps_keys_and_values_together(samples: Samples) -> None:
    some = samples.at(np.array([4, 20, 7]))
    assert some.ids == ["s4", "s20", "s7"]
    np.testing.assert_array_equal(some.read(np.array([2, 0]))["x"], everything(samples)[[7, 4]])
    np.testing.assert_array_equal(some.labels["class"], samples.labels["class"][[4, 20, 7]])


def test_bad_features_name_the_sample(samples: Samples) -> None:
    def log(batch: dict[str, np.ndarray]) -> np.ndarray:
        y = np.array(batch["x"])
        y[y[:, 0] == everything(samples)[13, 0]] = np.inf
        return y

    with pytest.raises(MedclError, match="sample s13"):
        features(log, samples, batch_size=4)
    with pytest.raises(MedclError, match="shape"):
        features(lambda batch: batch["x"][0], samples)


def test_saved_and_loaded(samples: Samples, tmp_path: Path) -> None:
    made = replace(embed(nn.Identity(), samples, device="cpu"), meta={"recipe": "none"})
    made.save(tmp_path / "emb")
    made.save(tmp_path / "emb")  # replaces what is there
    back = Embeddings.load(tmp_path / "emb")
    assert isinstance(back.x, np.memmap)
    np.testing.assert_array_equal(back.x, made.x)
    assert (back.ids, back.items) == (list(made.ids), list(made.items))
    np.testing.assert_array_equal(back.labels["class"], made.labels["class"])
    assert back.labels["both"].shape == (23, 2)
    assert back.meta == {"recipe": "none"}

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(UsageError, match="no embeddings"):
        made.save(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"
    with pytest.raises(UsageError, match="medcl embed"):
        Embeddings.load(tmp_path / "mine")


def test_what_is_replaced_stays_until_the_new_one_is_whole(
    samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = embed(nn.Identity(), samples, device="cpu")
    made.save(tmp_path / "emb")

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", full)
        with pytest.raises(NoRoomError, match="No room to write"):
            made.save(tmp_path / "emb")
    np.testing.assert_array_equal(Embeddings.load(tmp_path / "emb").x, made.x)
    replace(made, x=made.x + 1).save(tmp_path / "emb")
    np.testing.assert_array_equal(Embeddings.load(tmp_path / "emb").x, made.x + 1)
    assert [p.name for p in tmp_path.iterdir()] == ["emb"], "nothing is left lying about"


@pytest.mark.parametrize("device", ["foo", "cuda:99", "meta"])
def test_a_device_that_is_not_there_is_said(samples: Samples, device: str) -> None:
    with pytest.raises(UsageError, match=f"Device '{device}' is not available"):
        embed(nn.Identity(), samples, device=device)


def test_embed_run_skips_what_is_done(
    digits_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = embed_run(digits_run, None, tmp_path / "emb", device="cpu")
    samples = load_samples(digits_run.recipe, digits_run.data)
    encoder = digits_run.encoder()
    with torch.no_grad():
        expected = encoder(torch.from_numpy(everything(samples))).numpy()
    np.testing.assert_allclose(made.x, expected, atol=1e-5)
    assert "writer" not in (tmp_path / "emb" / "meta.json").read_text()

    def fail(*args: object, **kwargs: object) -> None:
        raise AssertionError("embedded again")

    monkeypatch.setattr(module, "embed", fail)
    again = embed_run(digits_run, None, tmp_path / "emb", device="cpu")
    np.testing.assert_array_equal(again.x, made.x)
    monkeypatch.setattr("medcl.embeddings.sources.weights", lambda run: "other weights")
    with pytest.raises(AssertionError, match="embedded again"):
        embed_run(digits_run, None, tmp_path / "emb", device="cpu")


def test_embeddings_are_found_again_without_building_samples(
    digits_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of committed code; any other index, setting or code is looked at in full."""
    monkeypatch.setattr("medcl.embeddings.sources.commit", lambda: "0123456789ab")
    made = embed_run(digits_run, None, tmp_path / "emb", device="cpu")

    def fail(*args: object, **kwargs: object) -> None:
        raise AssertionError("samples were built")

    monkeypatch.setattr(module, "samples_of", fail)
    again = embed_run(digits_run, None, tmp_path / "emb", device="cpu")
    np.testing.assert_array_equal(again.x, made.x)
    settings = digits_run.recipe.model_copy(update={"dataset": {"size": 7}})
    grown = Path(shutil.copytree(digits_run.data, tmp_path / "grown"))
    frame = pl.read_parquet(grown / "items.parquet")
    with manifest.replacing(grown / "items.parquet") as path:
        frame.head(3).write_parquet(path)
    for run, data in ((replace(digits_run, recipe=settings), None), (digits_run, grown)):
        with pytest.raises(AssertionError, match="samples were built"):
            embed_run(run, data, tmp_path / "emb", device="cpu")
    monkeypatch.setattr("medcl.embeddings.sources.commit", lambda: "0123456789ab-dirty")
    with pytest.raises(AssertionError, match="samples were built"):
        embed_run(digits_run, None, tmp_path / "emb", device="cpu")
