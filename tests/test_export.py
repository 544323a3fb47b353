"""An encoder leaves its run and gives the same values elsewhere."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator
from torch import nn

import medcl
from medcl import export as exporting
from medcl.embedder import MedclEmbedder
from medcl.errors import MedclError, UsageError
from medcl.recipe import Named
from medcl.run import Run, load_samples


@pytest.fixture(scope="module")
def x(digits_run: Run) -> torch.Tensor:
    samples = load_samples(digits_run.recipe, digits_run.data)
    return torch.from_numpy(samples.read(np.arange(7))["x"])


@pytest.mark.slow
@pytest.mark.parametrize("to", ["safetensors", "huggingface-folder"])
def test_weights_come_back_bit_for_bit(
    digits_run: Run, x: torch.Tensor, tmp_path: Path, to: exporting.Format
) -> None:
    made = exporting.export(digits_run, tmp_path / "out", to=to)
    with torch.inference_mode():
        assert torch.equal(medcl.load_encoder(made.path)(x), digits_run.encoder()(x))
    assert made.difference == 0
    assert made.shape == (1, 8, 8)
    card = (made.path / "README.md").read_text()
    assert "Not for diagnosis" in card
    assert str(made.width) in card


def test_three_lines_of_python_load_a_run(digits_run: Run, x: torch.Tensor) -> None:
    encoder = medcl.load_encoder(str(digits_run.path))
    assert encoder(x).shape == (7, encoder.width)


def test_a_huggingface_folder_is_loaded_by_transformers(
    digits_run: Run, x: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transformers = pytest.importorskip("transformers", reason="the extra hf is not installed")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr(
        transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules")
    )
    out = tmp_path / "digits_encoder"
    exporting.export(digits_run, out, to="huggingface-folder")
    model = transformers.AutoModel.from_pretrained(out, trust_remote_code=True).eval()
    with torch.inference_mode():
        assert torch.equal(model(x), digits_run.encoder()(x))


def test_monai_verifies_a_bundle(digits_run: Run, x: torch.Tensor, tmp_path: Path) -> None:
    from monai.bundle import ConfigParser, verify_net_in_out

    made = exporting.export(digits_run, tmp_path / "out", to="monai-bundle")
    meta, config = (made.path / "configs" / f"{n}.json" for n in ("metadata", "inference"))
    about = {"meta_file": str(meta), "config_file": str(config), "bundle_root": str(made.path)}
    verify_net_in_out("network", device="cpu", **about)
    wrong = {"_meta_#network_data_format#outputs#pred#num_channels": made.width + 1}
    with pytest.raises(ValueError, match="output channel number"):
        verify_net_in_out("network", device="cpu", **about, **wrong)
    parser = ConfigParser()
    parser.read_config(str(config))
    parser["bundle_root"] = str(made.path)
    with torch.inference_mode():
        close = parser.get_parsed_content("network")(x) - digits_run.encoder()(x)
    assert close.abs().max() < 1e-5
    assert "Not for diagnosis" in (made.path / "docs" / "README.md").read_text()
    shape = json.loads(meta.read_text())["network_data_format"]["inputs"]["image"]
    assert (shape["num_channels"], shape["spatial_shape"]) == (1, [8, 8])


def test_torchscript_gives_the_same_for_any_batch(
    digits_run: Run, x: torch.Tensor, tmp_path: Path
) -> None:
    made = exporting.export(digits_run, tmp_path / "out", to="torchscript")
    with torch.inference_mode():
        got = torch.jit.load(made.path / "encoder.pt")(x)
        torch.testing.assert_close(got, digits_run.encoder()(x), rtol=1e-5, atol=1e-5)


def test_onnx_gives_the_same_for_any_batch(
    digits_run: Run, x: torch.Tensor, tmp_path: Path
) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    made = exporting.export(digits_run, tmp_path / "out", to="onnx")
    session = runtime.InferenceSession(str(made.path / "encoder.onnx"))
    (got,) = session.run(None, {"x": x.numpy()})
    with torch.inference_mode():
        np.testing.assert_allclose(got, digits_run.encoder()(x).numpy(), rtol=1e-4, atol=1e-4)


class _Untraceable(nn.Module):
    """What an encoder does that a trace fixes: another way by the values."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.width = inner, inner.width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) * len(x)  # a trace keeps the length it saw


