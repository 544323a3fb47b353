"""Released pathology models, as data: what each is, and how it is opened from a local folder.

Nothing is downloaded: most are gated, and their licences bind whoever is given access. Download a
model where that is allowed (``hf download REPOSITORY --local-dir FOLDER``) and give the folder.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from medcl.errors import UsageError
from medcl.nn.weights import load
from medcl_pathology.encoders.huggingface import huggingface, resized
from medcl_pathology.encoders.parts import IMAGENET, Colours

_OPTIMUS = ((0.707223, 0.578729, 0.703617), (0.211883, 0.230117, 0.177517))


@dataclass(frozen=True)
class Released:
    """A model that somebody published.

    Attributes:
        repository: on huggingface.co.
        paper: where it is described.
        build: timm's name of the architecture; None: a transformers model.
        options: what timm builds it with.
        pool: what is the embedding: the class token, or that and the mean of the patches.
        prefix: tokens that are no patch.
    """

    repository: str
    paper: str
    build: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    pool: Literal["cls", "cls+mean"] = "cls"
    prefix: int = 1
    colours: tuple[tuple[float, ...], tuple[float, ...]] = IMAGENET
    gated: bool = True


RELEASED = {
    "uni": Released(
        "MahmoodLab/UNI",
        "Chen 2024, doi 10.1038/s41591-024-02857-3",
        "vit_large_patch16_224",
        {"init_values": 1e-5, "dynamic_img_size": True},
    ),
    "virchow": Released(
        "paige-ai/Virchow",
        "Vorontsov 2024, doi 10.1038/s41591-024-03141-0",
        "vit_huge_patch14_224",
        {"init_values": 1e-5, "mlp_ratio": 5.3375, "global_pool": "", "swiglu": True},
        pool="cls+mean",
    ),
    "h-optimus-0": Released(
        "bioptimus/H-optimus-0",
        "Saillard 2024, github.com/bioptimus/releases",
        "vit_giant_patch14_reg4_dinov2",
        {"img_size": 224, "init_values": 1e-5},
        prefix=5,
        colours=_OPTIMUS,
    ),
    "gigapath": Released(
        "prov-gigapath/prov-gigapath",
        "Xu 2024, doi 10.1038/s41586-024-07441-w",
        "vit_giant_patch14_dinov2",
        {"img_size": 224, "patch_size": 16, "init_values": 1e-5, "depth": 40, "embed_dim": 1536,
         "num_heads": 24, "mlp_ratio": 5.33334},
    ),
    "phikon": Released("owkin/phikon", "Filiot 2023, doi 10.1101/2023.07.21.23292757", gated=False),
}  # fmt: skip


class Timm(nn.Module):
    """A Transformer of timm behind its colours. ``width``: of the output."""

    def __init__(self, net: Any, model: Released | None) -> None:
        super().__init__()
        self.net = net
        both = model is not None and model.pool == "cls+mean"
        self.prefix = model.prefix if model is not None and both else 0
        self.width = int(net.num_features) * (2 if both else 1)
        config = net.pretrained_cfg if model is None else {}
        colours = (
            (config.get("mean", IMAGENET[0]), config.get("std", IMAGENET[1]))
            if model is None
            else model.colours
        )
        self.colours = Colours(*colours)
        side = getattr(getattr(net, "patch_embed", None), "img_size", None)
        self.side = None if side is None else int(side[0])

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) in 0 … 1 → (B, width)."""
        out: Tensor = self.net(resized(self.colours(x), self.side))
        if not self.prefix:
            return out if out.dim() == 2 else out[:, 0]
        return torch.cat([out[:, 0], out[:, self.prefix :].mean(dim=1)], dim=1)


def timm(*, name: str, folder: Path | None = None, weights: Path | None = None) -> nn.Module:
    """Any architecture of timm (Wightman, github.com/huggingface/pytorch-image-models).

    Args:
        name: as timm lists it, such as ``vit_small_patch16_224``.
        folder: where its weights lie (model.safetensors or pytorch_model.bin).
        weights: or the file itself. Without either, weights are random.

    Returns:
        a module (B, 3, H, W) in 0 … 1 → (B, width).

    Raises:
        UsageError: if timm is not installed, does not know the name, or the weights do not fit.
    """
    package = _timm("timm")
    try:
        net = package.create_model(name, pretrained=False, num_classes=0)
    except RuntimeError as error:
        raise UsageError(f"timm has no model '{name}': {error}") from None
    file = weights or (None if folder is None else _weights(Path(folder)))
    if file is not None:
        load(net, file)
    return Timm(net, None)


