"""Released encoders, each on random weights under the released names and in the released layout.

The names and shapes are those of the public code that `medcl_biosignals.encoders.models` names. The
weights themselves are not here, so that no test shows what the released files hold.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from medcl.archive.index import build
from medcl.errors import UsageError
from medcl.registry import checked, resolve
from medcl_biosignals.encoders.models import RELEASED
from medcl_biosignals.encoders.released import OPENERS, Fed
from medcl_biosignals.encoders.s4 import CPC
from medcl_biosignals.plugin import plugin

Shapes = dict[str, tuple[int, ...]]


def norm(name: str, width: int) -> Shapes:
    """Batch norm."""
    running = {f"{name}.{part}": (width,) for part in ("running_mean", "running_var")}
    return affine(name, width) | running | {f"{name}.num_batches_tracked": ()}


def affine(name: str, *weight: int) -> Shapes:
    return {f"{name}.weight": weight, f"{name}.bias": weight[:1]}


def papagei(base: int = 4, blocks: int = 6, width: int = 8) -> Shapes:
    made = affine("first_block_conv.conv", base, 1, 3) | norm("first_block_bn", base)
    inner = base
    for n in range(blocks):
        outer = inner * 2 if n % 4 == 0 and n else inner
        block = f"basicblock_list.{n}"
        made |= norm(f"{block}.bn1", inner) | affine(f"{block}.conv1.conv", outer, inner, 3)
        made |= norm(f"{block}.bn2", outer) | affine(f"{block}.conv2.conv", outer, outer, 3)
        inner = outer
    made |= norm("final_bn", inner) | affine("dense", width, inner)
    for head, last in ((1, 2), (2, 3)):  # the second has a dropout
        for expert in range(3):
            made |= affine(f"expert_layers_{head}.{expert}.0", inner // 2, inner)
            made |= affine(f"expert_layers_{head}.{expert}.{last}", 1, inner // 2)
        made |= affine(f"gating_network_{head}.0", 3, inner)
    return {f"module.{name}": shape for name, shape in made.items()}


def founder(channels: int, filters: tuple[int, ...] = (16, 32), blocks: tuple[int, ...] = (2, 1)):
    made = affine("first_conv.conv", 16, channels, 16) | norm("first_bn", 16)
    inner = 16
    for stage, (outer, count) in enumerate(zip(filters, blocks, strict=True)):
        for n in range(count):
            block = f"stage_list.{stage}.block_list.{n}"
            made |= norm(f"{block}.bn1", inner) | affine(f"{block}.conv1.conv", outer, inner, 1)
            made |= norm(f"{block}.bn2", outer) | affine(f"{block}.conv2.conv", outer, 16, 16)
            made |= norm(f"{block}.bn3", outer) | affine(f"{block}.conv3.conv", outer, outer, 1)
            made |= affine(f"{block}.se_fc1", outer // 2, outer)
            made |= affine(f"{block}.se_fc2", outer, outer // 2)
            inner = outer
    return made | affine("dense", 150, inner)


def ecg_fm(front: int = 8, width: int = 64, inner: int = 96, depth: int = 2, final: int = 16):
    made: Shapes = {"mask_emb": (width,)}
    for n in range(4):
        made[f"feature_extractor.conv_layers.{n}.0.weight"] = (front, 12 if n == 0 else front, 2)
    made |= affine("feature_extractor.conv_layers.0.2", front) | affine("layer_norm", front)
    made |= affine("post_extract_proj", width, front)
    made |= {"conv_pos.pos_conv.0.bias": (width,), "conv_pos.pos_conv.0.weight_g": (1, 1, 128)}
    made["conv_pos.pos_conv.0.weight_v"] = (width, width // 16, 128)
    for n in range(depth):
        layer = f"encoder.layers.{n}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            made |= affine(f"{layer}.self_attn.{part}", width, width)
        made |= affine(f"{layer}.self_attn_layer_norm", width)
        made |= affine(f"{layer}.fc1", inner, width) | affine(f"{layer}.fc2", width, inner)
        made |= affine(f"{layer}.final_layer_norm", width)
    made |= affine("encoder.layer_norm", width)
    made |= {"quantizer.vars": (1, 640, final // 2)} | affine("quantizer.weight_proj", 640, front)
    return made | affine("project_q", final, final) | affine("final_proj", final, width)


HUBERT = {
    "conv_dim": [8, 8],
    "conv_kernel": [10, 3],
    "conv_stride": [4, 2],
    "conv_bias": False,
    "feat_extract_norm": "group",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "do_stable_layer_norm": False,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}


def hubert_ecg() -> Shapes:
    made: Shapes = {"masked_spec_embed": (32,)}
    made["feature_extractor.conv_layers.0.conv.weight"] = (8, 1, 10)
    made["feature_extractor.conv_layers.1.conv.weight"] = (8, 8, 3)
    made |= affine("feature_extractor.conv_layers.0.layer_norm", 8)
    made |= affine("feature_projection.layer_norm", 8)
    made |= affine("feature_projection.projection", 32, 8)
    made["encoder.pos_conv_embed.conv.bias"] = (32,)
    made["encoder.pos_conv_embed.conv.parametrizations.weight.original0"] = (1, 1, 16)
    made["encoder.pos_conv_embed.conv.parametrizations.weight.original1"] = (32, 8, 16)
    made |= affine("encoder.layer_norm", 32)
    for n in range(2):
        layer = f"encoder.layers.{n}"
        for part in ("k_proj", "v_proj", "q_proj", "out_proj"):
            made |= affine(f"{layer}.attention.{part}", 32, 32)
        made |= affine(f"{layer}.layer_norm", 32) | affine(f"{layer}.final_layer_norm", 32)
        made |= affine(f"{layer}.feed_forward.intermediate_dense", 48, 32)
        made |= affine(f"{layer}.feed_forward.output_dense", 32, 48)
    return made | affine("final_proj.0", 16, 32) | {"label_embedding.0.weight": (100, 16)}


def ecg_cpc(width: int = 6, states: int = 2, taps: int = 1200) -> Shapes:
    made: Shapes = {}
    for n, kernel in enumerate((3, 1, 1, 1)):
        made[f"encoder.layers.{n}.0.weight"] = (width, 12 if n == 0 else width, kernel)
        made |= norm(f"encoder.layers.{n}.1", width)
    for n in range(4):
        layer = f"predictor.predictor.s4_layers.{n}"
        made |= {f"{layer}.D": (1, width), f"{layer}.kernel.kernel.log_dt": (width,)}
        for part in ("B", "C", "P", "Q"):
            made[f"{layer}.kernel.kernel.{part}"] = (1, width, states, 2)
        made[f"{layer}.kernel.kernel.w"] = (width, states, 2)
        for part in ("omega", "z"):
            made[f"{layer}.kernel.kernel.{part}"] = (taps // 2 + 1, 2)
        made[f"{layer}.output_linear.0.weight"] = (2 * width, width)
        made[f"{layer}.output_linear.0.bias"] = (2 * width, 1)
        made |= affine(f"predictor.predictor.norms.{n}", width)
    head = {"head_ssl.proj.0.weight": (width, width)}
    return {f"ts_encoder.{name}": shape for name, shape in (made | head).items()}


LAYOUTS: dict[str, Callable[[], Shapes]] = {
    "papagei-s": papagei,
    "ecg-fm": ecg_fm,
    "hubert-ecg": hubert_ecg,
    "ecgfounder": lambda: founder(12),
    "ecgfounder-1lead": lambda: founder(1),
    "ecg-cpc": ecg_cpc,
}


def drawn(shapes: Shapes, seed: int = 0) -> dict[str, Tensor]:
    """Random weights; running variances above zero, and S4's own nodes."""
    g = torch.Generator().manual_seed(seed)
    made: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        value = torch.randn(shape, generator=g) / max(math.prod(shape[1:]), 1) ** 0.5
        if name.endswith("num_batches_tracked"):
            value = torch.tensor(7)
        elif name.endswith("running_var"):
            value = value.square() + 0.5
        elif name.endswith("log_dt"):
            value = value.sub(3)
        elif name.endswith("kernel.w"):
            value = torch.stack([-0.5 - value[..., 0].abs(), 3 * value[..., 1]], dim=-1)
        elif name.endswith(("omega", "z")):
            count = shape[0]
            omega = torch.exp(
                torch.arange(count, dtype=torch.float64) * (-1j * math.pi / (count - 1))
            )
            node = omega if name.endswith("omega") else 2 * (1 - omega) / (1 + omega)
            value = torch.view_as_real(node.to(torch.complex64))
        made[name] = value
    return made


