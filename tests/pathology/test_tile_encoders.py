"""Encoders from folders: saved with random weights, loaded again, equal; others are explained."""

from __future__ import annotations

import importlib.util
import sys
import types

import pytest
import torch

from medcl.errors import UsageError
from medcl.nn.weights import load
from medcl.registry import resolve
from medcl_pathology.encoders.huggingface import huggingface
from medcl_pathology.encoders.models import RELEASED
from medcl_pathology.encoders.parts import IMAGENET
from medcl_pathology.encoders.released import OPENERS, Fed, attribute, timm
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
    # Phikon is such a folder, at its authors' 224 pixels; so is Midnight, in other colours.
    large = torch.rand(1, 3, 224, 224)
    config.image_size = 224
    net = hf.ViTModel(config, add_pooling_layer=False).eval()
    net.save_pretrained(tmp_path / "vit224")
    with torch.inference_mode():
        tokens = net((large - MEAN) / STD).last_hidden_state
        same = resolve(plugin.encoders["phikon"])(folder=tmp_path / "vit224").eval()(large)
        assert same == pytest.approx(tokens[:, 0], abs=1e-5)
        tokens = net((large - 0.5) / 0.5).last_hidden_state
        both = torch.cat([tokens[:, 0], tokens[:, 1:].mean(dim=1)], dim=1)
        same = resolve(plugin.encoders["midnight"])(folder=tmp_path / "vit224").eval()(large)
        assert same == pytest.approx(both, abs=1e-5)


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


@pytest.mark.parametrize("name", RELEASED)
def test_a_released_model_says_how_to_get_it(name):
    built = RELEASED[name].family != "code"
    words = "is not part of medcl" if built else "code, which medcl does not run"
    with pytest.raises(UsageError, match=words) as raised:
        resolve(plugin.encoders[name])()
    # nobody is sent for a folder that would then be refused
    assert ("-s encoder.folder=FOLDER" in str(raised.value)) == built
    assert RELEASED[name].repository in str(raised.value)
    assert RELEASED[name].licence in str(raised.value)


def test_timm_is_asked_for_where_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "medcl_pathology.encoders.released.import_module",
        lambda name: (_ for _ in ()).throw(ImportError(name)),
    )
    with pytest.raises(UsageError, match=r"pip install 'timm>=1\.0'"):
        timm(model="resnet18")
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
    encoder = timm(model="vit_tiny_patch16_224", folder=tmp_path).eval()
    x = torch.rand(1, 3, 224, 224)
    mean, std = (torch.tensor(net.pretrained_cfg[k]).view(1, 3, 1, 1) for k in ("mean", "std"))
    with torch.inference_mode():
        assert encoder(x) == pytest.approx(net((x - mean) / std), abs=1e-5)
    with pytest.raises(UsageError, match="no model"):
        timm(model="no_such_model")


def test_the_plugin_names_all_released_models():
    named = {name for name, where in plugin.encoders.items() if ".released:" in str(where)}
    assert named == {*RELEASED, "timm"}
    for name in RELEASED:
        assert resolve(plugin.encoders[name]) is OPENERS[name], attribute(name)


def test_tiles_are_fed_as_the_authors_do():
    x = torch.rand(2, 3, 256, 256)
    gigapath = Fed(RELEASED["gigapath"])
    wanted = (x[..., 16:240, 16:240] - MEAN) / STD  # Resize 256, CenterCrop 224: the middle
    assert torch.allclose(gigapath(x), wanted, atol=1e-6)
    assert Fed(RELEASED["uni"])(x).shape == (2, 3, 224, 224)  # the whole, smaller
    assert Fed(RELEASED["conch"])(torch.rand(1, 3, 512, 512)).shape == (1, 3, 448, 448)
    plain = torch.rand(2, 3, 224, 224)
    assert torch.allclose(Fed(RELEASED["phikon"])(plain), (plain - MEAN) / STD, atol=1e-6)
    for model in RELEASED.values():
        assert model.crop <= model.resize <= model.size, model.repository


class TinyTimm:
    """Of timm the two things that are used, for networks of few weights: it wants torchvision."""

    class layers:
        SwiGLUPacked = torch.nn.Identity

    @classmethod
    def create_model(cls, name, *, pretrained, num_classes, **options):
        if name == "no_such_model":
            raise RuntimeError("Unknown model")
        assert not pretrained
        net = TinyViT(options.get("reg_tokens", 4 if "reg4" in name else 0))
        net.whole = options.get("global_pool") == ""
        return net


class TinyViT(torch.nn.Module):
    """Tokens of a class, registers and patches of 112 pixels."""

    num_features = 6
    whole = False

    def __init__(self, registers: int) -> None:
        super().__init__()
        self.pretrained_cfg = {"mean": (0.5,) * 3, "std": (0.25,) * 3}
        self.patches = torch.nn.Conv2d(3, 6, 112, 112)
        self.first = torch.nn.Parameter(torch.rand(1 + registers, 6))

    def forward(self, x):
        patches = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.first.expand(len(x), -1, -1), patches], dim=1)
        return tokens if self.whole else tokens[:, 0]


