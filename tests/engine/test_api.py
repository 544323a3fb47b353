"""The verbs as functions, on an index: the same as on the command line, by friendly arguments."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import tiny_engine
import torch

import medcl
from medcl.embeddings.embeddings import embed_run
from medcl.errors import UsageError
from medcl.probe.probe import probe
from medcl.run import Run

SECTIONS = {
    "method": {"name": "tiny_contrast"},
    "trainer": {"steps": 30, "batch_size": 64, "checkpoint_every": 30},
    "probe": {"task": "digit", "bootstraps": 100},
}


@pytest.fixture(scope="module")
def run(index, tmp_path_factory):
    out = tmp_path_factory.mktemp("api") / "run"
    return medcl.pretrain(tiny_engine.recipe(SECTIONS), str(index), str(out))


def test_paths_are_texts_or_paths(run, index):
    assert isinstance(run, Run)
    assert run.data == index.resolve()
    for name, values in medcl.load_encoder(str(run.path)).state_dict().items():
        assert torch.equal(values, run.encoder().state_dict()[name])


def test_embeddings_are_those_of_the_verb(run, index, tmp_path):
    verb = embed_run(run, None, tmp_path / "verb")
    kept = medcl.embed(str(run.path), index, out=str(tmp_path / "kept"))
    for made in (kept, medcl.embed(run), medcl.embed(run, str(index))):
        assert np.array_equal(made.x, verb.x)
        assert list(made.patients) == list(verb.patients)


@pytest.mark.slow
def test_a_probe_is_that_of_the_verb(run, tmp_path):
    verb = probe([run], out=tmp_path / "verb")
    for n, runs in enumerate((run, str(run.path), [run.path])):
        found = medcl.probe(runs, out=tmp_path / str(n))
        assert found.table() == verb.table()


def test_bags_of_a_run_and_of_an_index(run, index, tmp_path):
    done = medcl.embed_bags(run, tmp_path / "run")
    assert (done.written, done.width) == (40, 32)
    done = medcl.embed_bags(
        index, tmp_path / "index", encoder="mlp", settings={"seed": 3}, untrained=True
    )
    assert done.written == 40
    with pytest.raises(UsageError, match="encoder goes with an index"):
        medcl.embed_bags(run, tmp_path / "no", encoder="mlp")
    with pytest.raises(UsageError, match="give --encoder .encoder=., or a --recipe"):
        medcl.embed_bags(index, tmp_path / "no")


def test_a_study_of_a_run_and_its_predictions(run, index, tmp_path):
    study = medcl.finetune(
        run.path,
        tmp_path / "study",
        folds=2,
        settings={"classifier.name": "linear", "finetune.task": "digit", "finetune.epochs": 2},
    )
    assert study.trainings == 2
    archive = index.parent / "archive"
    for n, (model, records) in enumerate(
        [(tmp_path / "study", archive / "p00.npy"), (str(run.path), [archive / "p00.npy"])]
    ):
        made = medcl.predict(model, records, tmp_path / f"{n}.parquet", workers=1)
        assert pl.read_parquet(made.out).height == 45
