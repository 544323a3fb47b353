"""`medcl.pretrain` and `medcl.embed` on arrays and data sets: no index, the same run folder."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import tiny_engine
import torch
from sklearn.datasets import load_digits
from torch.utils.data import Dataset, IterableDataset, TensorDataset

import medcl
from medcl import manifest
from medcl.engine.in_memory import given
from medcl.engine.pretrain import NO_PATIENTS
from medcl.errors import UsageError
from medcl.run import Run

X = (load_digits().data[:600] / 16).astype(np.float32)
Y = load_digits().target[:600]
WHO = [f"Surname {n % 30}" for n in range(600)]
SHORT = {"trainer": {"steps": 6, "batch_size": 64, "checkpoint_every": 3}, "monitor": {"every": 3}}


def recipe(**sections):
    return tiny_engine.recipe({"method": {"name": "tiny_contrast"}, **SHORT, **sections})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("memory") / "run"
    return medcl.pretrain(recipe(), X, out, patients=WHO, labels={"digit": Y})


class Entries(Dataset):
    """Entries as ``make`` gives them."""

    def __init__(self, make):
        self.make = make

    def __len__(self):
        return len(X)

    def __getitem__(self, position):
        return self.make(position)


def test_a_run_on_arrays_is_a_run(run):
    opened = Run.open(run.path)
    assert opened.facts["finished"] is True
    assert opened.facts["in_memory"] is True
    assert opened.facts["patients_known"] is True
    assert opened.facts["patients"] == 21
    assert opened.facts["warnings"] == []
    assert sorted(opened.split()) == sorted(f"p{n}" for n in range(30))
    assert set(opened.split().values()) == {"train", "test"}
    assert "knn" in (run.path / "metrics.csv").read_text()
    assert medcl.load_encoder(run.path).width == 32
    for path in run.path.rglob("*"):
        assert path.is_dir() or b"Surname" not in path.read_bytes(), "whose they are stays out"


def test_the_split_is_by_patient(run):
    seen = given(X, WHO)
    split = run.split()
    sides = {who: split[key] for who, key in zip(WHO, seen.samples.patients, strict=True)}
    assert len(sides) == 30
    trained = sum(sides[who] == "train" for who in WHO)
    assert run.facts["samples"] == trained


@pytest.mark.slow
@pytest.mark.parametrize(
    "source",
    [
        torch.from_numpy(X),
        TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)),
        Entries(lambda n: X[n]),
        Entries(lambda n: {"x": torch.from_numpy(X[n]), "meta": "anything"}),
        Entries(lambda n: (X[n].astype(np.float64), Y[n])),
    ],
    ids=["tensor", "tensors", "arrays", "mappings", "tuples"],
)
def test_all_sources_give_the_same_encoder(source, run, tmp_path):
    other = medcl.pretrain(recipe(), source, tmp_path / "run", patients=WHO, labels={"digit": Y})
    for name, values in run.encoder().state_dict().items():
        assert torch.equal(values, other.encoder().state_dict()[name]), name


def test_the_same_again_is_done_and_other_data_are_refused(run, tmp_path, index):
    before = (run.path / "encoder.safetensors").stat().st_mtime_ns
    medcl.pretrain(recipe(), X, run.path, patients=WHO, labels={"digit": Y})
    assert (run.path / "encoder.safetensors").stat().st_mtime_ns == before
    with pytest.raises(UsageError, match="run on other data: arrays in memory, not"):
        medcl.pretrain(recipe(), index, run.path)
    medcl.pretrain(recipe(), index, tmp_path / "indexed")
    with pytest.raises(UsageError, match="not arrays in memory"):
        medcl.pretrain(recipe(), X, tmp_path / "indexed", patients=WHO)


@pytest.mark.parametrize("change", ["values", "patients", "labels"])
def test_a_broken_off_run_goes_on_with_the_same_samples_only(run, tmp_path, change):
    facts = json.loads((run.path / "run.json").read_text())
    out = tmp_path / "run"
    medcl.pretrain(recipe(), X, out, patients=WHO, labels={"digit": Y})
    manifest.write_text(out / "run.json", json.dumps(facts | {"finished": False}))
    x, who, y = X.copy(), list(WHO), Y.copy()
    if change == "values":
        x[17, 20] += 0.5
    elif change == "patients":
        who[17] = "Surname 3"
    else:
        y[:20] = (y[:20] + 1) % 10
    with pytest.raises(UsageError, match="The array or data set changed since"):
        medcl.pretrain(recipe(), x, out, patients=who, labels={"digit": y})
    medcl.pretrain(recipe(), X, out, patients=WHO, labels={"digit": Y})


def test_without_patients_the_run_says_so_everywhere(tmp_path, capsys):
    from medcl.report.report import write

    run = medcl.pretrain(recipe(), X, tmp_path / "run")
    assert run.facts["patients_known"] is False
    assert run.facts["patients"] is None
    assert run.facts["warnings"][0] == NO_PATIENTS
    page = write(run, tmp_path / "report.html").read_text()
    assert NO_PATIENTS in page
    assert not re.search("no leak", page, re.IGNORECASE)


def test_patients_are_asked_for_where_positives_are_theirs(tmp_path):
    asked = recipe(method={"name": "tiny_momentum", "partner": True})
    with pytest.raises(UsageError, match="are samples of one patient: give the"):
        medcl.pretrain(asked, X, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    medcl.pretrain(asked, X, tmp_path / "run", patients=WHO)


class Endless(IterableDataset):
    def __iter__(self):
        return iter(X)


@pytest.mark.parametrize(
    ("source", "options", "why"),
    [
        (Endless(), {}, "__len__ and __getitem__"),
        (X[:0], {}, "no samples"),
        (X, {"patients": WHO[1:]}, "patients: 599 entries for 600"),
        (X, {"patients": [*WHO[1:], None]}, "no patient: leave them out"),
        (X, {"patients": [*range(599), np.nan]}, "no patient: leave them out"),
        (X, {"labels": {"digit": Y[1:]}}, "digit: 599 entries"),
        (np.array(["a", "b"]), {}, "give numbers"),
    ],
)
def test_what_cannot_be_trained_on_is_said(source, options, why):
    with pytest.raises(UsageError, match=why):
        given(source, **options)


def test_entries_of_several_shapes_are_refused():
    samples = given(Entries(lambda n: X[n, : 60 + n % 2])).samples
    with pytest.raises(UsageError, match=r"\(60,\), \(61,\)"):
        samples.read(np.arange(4))
    with pytest.raises(UsageError, match="hold pixels, no x"):
        given(Entries(lambda n: {"pixels": X[n]})).samples.read(np.arange(4))


def test_a_patient_has_one_key_however_it_is_written():
    assert given(X[:4], [7, 7.0, "7", np.int64(7)]).samples.patients == ["p0"] * 4


def test_embeddings_of_arrays(run, index, tmp_path):
    made = medcl.embed(run, X, patients=WHO, labels={"digit": Y})
    again = medcl.embed(run.path, TensorDataset(torch.from_numpy(X)))
    assert made.x.shape == (600, 32)
    assert np.array_equal(made.x, again.x)
    with torch.no_grad():
        direct = run.encoder()(torch.from_numpy(X)).numpy()
    np.testing.assert_allclose(made.x, direct, atol=1e-5)
    assert made.labels["digit"].tolist() == Y.tolist()
    for verb in (medcl.embed, medcl.probe):
        with pytest.raises(UsageError, match="trained on arrays in memory, so there is no index"):
            verb(run)
    kept = medcl.embed(run, index, out=tmp_path / "kept")
    assert np.array_equal(np.asarray(kept.x), medcl.embed(run, index).x)
    with pytest.raises(UsageError, match="go with samples in memory"):
        medcl.embed(run, index, patients=WHO)


def test_recipes_and_settings_come_in_every_form(tmp_path):
    text = {
        "name": "mine",
        "plugin": "tiny",
        "encoder": {"name": "mlp"},
        "method": {"name": "tiny_contrast"},
        "trainer": {"steps": 2, "batch_size": 64, "accelerator": "cpu"},
    }
    lr = {"optimizer.lr": 1e-05, "encoder": {"name": "mlp", "width": 8}}
    run = medcl.pretrain(text, X, tmp_path / "a", patients=WHO, settings=lr)
    assert (run.recipe.optimizer.lr, run.encoder().width) == (1e-05, 8)
    other = medcl.pretrain(
        run.recipe, X, tmp_path / "b", patients=WHO, settings=["trainer.steps=1"]
    )
    assert (other.recipe.trainer.steps, other.recipe.optimizer.lr) == (1, 1e-05)
    with pytest.raises(UsageError, match="Did you mean 'lr'"):
        medcl.pretrain(text, X, tmp_path / "c", settings={"optimizer.lrr": 1})