def _timm(encoder: str) -> Any:
    try:
        return import_module("timm")
    except ImportError:
        raise UsageError(f"Encoder '{encoder}' needs timm: pip install 'timm>=1.0'.") from None


def _weights(folder: Path) -> Path:
    names = ("model.safetensors", "pytorch_model.bin", "model.pth", "pytorch_model.pt")
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise UsageError(f"{folder} holds none of {', '.join(names)}: give the folder of the model.")


def _open(name: str, folder: Path | None) -> nn.Module:
    model = RELEASED[name]
    if folder is None:
        access = (
            f"ask for access at https://huggingface.co/{model.repository}, then"
            if model.gated
            else "to get it,"
        )
        raise UsageError(
            f"Encoder '{name}' ({model.paper}) is not part of medcl: {access} hf download "
            f"{model.repository} --local-dir FOLDER, and give -s encoder.folder=FOLDER."
        )
    if model.build is None:
        return huggingface(folder=folder, pool="cls")
    package = _timm(name)
    options = dict(model.options)
    if options.pop("swiglu", False):
        options |= {"mlp_layer": package.layers.SwiGLUPacked, "act_layer": nn.SiLU}
    net = package.create_model(model.build, pretrained=False, num_classes=0, **options)
    load(net, _weights(Path(folder)))
    return Timm(net, model)


def uni(*, folder: Path | None = None) -> nn.Module:
    """UNI (Chen 2024, doi 10.1038/s41591-024-02857-3): ViT-L/16, 1024 wide.

    Args:
        folder: where its configuration and weights lie, as ``hf download`` wrote them.
    """
    return _open("uni", folder)


def virchow(*, folder: Path | None = None) -> nn.Module:
    """Virchow (Vorontsov 2024, doi 10.1038/s41591-024-03141-0): ViT-H/14, 2560 wide.

    Args:
        folder: where its configuration and weights lie, as ``hf download`` wrote them.
    """
    return _open("virchow", folder)


def h_optimus_0(*, folder: Path | None = None) -> nn.Module:
    """H-optimus-0 (Saillard 2024): ViT-g/14 with registers, 1536 wide.

    Args:
        folder: where its configuration and weights lie, as ``hf download`` wrote them.
    """
    return _open("h-optimus-0", folder)


def gigapath(*, folder: Path | None = None) -> nn.Module:
    """The tile encoder of Prov-GigaPath (Xu 2024, doi 10.1038/s41586-024-07441-w): 1536 wide.

    Args:
        folder: where its configuration and weights lie, as ``hf download`` wrote them.
    """
    return _open("gigapath", folder)


def phikon(*, folder: Path | None = None) -> nn.Module:
    """Phikon (Filiot 2023, doi 10.1101/2023.07.21.23292757): ViT-B/16, 768 wide.

    Args:
        folder: where its configuration and weights lie, as ``hf download`` wrote them.
    """
    return _open("phikon", folder)


class Conch(nn.Module):
    """The image tower of CONCH behind its colours. ``width``: of the output."""

    width = 512

    def __init__(self, net: Any, colours: Colours, side: int) -> None:
        super().__init__()
        self.net, self.colours, self.side = net, colours, side

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) in 0 … 1 → (B, 512): before the projection for contrast with texts."""
        x = resized(self.colours(x), self.side)
        out: Tensor = self.net.encode_image(x, proj_contrast=False, normalize=False)
        return out


def conch(*, folder: Path | None = None) -> nn.Module:
    """CONCH (Lu 2024, doi 10.1038/s41591-024-02856-4), by its authors' package.

    Args:
        folder: where its configuration and weights lie, as ``hf download`` wrote them.
    """
    if folder is None:
        raise UsageError(
            "Encoder 'conch' (Lu 2024, doi 10.1038/s41591-024-02856-4) is not part of medcl: ask "
            "for access at https://huggingface.co/MahmoodLab/CONCH, then hf download "
            "MahmoodLab/CONCH --local-dir FOLDER, and give -s encoder.folder=FOLDER."
        )
    create: Callable[..., Any]
    try:
        create = import_module("conch.open_clip_custom").create_model_from_pretrained
    except ImportError:
        raise UsageError(
            "Encoder 'conch' needs its authors' package: "
            "pip install git+https://github.com/Mahmoodlab/CONCH.git"
        ) from None
    net, _ = create("conch_ViT-B-16", str(_weights(Path(folder))))
    return Conch(net, Colours(*_CLIP), 448)


_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