def written(name: str, folder: Path, **more: Tensor) -> dict[str, Tensor]:
    tensors = drawn(LAYOUTS[name]())
    save_file(tensors | more, folder / RELEASED[name].files[0])
    if RELEASED[name].config:
        (folder / "config.json").write_text(json.dumps(HUBERT))
    return tensors


def opened(name: str, folder: Path) -> nn.Module:
    return OPENERS[name](folder=folder).eval()


def window(name: str, batch: int = 2) -> Tensor:
    model = RELEASED[name]
    g = torch.Generator().manual_seed(1)
    return torch.randn(batch, len(model.leads), round(model.fs * model.seconds), generator=g)


def test_the_plugin_names_all_of_them() -> None:
    named = {name for name, where in plugin.encoders.items() if ".released:" in str(where)}
    assert named == set(RELEASED) == set(LAYOUTS)
    for name in named:
        assert resolve(plugin.encoders[name]) is OPENERS[name]


@pytest.mark.parametrize("name", RELEASED)
def test_weights_of_the_released_layout_load_to_the_last_tensor(name: str, tmp_path: Path) -> None:
    written(name, tmp_path)
    encoder, x = opened(name, tmp_path), window(name)
    with torch.inference_mode():
        z = encoder(x)
        assert z.shape == (2, encoder.width)
        assert z.isfinite().all()
        torch.testing.assert_close(encoder(x[1:]), z[1:], atol=1e-4, rtol=1e-4)
        gone = x.clone()
        gone[:, 0, 50:90] = torch.nan
        assert encoder(gone).isfinite().all()
    assert not torch.allclose(z[0], z[1], atol=1e-4)


