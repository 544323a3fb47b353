"""What the tile encoders share: the scale of colours, and weights from files."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from medcl.errors import UsageError

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_WRAPPERS = ("state_dict", "model", "teacher", "student")


class Colours(nn.Module):
    """The first layer of every encoder: RGB in 0 … 1 → as the network was, or will be, trained."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, 3, H, W).

        Raises:
            UsageError: if ``x`` is no RGB.
        """
        if x.dim() != 4 or x.shape[1] != 3:
            raise UsageError(f"An encoder of tiles takes (B, 3, H, W), not {tuple(x.shape)}.")
        out: Tensor = (x - self.mean) / self.std  # type: ignore[operator]
        return out


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors`` or torch file, by name; nothing in it is executed.

    Raises:
        UsageError: if there is no such file, or it is not a plain file of weights.
    """
    if not path.is_file():
        raise UsageError(f"No weights at {path}: check encoder.weights.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # several kinds, from zip files to the unpickler
        raise UsageError(
            f"{path} cannot be read as weights alone ({type(error).__name__}). Save its state_dict "
            "to .safetensors where you trust it."
        ) from None
    for _ in range(2):
        if isinstance(content, Mapping):
            content = next(
                (content[k] for k in _WRAPPERS if isinstance(content.get(k), Mapping)), content
            )
    found = {}
    if isinstance(content, Mapping):
        found = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
    if not found:
        raise UsageError(f"{path} holds no tensors by name; is it a checkpoint of weights?")
    return found


def load(module: nn.Module, path: Path) -> None:
    """Fill a module from a file, below whatever prefix its names have there.

    Heads that the module lacks are left aside; what the file lacks stays as initialised, with a
    warning.

    Raises:
        UsageError: if less than half of the module's values are in the file, in their shapes.
    """
    weights = read(path)
    own = module.state_dict()
    prefixes = {
        name[: -len(mine)] for mine in list(own)[:8] for name in weights if name.endswith(mine)
    }
    prefix = max(
        sorted(prefixes, key=len),
        key=lambda p: sum(p + name in weights for name in own),
        default="",
    )
    fits = {
        name: weights[prefix + name]
        for name, value in own.items()
        if prefix + name in weights and weights[prefix + name].shape == value.shape
    }
    share = sum(own[n].numel() for n in fits) / max(sum(v.numel() for v in own.values()), 1)
    if share < 0.5:
        raise UsageError(
            f"{path.name} does not fit this encoder ({share:.0%} of its values are there): check "
            "that the encoder's settings are those of the weights."
        )
    module.load_state_dict(fits, strict=False)
    missing = sorted(set(own) - set(fits))
    if missing:
        warnings.warn(
            f"{path.name} lacks {len(missing)} of {len(own)} tensors, such as {missing[0]}; they "
            "stay as initialised.",
            stacklevel=2,
        )