OF_TIMM = sorted(name for name, model in RELEASED.items() if model.family == "timm")


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """A folder with the weights of a tiny network for each of timm's models."""
    monkeypatch.setattr("medcl_pathology.encoders.released._timm", lambda name: TinyTimm)

    def folder(name):
        model = RELEASED[name]
        torch.manual_seed(1)
        options = {k: v for k, v in model.options.items() if k != "swiglu"}
        net = TinyTimm.create_model(model.build, pretrained=False, num_classes=0, **options)
        torch.save(net.state_dict(), tmp_path / "pytorch_model.bin")
        return tmp_path, net.eval()

    return folder


@pytest.mark.parametrize("name", OF_TIMM)
def test_each_model_of_timm_comes_back_with_its_weights(name, tiny):
    folder, net = tiny(name)
    model = RELEASED[name]
    encoder = OPENERS[name](folder=folder).eval()
    x = torch.rand(2, 3, 224, 224)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in model.colours)
    with torch.inference_mode():
        tokens = net((x - mean) / std)
        if model.pool == "cls+mean":
            tokens = torch.cat([tokens[:, 0], tokens[:, model.prefix :].mean(1)], 1)
        assert encoder(x) == pytest.approx(tokens, abs=1e-5)
    assert encoder.width == tokens.shape[1]


def tiny_folder(name, folder, monkeypatch):
    """A tiny network of a model's architecture, as its authors' folder holds it."""
    folder.mkdir()
    torch.manual_seed(2)
    if name == "conch":  # its package builds the network; the tile's side is what it says
        package = types.ModuleType("conch.open_clip_custom")
        package.create_model_from_pretrained = lambda arch, path: (TinyConch(), None)
        monkeypatch.setitem(sys.modules, "conch", types.ModuleType("conch"))
        monkeypatch.setitem(sys.modules, "conch.open_clip_custom", package)
        (folder / "pytorch_model.bin").write_bytes(b"")
        return folder
    hf = pytest.importorskip("transformers")
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    if name == "phikon":
        config = hf.ViTConfig(**shape, intermediate_size=8, image_size=224, patch_size=56)
        net = hf.ViTModel(config, add_pooling_layer=False)
    else:  # both are DINOv2's
        net = hf.Dinov2Model(hf.Dinov2Config(**shape, mlp_ratio=1, image_size=224, patch_size=56))
    net.save_pretrained(folder)
    return folder


class TinyConch(torch.nn.Module):
    def encode_image(self, x, *, proj_contrast, normalize):
        assert x.shape[1:] == (3, 448, 448)
        assert not proj_contrast
        assert not normalize
        return x.mean((2, 3)).repeat(1, 171)[:, :512]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*RELEASED, "timm", "huggingface", "resnet", "vit"])
def test_every_name_is_tried_through_the_command_line(name, tiny, cmu_index, tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from medcl_cli.main import app

    words = ["embed", str(cmu_index.path), "--encoder", name, "--out", str(tmp_path / "bags"),
             "-s", "prepare.tissue=0.9"]  # fmt: skip
    if name in OF_TIMM:
        folder, _ = tiny(name)
        made = CliRunner().invoke(app, [*words, "-s", f"encoder.folder={folder}"])
        assert made.exit_code == 0, made.output
        return
    if name == "timm":
        made = CliRunner().invoke(app, [*words, "-s", "encoder.model=tiny", "--untrained"])
        assert made.exit_code == 0, made.output
        return
    if name in ("resnet", "vit"):
        small = {"resnet": ["encoder.depth=10", "encoder.base=4"],
                 "vit": ["encoder.width=12", "encoder.depth=1", "encoder.heads=2"]}  # fmt: skip
        words += [word for value in small[name] for word in ("-s", value)]
        refused = CliRunner().invoke(app, words)
        assert refused.exit_code != 0
        assert "has no weights" in str(refused.exception)
        made = CliRunner().invoke(app, [*words, "--untrained", "--json"])
        assert made.exit_code == 0, made.output
        assert '"untrained": true' in made.output.lower()
        assert '"untrained": true' in (tmp_path / "bags" / "bags.json").read_text()
        return
    if name != "huggingface" and RELEASED[name].family in ("transformers", "conch"):
        folder = tiny_folder(name, tmp_path / "model", monkeypatch)
        made = CliRunner().invoke(app, [*words, "-s", f"encoder.folder={folder}"])
        assert made.exit_code == 0, made.output
        return
    made = CliRunner().invoke(app, words)
    assert made.exit_code != 0
    said = str(made.exception)
    by_code = name != "huggingface" and RELEASED[name].family == "code"
    assert ("does not run" if by_code else "folder") in said, said
    if by_code:
        made = CliRunner().invoke(app, [*words, "-s", f"encoder.folder={tmp_path}"])
        assert "does not run" in str(made.exception)
