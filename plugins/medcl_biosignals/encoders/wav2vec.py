"""wav2vec 2.0 for signals: ECG-FM and HuBERT-ECG are this network under different names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medcl.errors import UsageError
from medcl_biosignals.encoders.hong import count

_HEAD = 64  # values of a head in BERT-Base and BERT-Large, which ECG-FM's sizes are those of


@dataclass(frozen=True)
class Sizes:
    """Of the network.

    Attributes:
        channels: of the signal.
        conv: (channels, kernel, stride) of each convolution of the front.
        bias: whether these have one.
        norm: of the front: after its first convolution, each channel over time; or after each
            convolution, over channels.
        width, inner: of a token, and within the blocks.
        depth, heads: blocks, and their heads.
        before: norms before attention and before the MLP, not after.
        reach, groups: kernel and groups of the convolution that codes positions.
    """

    channels: int
    conv: tuple[tuple[int, int, int], ...]
    bias: bool
    norm: Literal["group", "layer"]
    width: int
    inner: int
    depth: int
    heads: int
    before: bool
    reach: int
    groups: int


class _ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of (B, C, T)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class _Front(nn.Module):
    """Strided convolutions: (B, channels, T) → (B, C, N)."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        layers, inner = [], sizes.channels
        for number, (outer, kernel, stride) in enumerate(sizes.conv):
            parts: list[nn.Module] = [
                nn.Conv1d(inner, outer, kernel, stride, bias=sizes.bias),
                nn.Identity(),  # a dropout of zero, in its code
            ]
            if sizes.norm == "layer":
                parts.append(_ChannelNorm(outer))
            elif number == 0:
                parts.append(nn.GroupNorm(outer, outer))
            layers.append(nn.Sequential(*parts, nn.GELU()))
            inner = outer
        self.conv_layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.conv_layers:
            x = layer(x)
        return x


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.q_proj, self.k_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.v_proj, self.out_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:  # (B, N, width)
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return out


