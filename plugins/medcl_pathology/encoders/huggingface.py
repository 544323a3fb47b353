"""Backbones of Hugging Face transformers, from a folder or new: an optional extra."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from medcl.errors import UsageError
from medcl_pathology.encoders.parts import HALF, IMAGENET, Colours

Pool = Literal["cls", "mean"]
Scale = Literal["imagenet", "half"]


class HuggingFace(nn.Module):
    """A transformers backbone of RGB tiles. ``width``: of the output."""

    def __init__(self, net: Any, pool: Pool, colours: Colours, side: int | None) -> None:
        super().__init__()
        self.net, self.pool, self.colours, self.side = net, pool, colours, side
        config = net.config
        widths = getattr(config, "hidden_sizes", None)
        self.width = int(widths[-1] if widths else config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) in 0 … 1 → (B, width): the class token, or the mean over positions."""
        x = resized(self.colours(x), self.side)
        out: Tensor = self.net(x).last_hidden_state
        if out.dim() == 4:  # a convolutional network's last map
            return out.flatten(2).mean(dim=2)
        return out[:, 0] if self.pool == "cls" else out[:, 1:].mean(dim=1)


def resized(x: Tensor, side: int | None) -> Tensor:
    """Tiles at the side that a Transformer's positions are made for."""
    if side is None or x.shape[2:] == (side, side):
        return x
    return F.interpolate(x, (side, side), mode="bicubic", antialias=True, align_corners=False)


def huggingface(*, folder: Path, pool: Pool = "cls", colours: Scale = "imagenet") -> nn.Module:
    """A model saved with ``save_pretrained`` (ViT, DINOv2, ConvNeXt, …).

    Needs the extra: ``pip install 'medcl[hf]'``. Nothing is downloaded, and no code of the folder
    is run.

    Args:
        folder: holds config.json and model.safetensors.
        pool: "cls" or "mean": what of a Transformer is the embedding.
        colours: the mean and spread that it was trained with: ImageNet's, or 0.5 each.

    Returns:
        a module (B, 3, H, W) in 0 … 1 → (B, width).

    Raises:
        UsageError: if transformers is not installed, or the folder holds no model.
    """
    hf: Any
    try:
        hf = import_module("transformers")
    except ImportError:
        raise UsageError(
            "Encoder 'huggingface' needs Hugging Face transformers: pip install 'medcl[hf]'."
        ) from None
    if not (Path(folder) / "config.json").is_file():
        raise UsageError(f"{folder} holds no config.json: give a folder of save_pretrained.")
    try:
        net = hf.AutoModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0][:200]
        raise UsageError(f"{folder} holds no model that transformers can load: {reason}") from None
    transformer = getattr(net.config, "hidden_sizes", None) is None
    side = int(net.config.image_size) if transformer else None
    return HuggingFace(net, pool, Colours(*(IMAGENET if colours == "imagenet" else HALF)), side)
