"""Released weights: read a file without executing code, and load it into an encoder."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from medcl.errors import MedclWarning, UsageError

WRAPPERS = ("state_dict", "model", "net", "teacher", "student", "model_state", "model_state_dict")
"""Keys under which published checkpoints store their weights."""


IN_FOLDER = (
    "encoder.safetensors",  # a run of medcl
    "model.safetensors",  # Hugging Face, timm
    "pytorch_model.bin",
    "models/model.pt",  # a bundle of MONAI
    "model.pt",
)
"""Files of weights, by which a folder is known."""


@dataclass(frozen=True)
class Fit:
    """How the weights in a file match an encoder.

    Attributes:
        prefix: of each name in the file.
        matched: names that were loaded.
        missing: the encoder's names that the file lacks.
        shapes: names in both, with different shapes.
        unused: names in the file that the encoder lacks (heads, decoders).
    """

    prefix: str
    matched: tuple[str, ...]
    missing: tuple[str, ...]
    shapes: tuple[str, ...]
    unused: tuple[str, ...]

    def sentence(self) -> str:
        """A summary of matches and mismatches in one line."""
        parts = [f"{len(self.matched)} tensors matched"]
        for names, problem in (
            (self.missing, "not in the file"),
            (self.shapes, "of another shape"),
            (self.unused, "in the file but not used"),
        ):
            if names:
                examples = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
                parts.append(f"{len(names)} {problem} ({examples})")
        return "; ".join(parts) + "."


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors`` or torch file, by name; nothing in it is executed.

    Raises:
        UsageError: if the file does not exist, or holds anything but weights.
    """
    if not path.is_file():
        raise UsageError(f"No weights at {path}: check encoder.weights.")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise UsageError(f"{path} is not a safetensors file: {error}") from None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises several kinds, from zip files to the unpickler
        reason = str(error).splitlines()[0][:200]
        raise UsageError(
            f"{path} cannot be read as weights alone ({reason}). A file that needs code to be "
            "loaded is refused: save its state_dict to .safetensors where you trust it."
        ) from None
    for _ in range(2):
        if isinstance(content, Mapping):
            content = next(
                (content[k] for k in WRAPPERS if isinstance(content.get(k), Mapping)), content
            )
    tensors = {}
    if isinstance(content, Mapping):
        tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
    if not tensors:
        raise UsageError(f"{path} holds no tensors by name; is it a checkpoint of weights?")
    return tensors


def of_folder(path: Path) -> Path:
    """The file of weights in a folder, or ``path`` itself if it is no folder.

    Raises:
        UsageError: if the folder has none.
    """
    if not path.is_dir():
        return path
    for name in IN_FOLDER:
        if (path / name).is_file():
            return path / name
    raise UsageError(f"{path} holds none of {', '.join(IN_FOLDER)}: name the file of weights.")


def fit(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    what: str,
    *,
    rename: Callable[[str], str] | None = None,
) -> Fit:
    """Copy ``weights`` into ``module`` where names match, after removing the best-fitting prefix.

    A stem for RGB is adapted to c channels: its weights are summed over RGB and divided by c, so
    that the output for a grey image does not change.

    Args:
        module: loaded in place.
        weights: from `read`.
        what: the file's name, for messages.
        rename: from a name in the file to the current one; None: names have not changed.

    Raises:
        UsageError: if less than half of the module's values are in the file.
    """
    own = {name: value for name, value in module.state_dict().items() if value.is_floating_point()}
    in_file = {rename(name) if rename else name: value for name, value in weights.items()}
    anchors = list(own)[:: max(len(own) // 8, 1)]
    prefixes = {
        name[: -len(anchor)]
        for anchor in anchors
        for name in in_file
        if name == anchor or name.endswith("." + anchor)
    }
    prefix = max(
        sorted(prefixes), key=lambda p: sum(p + name in in_file for name in own), default=""
    )
    filled: dict[str, Tensor] = {}
    shapes = []
    for name, value in own.items():
        if prefix + name in in_file:
            new = _stem(in_file[prefix + name], value)
            if new.shape == value.shape:
                filled[name] = new
            else:
                shapes.append(name)
    share = sum(filled[n].numel() for n in filled) / max(sum(v.numel() for v in own.values()), 1)
    unused = sorted(set(in_file) - {prefix + name for name in own})
    counted = [name for name in unused if not name.endswith(("num_batches_tracked", "index"))]
    missing = [name for name in own if prefix + name not in in_file]
    report = Fit(prefix, tuple(filled), tuple(missing), tuple(shapes), tuple(counted))
    if share < 0.5:
        raise UsageError(
            f"{what} does not fit this encoder ({share:.0%} of its values found): "
            f"{report.sentence()} Check that the encoder's settings are those of the weights."
        )
    module.load_state_dict(filled, strict=False)
    return report


def load(module: nn.Module, path: str | Path, *, rename: Callable[[str], str] | None = None) -> Fit:
    """`read` and `fit`; warns if anything did not match."""
    report = fit(module, read(Path(path)), Path(path).name, rename=rename)
    if report.missing or report.shapes or report.unused:
        warnings.warn(f"{Path(path).name}: {report.sentence()}", MedclWarning, stacklevel=2)
    return report


def _stem(weight: Tensor, like: Tensor) -> Tensor:
    """A convolution over RGB as one over the channels of ``like``."""
    if weight.dim() < 4 or weight.shape[1] != 3 or like.shape[1] == 3:
        return weight
    if (weight.shape[0], *weight.shape[2:]) != (like.shape[0], *like.shape[2:]):
        return weight
    return weight.sum(dim=1, keepdim=True).expand_as(like) / like.shape[1]