class _Block(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.self_attn = _Attention(sizes.width, sizes.heads)
        self.self_attn_layer_norm = nn.LayerNorm(sizes.width)
        self.fc1 = nn.Linear(sizes.width, sizes.inner)
        self.fc2 = nn.Linear(sizes.inner, sizes.width)
        self.final_layer_norm = nn.LayerNorm(sizes.width)
        self.before = sizes.before

    def forward(self, x: Tensor) -> Tensor:  # (B, N, width)
        if self.before:
            x = x + self.self_attn(self.self_attn_layer_norm(x))
            return x + self.fc2(F.gelu(self.fc1(self.final_layer_norm(x))))
        x = self.self_attn_layer_norm(x + self.self_attn(x))
        out: Tensor = self.final_layer_norm(x + self.fc2(F.gelu(self.fc1(x))))
        return out


class _Blocks(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Block(sizes) for _ in range(sizes.depth))
        self.layer_norm = nn.LayerNorm(sizes.width)
        self.before = sizes.before

    def forward(self, x: Tensor) -> Tensor:  # (B, N, width)
        x = x if self.before else self.layer_norm(x)
        for layer in self.layers:
            x = layer(x)
        return self.layer_norm(x) if self.before else x


class Wav2Vec(nn.Module):
    """Baevski 2020, arXiv 2006.11477: a convolutional front and a Transformer; its mean token.

    Attributes:
        width: of the embedding.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        front = sizes.conv[-1][0]
        self.feature_extractor = _Front(sizes)
        self.layer_norm = nn.LayerNorm(front)
        self.post_extract_proj = nn.Linear(front, sizes.width)
        self.conv_pos = nn.Conv1d(
            sizes.width, sizes.width, sizes.reach, padding=sizes.reach // 2, groups=sizes.groups
        )
        self.encoder = _Blocks(sizes)
        self.width = sizes.width

    def forward(self, x: Tensor) -> Tensor:  # (B, channels, T) → (B, width)
        x = self.layer_norm(self.feature_extractor(x).transpose(1, 2))
        x = self.post_extract_proj(x)  # (B, N, width)
        near = self.conv_pos(x.transpose(1, 2))[..., : x.shape[1]]  # an even kernel gives one more
        tokens: Tensor = self.encoder(x + F.gelu(near).transpose(1, 2))
        return tokens.mean(dim=1)


class Flattened(nn.Module):
    """A network of one channel, given the leads one after the other."""

    def __init__(self, net: Wav2Vec) -> None:
        super().__init__()
        self.net, self.width = net, net.width

    def forward(self, x: Tensor) -> Tensor:  # (B, C, T) → (B, width)
        out: Tensor = self.net(x.flatten(1).unsqueeze(1))
        return out


def ecg_fm(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> nn.Module:
    """ECG-FM's network, in the sizes of its weights. ``config`` is not used.

    Strides are the kernels, as in its configuration; heads are of 64 values, as in BERT.
    """
    kernels = [
        tensors[f"feature_extractor.conv_layers.{n}.0.weight"].shape
        for n in range(count(tensors, "feature_extractor.conv_layers."))
    ]
    width, each, reach = tensors["conv_pos.weight"].shape
    return Wav2Vec(
        Sizes(
            channels=kernels[0][1],
            conv=tuple((outer, kernel, kernel) for outer, _, kernel in kernels),
            bias=False,
            norm="group",
            width=width,
            inner=tensors["encoder.layers.0.fc1.weight"].shape[0],
            depth=count(tensors, "encoder.layers."),
            heads=max(width // _HEAD, 1),
            before=False,
            reach=reach,
            groups=width // each,
        )
    )


def hubert_ecg(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> nn.Module:
    """HuBERT-ECG's network, in the sizes of its config.json, which is transformers' HubertConfig.

    Raises:
        UsageError: if ``config`` lacks a size, or asks for what the network does not have.
    """
    if (
        config.get("feat_extract_activation", "gelu") != "gelu"
        or config.get("hidden_act", "gelu") != "gelu"
    ):
        raise UsageError("config.json of HuBERT-ECG: activations other than GELU are not known.")
    if not config.get("feat_proj_layer_norm", True) or config.get("conv_pos_batch_norm", False):
        raise UsageError(
            "config.json of HuBERT-ECG: norms other than those of HuBERT are not known."
        )
    try:
        conv = tuple(zip(*(config[f"conv_{n}"] for n in ("dim", "kernel", "stride")), strict=True))
        sizes = Sizes(
            channels=1,
            conv=conv,
            bias=bool(config.get("conv_bias", False)),
            norm="layer" if config.get("feat_extract_norm", "group") == "layer" else "group",
            width=int(config["hidden_size"]),
            inner=int(config["intermediate_size"]),
            depth=int(config["num_hidden_layers"]),
            heads=int(config["num_attention_heads"]),
            before=bool(config.get("do_stable_layer_norm", False)),
            reach=int(config.get("num_conv_pos_embeddings", 128)),
            groups=int(config.get("num_conv_pos_embedding_groups", 16)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"config.json of HuBERT-ECG lacks a size, or it is none: {error}. Download it with the "
            "weights."
        ) from None
    return Flattened(Wav2Vec(sizes))


_HUBERT: Sequence[tuple[str, str]] = (
    (r"^feature_extractor\.conv_layers\.(\d+)\.conv\.", r"feature_extractor.conv_layers.\1.0."),
    (r"^feature_extractor\.conv_layers\.(\d+)\.layer_norm\.",
     r"feature_extractor.conv_layers.\1.2."),
    (r"^feature_projection\.layer_norm\.", "layer_norm."),
    (r"^feature_projection\.projection\.", "post_extract_proj."),
    (r"^encoder\.pos_conv_embed\.conv\.", "conv_pos."),
    (r"\.attention\.", ".self_attn."),
    (r"^(encoder\.layers\.\d+)\.layer_norm\.", r"\1.self_attn_layer_norm."),
    (r"\.feed_forward\.intermediate_dense\.", ".fc1."),
    (r"\.feed_forward\.output_dense\.", ".fc2."),
)  # fmt: skip


def of_fairseq(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """fairseq-signals' names as those of `Wav2Vec`; the weight norm is multiplied out."""
    return _folded({n.replace("conv_pos.pos_conv.0.", "conv_pos."): v for n, v in tensors.items()})


def of_transformers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The names of transformers' HubertModel as those of `Flattened`."""
    named = {}
    for name, value in tensors.items():
        for old, new in _HUBERT:
            name = re.sub(old, new, name)
        named[name] = value
    return {f"net.{name}": value for name, value in _folded(named).items()}


def _folded(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """``conv_pos.weight`` = g·v/‖v‖ of its weight norm over each tap, in either spelling."""
    made = dict(tensors)
    newer = "parametrizations.weight.original"
    for g, v in (("weight_g", "weight_v"), (f"{newer}0", f"{newer}1")):
        size, direction = made.pop(f"conv_pos.{g}", None), made.pop(f"conv_pos.{v}", None)
        if size is not None and direction is not None:
            length = torch.linalg.vector_norm(direction, dim=(0, 1), keepdim=True)
            made["conv_pos.weight"] = direction * (size / length)
    return made
