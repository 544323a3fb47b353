"""Encoders from folders: saved with random weights, loaded again, equal; others are explained."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from medcl.errors import UsageError
from medcl.nn.weights import load
from medcl.registry import resolve
from medcl_pathology.encoders.huggingface import huggingface
from medcl_pathology.encoders.parts import IMAGENET
from medcl_pathology.encoders.released import RELEASED, timm
from medcl_pathology.encoders.resnet import resnet
from medcl_pathology.plugin import plugin

MEAN, STD = (torch.tensor(v).view(1, 3, 1, 1) for v in IMAGENET)


@pytest.fixture
def x() -> torch.Tensor:
    return torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_a_transformers_folder_comes_back_with_its_weights(pool, x, tmp_path):
    hf = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = hf.ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        image_size=48,
        patch_size=16,
    )
    net = hf.ViTModel(config, add_pooling_layer=False).eval()
    net.save_pretrained(tmp_path / "vit")
    encoder = huggingface(folder=tmp_path / "vit", pool=pool).eval()
    assert encoder.width == 32
    with torch.inference_mode():
        tokens = net((x - MEAN) / STD).last_hidden_state
        wanted = tokens[:, 0] if pool == "cls" else tokens[:, 1:].mean(dim=1)
        assert encoder(x) == pytest.approx(wanted, abs=1e-5)
        larger = torch.nn.functional.interpolate(x, scale_factor=2)
        assert encoder(larger).shape == (2, 32)  # resized to the model's side
    # Phikon is such a folder.
    with torch.inference_mode():
        same = resolve(plugin.encoders["phikon"])(folder=tmp_path / "vit").eval()(x)
    assert same == pytest.approx(tokens[:, 0], abs=1e-5)


def test_weights_under_a_prefix_are_found_and_foreign_ones_refused(tmp_path, x):
    torch.manual_seed(0)
    one = resnet(depth=10, base=4).eval()
    held = {f"module.encoder_q.{k}": v for k, v in one.net.state_dict().items()}
    torch.save({"state_dict": {**held, "module.queue": torch.zeros(3)}}, tmp_path / "moco.pt")
    other = resnet(depth=10, base=4, weights=tmp_path / "moco.pt").eval()
    with torch.inference_mode():
        assert torch.equal(one(x), other(x))
    with pytest.raises(UsageError, match="does not fit"):
        resnet(depth=10, base=8, weights=tmp_path / "moco.pt")
    with pytest.raises(UsageError, match="No weights at"):
        load(one, tmp_path / "nothing.pt")
    partial = {k: v for k, v in held.items() if "conv1" not in k or "layer" in k}
    torch.save(partial, tmp_path / "partial.pt")
    with pytest.warns(UserWarning, match="not in the file"):
        resnet(depth=10, base=4, weights=tmp_path / "partial.pt")


@pytest.mark.parametrize("name", [*RELEASED, "conch"])
def test_a_released_model_says_how_to_get_it(name):
    with pytest.raises(UsageError, match="is not part of medcl") as raised:
        resolve(plugin.encoders[name])()
    assert "-s encoder.folder=FOLDER" in str(raised.value)
    if name != "conch":
        assert RELEASED[name].repository in str(raised.value)


def test_timm_is_asked_for_where_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "medcl_pathology.encoders.released.import_module",
        lambda name: (_ for _ in ()).throw(ImportError(name)),
    )
    with pytest.raises(UsageError, match=r"pip install 'timm>=1\.0'"):
        timm(name="resnet18")
    with pytest.raises(UsageError, match="needs timm"):
        resolve(plugin.encoders["uni"])(folder=tmp_path)
    with pytest.raises(UsageError, match="pip install git"):
        resolve(plugin.encoders["conch"])(folder=tmp_path)


@pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")
def test_a_timm_folder_comes_back_with_its_weights(tmp_path):
    import timm as package
    from safetensors.torch import save_file

    torch.manual_seed(0)
    net = package.create_model("vit_tiny_patch16_224", num_classes=0).eval()
    save_file(net.state_dict(), tmp_path / "model.safetensors")
    encoder = timm(name="vit_tiny_patch16_224", folder=tmp_path).eval()
    x = torch.rand(1, 3, 224, 224)
    mean, std = (torch.tensor(net.pretrained_cfg[k]).view(1, 3, 1, 1) for k in ("mean", "std"))
    with torch.inference_mode():
        assert encoder(x) == pytest.approx(net((x - mean) / std), abs=1e-5)
    with pytest.raises(UsageError, match="no model"):
        timm(name="no_such_model")
