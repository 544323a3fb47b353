"""Released pathology models (`medcl_pathology.encoders.models`), opened from a local folder.

Nothing is downloaded: most are gated, and their licences bind whoever is given access. Download a
model where that is allowed (``hf download REPOSITORY --local-dir FOLDER``) and give the folder.
A folder's own code is never run.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medcl.errors import UsageError
from medcl.nn.weights import load
from medcl_pathology.encoders.huggingface import huggingface, resized
from medcl_pathology.encoders.models import RELEASED, Released
from medcl_pathology.encoders.parts import IMAGENET, Colours


class Fed(nn.Module):
    """Tiles as a model's authors feed them: resized, the middle of it, in its colours.

    A tile that already has the side of the crop is left as it is.
    """

    def __init__(self, model: Released) -> None:
        super().__init__()
        self.resize, self.crop = model.resize, model.crop
        self.colours = Colours(*model.colours)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) in 0 … 1 → (B, 3, crop, crop)."""
        if x.shape[2:] != (self.crop, self.crop):
            scale = self.resize / min(x.shape[2:])
            side = [max(round(n * scale), self.crop) for n in x.shape[2:]]
            if list(x.shape[2:]) != side:
                x = F.interpolate(
                    x, side, mode="bicubic", antialias=True, align_corners=False
                ).clamp(0, 1)
            top, left = ((n - self.crop) // 2 for n in x.shape[2:])
            x = x[..., top : top + self.crop, left : left + self.crop]
        out: Tensor = self.colours(x)
        return out


class Pooled(nn.Module):
    """A Transformer's tokens to an embedding. ``width``: of the output."""

    def __init__(self, net: Any, tokens: Callable[[Any], Tensor], model: Released, wide: int):
        super().__init__()
        self.fed, self.net, self.tokens = Fed(model), net, tokens
        self.pool, self.prefix = model.pool, model.prefix
        self.width = wide * (2 if model.pool == "cls+mean" else 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) in 0 … 1 → (B, width)."""
        out = self.tokens(self.net(self.fed(x)))
        if out.dim() == 2:
            return out
        mean = out[:, self.prefix :].mean(dim=1)
        if self.pool == "mean":
            return mean
        return out[:, 0] if self.pool == "cls" else torch.cat([out[:, 0], mean], dim=1)


class Timm(nn.Module):
    """Any network of timm behind its colours. ``width``: of the output."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net
        self.width = int(net.num_features)
        config = net.pretrained_cfg
        self.colours = Colours(config.get("mean", IMAGENET[0]), config.get("std", IMAGENET[1]))
        side = getattr(getattr(net, "patch_embed", None), "img_size", None)
        self.side = None if side is None else int(side[0])

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) in 0 … 1 → (B, width)."""
        out: Tensor = self.net(resized(self.colours(x), self.side))
        return out if out.dim() == 2 else out[:, 0]


def timm(*, model: str, folder: Path | None = None, weights: Path | None = None) -> nn.Module:
    """Any architecture of timm (Wightman, github.com/huggingface/pytorch-image-models).

    Args:
        model: as timm lists it, such as ``vit_small_patch16_224``.
        folder: where its weights lie (model.safetensors or pytorch_model.bin).
        weights: or the file itself. Without either, weights are random.

    Returns:
        a module (B, 3, H, W) in 0 … 1 → (B, width).

    Raises:
        UsageError: if timm is not installed, does not know the name, or the weights do not fit.
    """
    package = _timm("timm")
    try:
        net = package.create_model(model, pretrained=False, num_classes=0)
    except RuntimeError as error:
        raise UsageError(f"timm has no model '{model}': {error}") from None
    file = weights or (None if folder is None else _weights(Path(folder)))
    if file is not None:
        load(net, file)
    return Timm(net)


def _timm(encoder: str) -> Any:
    try:
        return import_module("timm")
    except (ImportError, RuntimeError):  # the latter where torchvision does not fit torch
        raise UsageError(f"Encoder '{encoder}' needs timm: pip install 'timm>=1.0'.") from None


def _weights(folder: Path) -> Path:
    names = ("model.safetensors", "pytorch_model.bin", "model.pth", "pytorch_model.pt")
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise UsageError(f"{folder} holds none of {', '.join(names)}: give the folder of the model.")


class Opener(Protocol):
    """What opens a released model, and how tiles are prepared for it where nothing else is said."""

    prepare: dict[str, float]

    def __call__(self, *, folder: Path | None = None) -> nn.Module:
        """A module (B, 3, H, W) in 0 … 1 → (B, width)."""
        ...


def _opener(name: str) -> Opener:
    def opened(*, folder: Path | None = None) -> nn.Module:
        return _open(name, folder)

    model = RELEASED[name]
    opened.__name__ = opened.__qualname__ = name
    opened.__doc__ = (
        f"{name} ({model.paper}); {model.licence}.\n\nArgs:\n"
        "    folder: where its configuration and weights lie, as ``hf download`` wrote them.\n"
    )
    opened.prepare = {"mpp": model.mpp, "size": model.size}  # type: ignore[attr-defined]
    made: Any = opened
    return made


def _open(name: str, folder: Path | None) -> nn.Module:
    model = RELEASED[name]
    about = f"Encoder '{name}' ({model.paper}; {model.licence}; {model.repository})"
    if model.level == "slide":
        raise UsageError(
            f"{about} makes one vector of a whole slide, by its authors' own code, which medcl "
            "does not run. Embed with it in their environment, and index the vectors."
        )
    if model.family == "code":
        raise UsageError(
            f"{about} can only be built by its authors' code, which medcl does not run. "
            "Embed with it by its authors' tools (TRIDENT), and index the folder of bags."
        )
    if folder is None:
        access = (
            f"ask for access at https://huggingface.co/{model.repository}, then"
            if model.gated
            else "to get it,"
        )
        raise UsageError(
            f"Encoder '{name}' ({model.paper}; {model.licence}) is not part of medcl: {access} hf "
            f"download {model.repository} --local-dir FOLDER, and give -s encoder.folder=FOLDER."
        )
    if model.family == "conch":
        return _conch(Path(folder), model)
    if model.family == "transformers":
        net: Any = huggingface(folder=folder, pool="cls").net
        return Pooled(net, _last_hidden, model, int(net.config.hidden_size))
    package = _timm(name)
    options = dict(model.options)
    if options.pop("swiglu", False):
        options |= {"mlp_layer": package.layers.SwiGLUPacked, "act_layer": nn.SiLU}
    net = package.create_model(model.build, pretrained=False, num_classes=0, **options)
    load(net, _weights(Path(folder)))
    return Pooled(net, _as_they_are, model, int(net.num_features))


def _last_hidden(out: Any) -> Tensor:
    tokens: Tensor = out.last_hidden_state
    return tokens


def _as_they_are(out: Any) -> Tensor:
    tokens: Tensor = out
    return tokens


class Conch(nn.Module):
    """The image tower of CONCH behind its colours. ``width``: of the output."""

    width = 512

    def __init__(self, net: Any, model: Released) -> None:
        super().__init__()
        self.net, self.fed = net, Fed(model)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) in 0 … 1 → (B, 512): before the projection for contrast with texts."""
        out: Tensor = self.net.encode_image(self.fed(x), proj_contrast=False, normalize=False)
        return out


def _conch(folder: Path, model: Released) -> nn.Module:
    """By its authors' package, which is installed and no part of the folder."""
    create: Callable[..., Any]
    try:
        create = import_module("conch.open_clip_custom").create_model_from_pretrained
    except ImportError:
        raise UsageError(
            "Encoder 'conch' needs its authors' package: "
            "pip install git+https://github.com/Mahmoodlab/CONCH.git"
        ) from None
    net, _ = create("conch_ViT-B-16", str(_weights(folder)))
    return Conch(net, model)


OPENERS: dict[str, Opener] = {name: _opener(name) for name in RELEASED}


def __getattr__(name: str) -> Opener:
    """``released:h_optimus_0`` and the like: see `medcl_pathology.plugin`."""
    for known, opener in OPENERS.items():
        if attribute(known) == name:
            return opener
    raise AttributeError(name)


def attribute(name: str) -> str:
    """A model's name as an attribute of this module."""
    return name.replace("-", "_").replace(".", "_")