@pytest.mark.parametrize("name", RELEASED)
def test_a_tensor_too_few_or_too_many_is_refused_by_name(name: str, tmp_path: Path) -> None:
    tensors = written(name, tmp_path)
    last = [key for key in tensors if "bias" in key and ("encoder.layers.1" in key or "1.con" in key
            or "se_fc2" in key or "norms.1" in key)][-1]  # fmt: skip
    file = tmp_path / RELEASED[name].files[0]
    save_file({k: v for k, v in tensors.items() if k != last}, file)
    with pytest.raises(UsageError, match="1 tensors are missing"):
        opened(name, tmp_path)
    save_file(tensors | {RELEASED[name].prefix + "surplus.weight": torch.ones(1)}, file)
    with pytest.raises(UsageError, match=r"1 tensors are not known \("):
        opened(name, tmp_path)
    save_file(tensors | {last: torch.ones(3, 3, 3)}, file)
    with pytest.raises(UsageError, match="shape"):
        opened(name, tmp_path)
    save_file({"another": torch.ones(2)}, file)
    with pytest.raises(UsageError, match=f"is no {name}: (it holds no|.* are missing)"):
        opened(name, tmp_path)


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    class Runs:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    torch.save(
        {"model": {"dense.weight": torch.ones(2)}, "args": Runs()}, tmp_path / "papagei_s.pt"
    )
    with pytest.raises(UsageError, match=r"save its state_dict to \.safetensors"):
        opened("papagei-s", tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", RELEASED)
def test_it_says_how_to_get_it(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not part of medcl") as raised:
        OPENERS[name]()
    assert RELEASED[name].where in str(raised.value)
    with pytest.raises(UsageError, match="holds none of") as raised:
        OPENERS[name](folder=tmp_path)
    assert ("convert it first" in str(raised.value)) == RELEASED[name].convert


def test_signals_of_another_kind_are_refused_with_the_setting(tmp_path: Path) -> None:
    written("ecg-cpc", tmp_path)
    with pytest.raises(UsageError, match=r"prepare\.fs=240 \(now 125\) and prepare\.leads=\[I, II"):
        OPENERS["ecg-cpc"](folder=tmp_path, fs=125.0, channels=2)
    with pytest.raises(UsageError, match=r"dataset\.scale=none \(now window\)"):
        OPENERS["ecg-cpc"](folder=tmp_path, windows="window")
    with pytest.raises(UsageError, match=r"takes \(B, 12, T\), not \(1, 3, 600\)"):
        opened("ecg-cpc", tmp_path)(torch.zeros(1, 3, 600))
    with pytest.warns(UserWarning, match=r"windows of 2\.5 s, not 5 s"):
        opened("ecg-cpc", tmp_path)(torch.randn(1, 12, 1200))
    with pytest.raises(UsageError, match="at most 1200 tokens"):
        opened("ecg-cpc", tmp_path).net(torch.randn(1, 12, 2402))
    written("hubert-ecg", tmp_path)
    with pytest.raises(UsageError, match=r"windows of 5 s, not 10 s"):
        opened("hubert-ecg", tmp_path)(torch.randn(1, 12, 1000))


def test_what_each_is_fed() -> None:
    x = torch.randn(2, 12, 500, dtype=torch.float64) * torch.logspace(-3, 3, 12)[:, None] + 5
    x[0, 3] = 0.0  # a lead that lacks
    a = x.numpy()
    with np.errstate(invalid="ignore"):
        lead = (a - a.mean(-1, keepdims=True)) / a.std(-1, keepdims=True)
        low, high = a.min(-1, keepdims=True), a.max(-1, keepdims=True)
        span = 2 * (a - low) / (high - low) - 1
    both = np.stack([(each - each.mean()) / each.std() for each in a])
    for name, want in (
        ("ecg-fm", lead),
        ("hubert-ecg", span),
        ("ecgfounder", both),
        ("ecg-cpc", a),
    ):
        fed = Fed(RELEASED[name], name)
        fed.length = 500
        np.testing.assert_allclose(fed(x).numpy(), np.nan_to_num(want), atol=1e-9)


def test_ecg_fm_has_as_many_values_as_its_authors_count() -> None:
    """README of bowang-lab/ECG-FM: "the base model has 90,883,072 parameters"."""
    whole = ecg_fm(front=256, width=768, inner=3072, depth=12, final=256)
    assert sum(map(math.prod, whole.values())) == 90_883_072


def test_ecg_cpc_has_as_many_tensors_as_its_checkpoint() -> None:
    """A public project that loads the checkpoint strictly counts 76 beside the head's one."""
    assert len(ecg_cpc()) == 76 + 1


def same(w: dict[str, Tensor], name: str, x: Tensor, stride: int = 1, groups: int = 1) -> Tensor:
    """TensorFlow's SAME, written out."""
    weight = w[f"{name}.conv.weight"]
    kernel, length = weight.shape[2], x.shape[2]
    lacking = max((math.ceil(length / stride) - 1) * stride + kernel - length, 0)
    x = torch.cat([x.new_zeros(*x.shape[:2], lacking // 2), x,
                   x.new_zeros(*x.shape[:2], lacking - lacking // 2)], dim=2)  # fmt: skip
    return F.conv1d(x, weight, w[f"{name}.conv.bias"], stride, groups=groups)


def shortcut(x: Tensor, stride: int, outer: int) -> Tensor:
    if stride == 2:
        x = torch.stack([torch.cat([x, x.new_zeros(*x.shape[:2], 1)], 2)[..., i : i + 2].amax(2)
                         for i in range(0, x.shape[2], 2)], dim=2)  # fmt: skip
    more = outer - x.shape[1]
    zeros = [x.new_zeros(len(x), n, x.shape[2]) for n in (more // 2, more - more // 2)]
    return torch.cat([zeros[0], x, zeros[1]], dim=1)


def normed(w: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    mean, var = w[f"{name}.running_mean"], w[f"{name}.running_var"]
    scale = w[f"{name}.weight"] / (var + 1e-5).sqrt()
    return (x - mean[:, None]) * scale[:, None] + w[f"{name}.bias"][:, None]


def test_papagei_against_its_formula(tmp_path: Path) -> None:
    w = {k.removeprefix("module."): v for k, v in written("papagei-s", tmp_path).items()}
    x = window("papagei-s")[..., :1249]  # odd, so that the padding shows
    h = (x - x.mean(2, keepdim=True)) / x.std(2, keepdim=True, correction=0)
    h = torch.relu(normed(w, "first_block_bn", same(w, "first_block_conv", h)))
    for n in range(6):
        block, stride = f"basicblock_list.{n}", 2 if n % 2 == 1 else 1
        made = h if n == 0 else torch.relu(normed(w, f"{block}.bn1", h))
        made = torch.relu(normed(w, f"{block}.bn2", same(w, f"{block}.conv1", made, stride)))
        made = same(w, f"{block}.conv2", made)
        h = made + shortcut(h, stride, made.shape[1])
    h = torch.relu(normed(w, "final_bn", h)).mean(2)
    want = h @ w["dense.weight"].T + w["dense.bias"]
    with torch.inference_mode(), pytest.warns(UserWarning, match="made for windows"):
        torch.testing.assert_close(opened("papagei-s", tmp_path)(x), want, atol=1e-4, rtol=1e-4)


def test_ecgfounder_against_its_formula(tmp_path: Path) -> None:
    w, x = written("ecgfounder", tmp_path), window("ecgfounder")
    h = torch.stack([(each - each.mean()) / each.std(correction=0) for each in x])
    h = F.silu(same(w, "first_conv", h, 2))
    for stage, (outer, count) in enumerate(((16, 2), (32, 1))):
        for n in range(count):
            block, stride = f"stage_list.{stage}.block_list.{n}", 2 if n == 0 else 1
            made = h if stage == n == 0 else F.silu(h)
            made = same(
                w, f"{block}.conv2", F.silu(same(w, f"{block}.conv1", made)), stride, outer // 16
            )
            made = same(w, f"{block}.conv3", F.silu(made))
            hidden = made.mean(2) @ w[f"{block}.se_fc1.weight"].T + w[f"{block}.se_fc1.bias"]
            gate = F.silu(hidden) @ w[f"{block}.se_fc2.weight"].T + w[f"{block}.se_fc2.bias"]
            h = made * torch.sigmoid(gate)[..., None] + shortcut(h, stride, outer)
    with torch.inference_mode():
        z = opened("ecgfounder", tmp_path)(x)
    torch.testing.assert_close(z, h.mean(2), atol=1e-4, rtol=1e-4)


def test_ecg_fm_against_torchs_own_transformer(tmp_path: Path) -> None:
    w, x = written("ecg-fm", tmp_path), window("ecg-fm")
    h = (x - x.mean(2, keepdim=True)) / x.std(2, keepdim=True, correction=0)
    for n in range(4):
        h = F.conv1d(h, w[f"feature_extractor.conv_layers.{n}.0.weight"], stride=2)
        if n == 0:
            name = "feature_extractor.conv_layers.0.2"
            h = F.group_norm(h, 8, w[f"{name}.weight"], w[f"{name}.bias"])
        h = F.gelu(h)
    h = F.layer_norm(h.transpose(1, 2), (8,), w["layer_norm.weight"], w["layer_norm.bias"])
    h = F.linear(h, w["post_extract_proj.weight"], w["post_extract_proj.bias"])
    conv = nn.utils.parametrizations.weight_norm(
        nn.Conv1d(64, 64, 128, padding=64, groups=16), dim=2
    )
    conv.load_state_dict({
        "bias": w["conv_pos.pos_conv.0.bias"],
        "parametrizations.weight.original0": w["conv_pos.pos_conv.0.weight_g"],
        "parametrizations.weight.original1": w["conv_pos.pos_conv.0.weight_v"],
    })  # fmt: skip
    h = h + F.gelu(conv(h.transpose(1, 2))[..., :-1]).transpose(1, 2)
    h = F.layer_norm(h, (64,), w["encoder.layer_norm.weight"], w["encoder.layer_norm.bias"])
    for n in range(2):
        layer = nn.TransformerEncoderLayer(64, 1, 96, 0.0, "gelu", batch_first=True)
        own, at = {}, f"encoder.layers.{n}"
        for kind in ("weight", "bias"):
            own[f"self_attn.in_proj_{kind}"] = torch.cat(
                [w[f"{at}.self_attn.{p}_proj.{kind}"] for p in "qkv"]
            )
            own[f"self_attn.out_proj.{kind}"] = w[f"{at}.self_attn.out_proj.{kind}"]
            own[f"norm1.{kind}"] = w[f"{at}.self_attn_layer_norm.{kind}"]
            own[f"norm2.{kind}"] = w[f"{at}.final_layer_norm.{kind}"]
            own[f"linear1.{kind}"], own[f"linear2.{kind}"] = (
                w[f"{at}.fc1.{kind}"],
                w[f"{at}.fc2.{kind}"],
            )
        layer.load_state_dict(own)
        h = layer(h)
    with torch.inference_mode():
        z = opened("ecg-fm", tmp_path)(x)
    torch.testing.assert_close(z, h.mean(1), atol=1e-4, rtol=1e-4)


@pytest.mark.skipif(find_spec("transformers") is None, reason="needs medcl[hf]")
@pytest.mark.parametrize("more", [{}, {"do_stable_layer_norm": True, "feat_extract_norm": "layer",
                                       "conv_bias": True}])  # fmt: skip
def test_hubert_ecg_against_transformers(more: dict[str, Any], tmp_path: Path) -> None:
    from transformers import HubertConfig, HubertModel

    torch.manual_seed(0)
    theirs = HubertModel(HubertConfig(**{**HUBERT, **more})).eval()
    save_file({k: v.contiguous() for k, v in theirs.state_dict().items()},
              tmp_path / "model.safetensors")  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps({**HUBERT, **more}))
    x = window("hubert-ecg")
    low, high = x.amin(2, keepdim=True), x.amax(2, keepdim=True)
    with torch.inference_mode():
        want = theirs((2 * (x - low) / (high - low) - 1).flatten(1)).last_hidden_state.mean(1)
        z = opened("hubert-ecg", tmp_path)(x)
    torch.testing.assert_close(z, want, atol=1e-4, rtol=1e-4)


def test_hubert_ecg_needs_its_configuration(tmp_path: Path) -> None:
    written("hubert-ecg", tmp_path)
    for held, says in (
        ({**HUBERT, "hidden_act": "relu"}, "activations other than GELU"),
        ({k: v for k, v in HUBERT.items() if k != "conv_stride"}, "lacks a size"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(held))
        with pytest.raises(UsageError, match=says):
            opened("hubert-ecg", tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(UsageError, match=r"needs its config\.json"):
        opened("hubert-ecg", tmp_path)


def test_s4_against_its_recurrence() -> None:
    """x_t = Āx_{t−1} + B̄u_t, y_t = 2·Re(Cx_t) with the dense, bilinear Ā of all states."""
    taps, states = 64, 2
    torch.manual_seed(0)
    kernel = CPC(1, [(3, 1, 1)], 1, states, taps).layers[0].kernel
    with torch.no_grad():
        kernel.get_buffer("log_dt").copy_(torch.tensor([-2.0, -1.0, -3.0]))
        p = kernel.get_buffer("P")  # A = diag(w) − P Pᴴ is stable, as theirs
        kernel.get_buffer("Q").copy_(torch.stack([p[..., 0], -p[..., 1]], dim=-1))
        part = {n: torch.view_as_complex(kernel.get_buffer(n).contiguous()).to(torch.complex128)
                for n in ("B", "P", "Q", "w")}  # fmt: skip
        want = []
        for h in range(3):
            dt = math.exp(float(kernel.get_buffer("log_dt")[h]))
            w, b, p, q = part["w"][h], part["B"][0, h], part["P"][0, h], part["Q"][0, h]
            w, b, p, q = (torch.cat([v, v.conj()]) for v in (w, b, p, q))  # all states
            a = torch.diag(w) - torch.outer(p, q)
            eye = torch.eye(2 * states, dtype=torch.complex128)
            step = torch.linalg.solve(eye - dt / 2 * a, eye + dt / 2 * a)
            into = dt * torch.linalg.solve(eye - dt / 2 * a, b)
            c = torch.randn(states, dtype=torch.complex128)
            whole = torch.cat([c, c.conj()])
            stored = whole - torch.linalg.matrix_power(step, taps).T @ whole  # C·(I − Ā^L)
            kernel.C[0, h] = torch.view_as_real(stored[:states].to(torch.complex64))
            state, response = into, []
            for _ in range(taps):
                response.append((whole @ state).real)
                state = step @ state
            want.append(torch.stack(response))
        made = kernel(taps)
    torch.testing.assert_close(made.double(), torch.stack(want), atol=2e-4, rtol=2e-3)
    torch.testing.assert_close(kernel(20), made[:, :20])


def test_s4_sees_no_future_and_is_a_plain_convolution() -> None:
    torch.manual_seed(0)
    layer = CPC(1, [(3, 1, 1)], 1, 2, 64).layers[0].eval()
    x = torch.randn(1, 3, 40)
    later = x.clone()
    later[..., 30:] += 1
    with torch.no_grad():
        torch.testing.assert_close(layer(later)[..., :30], layer(x)[..., :30], atol=1e-5, rtol=1e-4)
        k = layer.kernel(40)
        sums = torch.stack(
            [(k[:, : t + 1].flip(1) * x[0, :, : t + 1]).sum(1) for t in range(40)], 1
        )
        want = F.glu(layer.mix(F.gelu(sums + x[0] * layer.D[0, :, None])[None]), dim=1)
        torch.testing.assert_close(layer(x), want, atol=1e-4, rtol=1e-4)


def test_ecg_cpc_is_convolutions_then_s4_layers_normed_after(tmp_path: Path) -> None:
    w = written("ecg-cpc", tmp_path)
    x, encoder = window("ecg-cpc"), opened("ecg-cpc", tmp_path)
    h = x
    for n in range(4):
        at = f"ts_encoder.encoder.layers.{n}"
        kernel = w[f"{at}.0.weight"]
        h = F.conv1d(h, kernel, stride=2 if n == 0 else 1, padding=(kernel.shape[2] - 1) // 2)
        h = torch.relu(normed(w, f"{at}.1", h))
    with torch.inference_mode():
        for n, layer in enumerate(encoder.net.layers):
            at = f"ts_encoder.predictor.predictor.norms.{n}"
            h = F.layer_norm(
                (h + layer(h)).transpose(1, 2), (6,), w[f"{at}.weight"], w[f"{at}.bias"]
            )
            h = h.transpose(1, 2)
        torch.testing.assert_close(encoder(x), h.mean(2), atol=1e-5, rtol=1e-4)
    mixed = w["ts_encoder.predictor.predictor.s4_layers.0.output_linear.0.bias"].flatten()
    assert torch.equal(encoder.net.layers[0].mix.bias, mixed)


def test_an_index_is_embedded_as_the_model_asks(sample: Path, tmp_path: Path) -> None:
    import medcl

    archive = tmp_path / "archive"
    archive.mkdir()
    (tmp_path / "key").write_text("released encoders in tests: hides nothing")
    for file in (*sample.glob("101.*"), *sample.glob("106.*")):
        shutil.copy(file, archive / file.name)
    build(archive, tmp_path / "index", plugin, key_file=tmp_path / "key")
    weights = tmp_path / "weights"
    weights.mkdir()
    written("ecgfounder-1lead", weights)
    done = medcl.embed_bags(
        tmp_path / "index",
        tmp_path / "bags",
        encoder="ecgfounder-1lead",
        settings=[f"encoder.folder={weights}", "prepare.leads=[MLII]"],
    )
    assert not done.failed
    with pytest.raises(UsageError, match=r"prepare\.fs=500 \(now 125\)"):
        medcl.embed_bags(
            tmp_path / "index",
            tmp_path / "others",
            encoder="ecgfounder-1lead",
            settings=[f"encoder.folder={weights}", "prepare.leads=[MLII]", "prepare.fs=125"],
        )


@pytest.mark.parametrize("name", RELEASED)
def test_its_own_settings_are_ones_that_recipes_have(name: str) -> None:
    for section, factory in (("prepare", plugin.prepare), ("dataset", plugin.dataset)):
        checked(resolve(factory), getattr(OPENERS[name], section), section)
