"""Encoders of CT: one contract for all, and released weights in the layouts they come in."""

from __future__ import annotations

import pickle
import warnings
from importlib.util import find_spec

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from medcl.errors import UsageError
from medcl.methods.contract import State
from medcl.nn import weights
from medcl.nn.encoders import width_of
from medcl.registry import checked, parameters
from medcl_ct.encoders.joint import joint
from medcl_ct.encoders.resnet import resnet2d, resnet3d
from medcl_ct.encoders.scattering import Scattering, filters, scattering2d
from medcl_ct.encoders.swin import swin_unetr3d
from medcl_ct.encoders.vit import vit2d, vit3d

SMALL_SWIN = {"base": 12, "depths": (1, 1, 1, 1), "heads": (1, 2, 3, 6)}
SMALL_JOINT = {"depth": 10, "base": 4, "width": 32, "layers": 1, "heads": 4, "hidden": 32}
SLICE, VOLUME = (1, 32, 32), (1, 32, 32, 32)
CASES = {
    "resnet2d": (resnet2d, {"depth": 10, "base": 4}, [SLICE]),
    "resnet2d-50": (resnet2d, {"depth": 50, "base": 4, "stem": "small"}, [SLICE]),
    "resnet2.5d": (resnet2d, {"depth": 10, "base": 4, "channels": 3}, [(1, 3, 32, 32)]),
    "resnet3d": (resnet3d, {"depth": 10, "base": 4}, [VOLUME]),
    "resnet3d-a": (resnet3d, {"depth": 18, "base": 4, "shortcut": "A"}, [VOLUME]),
    "vit2d": (vit2d, {"patch": 8, "width": 32, "depth": 2, "heads": 4}, [SLICE]),
    "vit3d": (vit3d, {"patch": (8, 8, 8), "width": 48, "depth": 2, "heads": 4}, [VOLUME]),
    "scattering2d": (scattering2d, {"angles": 4, "blocks": 1, "width": 32}, [SLICE]),
    "joint": (joint, SMALL_JOINT, [SLICE, VOLUME, (1, 5, 32, 32)]),
}
if find_spec("einops"):
    CASES["swin_unetr3d"] = (swin_unetr3d, SMALL_SWIN, [VOLUME])
needs_einops = pytest.mark.skipif(not find_spec("einops"), reason="einops is not installed")


def build(name: str) -> nn.Module:
    factory, settings, _ = CASES[name]
    torch.manual_seed(0)
    return factory(**checked(factory, settings, "encoder"))


def hu(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)) * 400


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", CASES)
def test_the_contract(name):
    encoder = build(name).eval()
    for shape in CASES[name][2]:
        x = hu(3, *shape)
        out = encoder(x)
        assert out.shape == (3, width_of(encoder))
        assert out.isfinite().all()
        assert (out[0] - out[1]).abs().max() > 1e-5
        alone = encoder(x[1:2])
        torch.testing.assert_close(alone, out[1:2], atol=1e-4, rtol=1e-4)
        # The window is part of the encoder: beyond it, HU make no difference.
        torch.testing.assert_close(encoder(x.clamp(-1000, 1000)), encoder(x))
    for parameter in parameters(CASES[name][0]).values():
        assert parameter.annotation is not parameter.empty
        assert parameter.default is not parameter.empty


@pytest.mark.parametrize("name", CASES)
def test_every_weight_learns(name):
    encoder = build(name)
    encoder(hu(3, *CASES[name][2][-1])).square().sum().backward()
    still = [key for key, p in encoder.named_parameters() if p.requires_grad and p.grad is None]
    assert set(still) <= {"cls"} if name.startswith("vit") else not still


def test_water_is_zero_and_unit_is_zero_to_one():
    assert float(resnet2d(depth=10, base=4).window(torch.zeros(1))) == 0
    unit = resnet2d(depth=10, base=4, window=(37.5, 425.0), scale="unit").window
    torch.testing.assert_close(unit(torch.tensor([-175.0, 250.0])), torch.tensor([0.0, 1.0]))


@pytest.mark.parametrize(
    ("encoder", "shape", "message"),
    [
        (resnet2d(depth=10, base=4), (1, 4, 32, 32), "2.5D"),
        (resnet2d(depth=10, base=4, channels=3), (1, 32, 32), "2.5D"),
        (vit2d(patch=8, width=16, depth=1, heads=2), (1, 8, 8, 8), "2D encoder"),
        (joint(**SMALL_JOINT), (2, 32, 32, 32), "takes slices"),
    ],
)
def test_a_wrong_shape_says_so(encoder, shape, message):
    with pytest.raises(UsageError, match=message):
        encoder(torch.zeros(2, *shape))


