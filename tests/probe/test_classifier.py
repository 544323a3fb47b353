"""The probe's classifier is fitted once: what predicts new samples is what was judged."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from medcl.embeddings.embeddings import embed
from medcl.errors import MedclError
from medcl.predict.batch import predict
from medcl.probe.classifier import classifier
from medcl.probe.probe import probe
from medcl.run import Run, load_samples


@pytest.fixture(scope="module")
def probed(digits_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("probed") / "run"
    shutil.copytree(digits_run.path, folder)
    run = Run.open(folder)
    probe([run])
    return run


def judged(run: Run) -> tuple[list[str], np.ndarray]:
    table = pl.read_parquet(run.path / "probe" / "predictions.parquet").sort("id")
    columns = [name for name in table.columns if name.startswith("pretrained.linear.")]
    return table["id"].to_list(), table.select(columns).to_numpy()


@pytest.mark.slow
def test_predict_gives_the_probabilities_that_were_judged(probed: Run, tmp_path: Path) -> None:
    task = probed.recipe.probe.task or next(iter(probed.plugin.tasks))
    ids, want = judged(probed)
    predict(probed, [probed.data], tmp_path / "p.parquet", task=task)
    table = (
        pl.read_parquet(tmp_path / "p.parquet").filter(pl.col("sample").is_in(ids)).sort("sample")
    )
    assert table["sample"].to_list() == ids
    got = table.select([name for name in table.columns if name.startswith("p.")]).to_numpy()
    np.testing.assert_allclose(got, want, atol=1e-6)


@pytest.mark.slow
def test_without_a_probe_the_same_is_fitted(probed: Run, tmp_path: Path) -> None:
    run = Run.open(shutil.copytree(probed.path, tmp_path / "run"))
    shutil.rmtree(run.path / "probe")
    task = next(iter(run.plugin.tasks))
    fitted = classifier(run, run.encoder(), task)
    ids, want = judged(probed)
    samples = load_samples(run.recipe, run.data, task=task)
    rows = np.flatnonzero(np.isin(np.asarray(samples.ids), ids))
    order = np.argsort(np.asarray(samples.ids)[rows])
    x = embed(run.encoder(), samples).x[rows][order]
    np.testing.assert_allclose(fitted.predict(x), want, atol=1e-6)
    assert (run.path / "probe" / f"head.{task}.safetensors").is_file()


@pytest.mark.slow
def test_another_encoder_has_no_use_for_it(
    probed: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run.open(shutil.copytree(probed.path, tmp_path / "run"))
    weights = run.path / "encoder.safetensors"
    from safetensors.torch import load_file, save_file

    save_file({name: values * 1.01 for name, values in load_file(weights).items()}, weights)
    monkeypatch.setattr(type(run), "data", property(lambda self: tmp_path / "gone"))
    with pytest.raises(MedclError, match="is missing"):
        classifier(run, run.encoder(), next(iter(run.plugin.tasks)))