def test_a_graph_that_gives_other_values_is_not_kept(
    digits_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = _Untraceable(digits_run.encoder()).eval()
    monkeypatch.setattr(Run, "encoder", lambda self: encoder)
    with pytest.raises(MedclError, match="gives other values"):
        exporting.export(digits_run, tmp_path / "out", to="torchscript")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.iterdir())


def test_wrong_use_is_said_in_a_line(digits_run: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Unknown format"):
        exporting.export(digits_run, tmp_path / "a", to="pickle")  # type: ignore[arg-type]
    (tmp_path / "b").mkdir()
    with pytest.raises(UsageError, match="exists"):
        exporting.export(digits_run, tmp_path / "b")
    with pytest.raises(UsageError, match="neither a run nor"):
        medcl.load_encoder(tmp_path / "b")


def test_damaged_weights_are_noticed(digits_run: Run, tmp_path: Path) -> None:
    made = exporting.export(digits_run, tmp_path / "out")
    weights = made.path / "encoder.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(MedclError, match="damaged"):
        medcl.load_encoder(made.path)


@pytest.mark.parametrize("place", [str, lambda _: Path("of_somebody")])
def test_a_place_on_this_machine_does_not_go_along(
    digits_run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: Callable[[Path], str | Path],
) -> None:
    encoder = Named.model_validate({"name": "small", "folder": place(tmp_path)})
    recipe = digits_run.recipe.model_copy(update={"encoder": encoder})
    run = Run(digits_run.path, recipe)
    trained = digits_run.encoder()
    monkeypatch.setattr(Run, "encoder", lambda self: trained)
    with pytest.raises(MedclError, match=r"encoder.folder is a path"):
        exporting.export(run, tmp_path / "out")
    made = exporting.export(run, tmp_path / "graph", to="torchscript")
    assert str(place(tmp_path)) not in (made.path / exporting.FACTS).read_text()


def test_nothing_of_the_archive_goes_along(digits_run: Run, tmp_path: Path) -> None:
    made = exporting.export(digits_run, tmp_path / "out")
    facts = json.loads((made.path / exporting.FACTS).read_text())
    assert str(digits_run.data) not in json.dumps(facts)
    for file in made.path.iterdir():
        assert b"writer_" not in file.read_bytes()
        assert str(digits_run.data.parent).encode() not in file.read_bytes()


def test_a_pipeline_of_scikit_learn(digits_run: Run) -> None:
    samples = load_samples(digits_run.recipe, digits_run.data)
    batch = samples.read(np.arange(200))["x"]
    y = np.asarray(samples.labels["digit"])[:200]
    model = make_pipeline(
        MedclEmbedder(digits_run.path, shape=(1, 8, 8)), LogisticRegression(max_iter=500)
    )
    flat = batch.reshape(200, -1)
    assert model.fit(flat[:100], y[:100]).score(flat[100:], y[100:]) > 0.8
    four = MedclEmbedder(digits_run.path).fit(batch).transform(batch)
    np.testing.assert_array_equal(four, model[0].transform(flat))


class _AnyLength(nn.Module):
    """(B, L) of any length, for scikit-learn's checks, which bring tables of many widths."""

    width = 3

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x.mean(1), x.amax(1), x.square().mean(1)], 1)


def test_scikit_learns_own_checks(digits_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medcl.embedder.load_encoder", lambda path: _AnyLength())
    check_estimator(MedclEmbedder(str(digits_run.path), device="cpu"))


def test_a_copy_without_its_facts_is_no_encoder(digits_run: Run, tmp_path: Path) -> None:
    made = exporting.export(digits_run, tmp_path / "out")
    (tmp_path / "copy").mkdir()
    shutil.copy(made.path / "encoder.safetensors", tmp_path / "copy")
    with pytest.raises(UsageError, match="neither a run nor"):
        medcl.load_encoder(tmp_path / "copy")