@pytest.mark.parametrize("axes", [2, 3])
def test_spark_and_mae_train_our_encoders(axes):
    """They ask for stages and tokens; both losses fall on one batch."""
    from medcl.methods.mae import MAE
    from medcl.methods.spark import SparK

    size, stem = (64, "imagenet") if axes == 2 else (16, "small")
    x = F.interpolate(hu(2, 1, *(4,) * axes), size=(size,) * axes)
    cnn = (resnet2d, resnet3d)[axes - 2](depth=10, base=8, stem=stem)
    sizes = {"width": 48, "depth": 1, "heads": 4}
    vit = vit2d(patch=16, **sizes) if axes == 2 else vit3d(patch=(8, 8, 8), **sizes)
    for method in (SparK(cnn, width=32), MAE(vit, width=32, depth=1)):
        torch.manual_seed(0)
        moving = torch.optim.AdamW(method.parameters(), 3e-3)
        losses = []
        for step in range(12):
            loss = method.step([x], {"patient": torch.arange(2)}, State(step, 12))["loss"]
            loss.backward()
            moving.step()
            moving.zero_grad()
            losses.append(loss.item())
        assert sum(losses[-3:]) < sum(losses[:3])


# Released weights


def ddp(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: value for name, value in state.items()}


def quiet(factory, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return factory(**settings)


@pytest.mark.parametrize(("depth", "shortcut"), [(10, "B"), (18, "A"), (50, "B")])
def test_medicalnet_weights_load(tmp_path, depth, shortcut):
    """MedicalNet's layout: {"state_dict": {"module.conv1.weight", ...}} beside training state."""
    settings = {"depth": depth, "base": 4, "shortcut": shortcut}
    original = resnet3d(**settings).eval()
    state = {"state_dict": ddp(original.net.state_dict(), "module."), "epoch": 7}
    torch.save(state, tmp_path / "resnet_23dataset.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # everything matches: nothing to report
        loaded = resnet3d(**settings, weights=tmp_path / "resnet_23dataset.pth").eval()
    x = hu(1, *VOLUME)
    assert torch.equal(loaded(x), original(x))


def test_rgb_weights_become_single_channel(tmp_path):
    """A grey image through the adapted stem gives what it gave as RGB."""
    rgb = resnet2d(depth=18, base=4, channels=3).eval()
    state = {**rgb.net.state_dict(), "fc.weight": torch.zeros(1000, 32), "fc.bias": torch.zeros(5)}
    save_file(state, tmp_path / "rgb.safetensors")
    with pytest.warns(UserWarning, match=r"2 in the file but not used \(fc.bias, fc.weight\)"):
        grey = resnet2d(depth=18, base=4, weights=tmp_path / "rgb.safetensors").eval()
    x = hu(2, *SLICE)
    torch.testing.assert_close(grey(x), rgb(x.expand(-1, 3, -1, -1)))
    slab = quiet(
        resnet2d, depth=18, base=4, channels=5, weights=tmp_path / "rgb.safetensors"
    ).eval()
    repeated = x[:, :, None].expand(-1, -1, 5, -1, -1)
    torch.testing.assert_close(slab(repeated), grey(x), atol=1e-5, rtol=1e-4)


def swin_names(state: dict[str, torch.Tensor], layout: str) -> dict[str, object]:
    """The encoder's weights under the names that each publication uses."""
    old = {name.replace("mlp.linear", "mlp.fc"): value for name, value in state.items()}
    if layout == "monai":  # model_swinvit.pt, Tang 2022
        return {"state_dict": {**ddp(old, "module."), "module.norm.weight": torch.zeros(3)}}
    if layout == "suprem":  # supervised_suprem_swinunetr_2100.pth
        new = ddp(state, "module.backbone.swinViT.")
        return {"net": {**new, "module.organ_embedding": torch.zeros(25, 256)}, "epoch": 2100}
    renamed = {  # disruptive autoencoders: encoder.layers1.0.0.blocks…
        name.replace(f"layers{n}.0.", f"layers{n}.0.0."): value
        for n in range(1, 5)
        for name, value in old.items()
        if name.startswith(f"layers{n}.")
    }
    renamed |= {name: value for name, value in old.items() if not name.startswith("layers")}
    return {"model": {**ddp(renamed, "encoder."), "encoder.mask_token": torch.zeros(1)}}


@needs_einops
def test_swin_says_which_sizes_it_takes():
    with pytest.raises(UsageError, match="multiples of 32"):
        swin_unetr3d(**SMALL_SWIN)(torch.zeros(1, 1, 32, 32, 40))


def test_swin_without_einops_says_what_to_install(monkeypatch):
    from medcl_ct.encoders import swin

    monkeypatch.setattr(swin, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="pip install einops"):
        swin_unetr3d(**SMALL_SWIN)


@needs_einops
@pytest.mark.parametrize("layout", ["monai", "suprem", "disruptive"])
def test_swin_weights_load(tmp_path, layout):
    original = swin_unetr3d(**SMALL_SWIN).eval()
    torch.save(swin_names(original.net.state_dict(), layout), tmp_path / "swin.pt")
    loaded = quiet(swin_unetr3d, **SMALL_SWIN, weights=tmp_path / "swin.pt").eval()
    x = hu(1, *VOLUME)
    assert torch.equal(loaded(x), original(x))


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save(resnet2d(depth=50, base=4).net.state_dict(), tmp_path / "other.pt")
    with pytest.raises(UsageError, match=r"does not fit this encoder.*Check that the"):
        resnet2d(depth=18, base=8, weights=tmp_path / "other.pt")


def test_what_does_not_match_is_named(tmp_path):
    original = resnet2d(depth=18, base=4)
    state = original.net.state_dict()
    del state["bn1.weight"]
    state["layer1.0.bn1.bias"] = torch.zeros(9)
    report = weights.fit(resnet2d(depth=18, base=4).net, state, "file")
    assert report.missing == ("bn1.weight",)
    assert report.shapes == ("layer1.0.bn1.bias",)
    assert "1 not in the file (bn1.weight)" in report.sentence()


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("code was run",))


def test_a_file_that_would_run_code_is_refused(tmp_path):
    (tmp_path / "bomb.pt").write_bytes(pickle.dumps({"state_dict": Bomb()}))
    torch.save({"state_dict": {"a": torch.zeros(1)}, "x": Bomb()}, tmp_path / "bomb2.pt")
    for name in ("bomb.pt", "bomb2.pt"):
        with pytest.raises(UsageError, match="refused"):
            weights.read(tmp_path / name)


def test_files_that_hold_no_weights(tmp_path):
    with pytest.raises(UsageError, match="No weights at"):
        resnet2d(weights=tmp_path / "none.pt")
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    with pytest.raises(UsageError, match="not a safetensors file"):
        weights.read(tmp_path / "broken.safetensors")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(UsageError, match="holds no tensors by name"):
        weights.read(tmp_path / "list.pt")


# Scattering


def test_scattering_is_the_textbook_convolution():
    """Order one, by direct circular convolution with the wavelet in space."""
    size, scales, angles = 16, 2, 4
    x = torch.randn(1, size, size, generator=torch.Generator().manual_seed(1))
    padded = F.pad(x, (4, 4, 4, 4), mode="reflect")[0].double().numpy()
    n = size + 8
    waves, low = filters(n, scales, angles)
    space = np.fft.ifft2(waves[1, 2].double().numpy())
    blur = np.fft.ifft2(low.double().numpy())

    def circular(a, b):
        out = np.zeros((n, n), complex)
        for i in range(n):
            for j in range(n):
                out += a[i, j] * np.roll(np.roll(b, i, 0), j, 1)
        return out

    first = np.abs(circular(padded, space))
    expected = circular(first, blur).real[::4, ::4][1:-1, 1:-1]
    found = Scattering(scales, angles)(x)[0, 1 + 1 * angles + 2]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_wavelets_have_zero_mean_and_the_low_pass_keeps_it():
    waves, low = filters(64, 3, 6)
    assert waves[..., 0, 0].abs().max() < 1e-6
    assert float(low[0, 0]) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(("scales", "angles"), [(2, 8), (3, 4)])
def test_scattering_is_kymatios(monkeypatch, scales, angles):
    """kymatio subsamples between the orders, which aliases a little: within two per cent."""
    import scipy.special

    monkeypatch.setattr(scipy.special, "sph_harm", None, raising=False)  # gone; for 3D only
    kymatio = pytest.importorskip("kymatio.torch", reason="kymatio is not installed")
    x = torch.randn(2, 32, 32, generator=torch.Generator().manual_seed(0))
    theirs = kymatio.Scattering2D(J=scales, shape=(32, 32), L=angles)(x)
    ours = Scattering(scales, angles)(x)
    assert ours.shape == theirs.shape
    assert float((ours - theirs).norm() / theirs.norm()) < 0.02
    torch.testing.assert_close(ours[:, 0], theirs[:, 0], atol=1e-4, rtol=1e-4)


# Hugging Face


def test_huggingface_without_the_extra_says_what_to_install(monkeypatch):
    from medcl_ct.encoders import huggingface

    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(huggingface, "import_module", absent)
    with pytest.raises(UsageError, match=r"pip install 'medcl\[hf\]'"):
        huggingface.huggingface2d()


HF = {
    "convnext": {"depths": (1, 1, 1, 1), "widths": (8, 16, 24, 32)},
    "vit": {"size": 64, "depth": 1, "heads": 2, "hidden": 32},
    "dinov2": {"size": 64, "depth": 1, "heads": 2, "hidden": 32},
}


@pytest.mark.parametrize("family", HF)
def test_huggingface(tmp_path, family):
    pytest.importorskip("transformers", reason="the extra hf is not installed")
    from medcl_ct.encoders.huggingface import huggingface2d

    encoder = huggingface2d(family=family, **HF[family]).eval()
    x = hu(2, 1, 64, 64)
    out = encoder(x)
    assert out.shape == (2, 32)
    encoder.net.save_pretrained(tmp_path)
    again = huggingface2d(folder=tmp_path).eval()
    torch.testing.assert_close(again(x), out)
    if family == "convnext":
        shapes = [tuple(s.shape[1:]) for s in encoder.stages(x)]
        assert shapes == [(8, 16, 16), (16, 8, 8), (24, 4, 4), (32, 2, 2)]
    with pytest.raises(UsageError, match=r"no config\.json"):
        huggingface2d(folder=tmp_path / "none")
