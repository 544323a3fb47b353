"""2D backbones of Hugging Face transformers: an optional extra."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from medcl.errors import UsageError
from medcl_ct.encoders.parts import Scale, Window, planes

Family = Literal["convnext", "vit", "dinov2"]


class HuggingFace(nn.Module):
    """A transformers backbone behind a display window.

    Attributes:
        width: of the output.
        channels, stage_widths, strides: of a ConvNeXt, for SparK; absent otherwise.
    """

    def __init__(self, net: Any, window: tuple[float, float], scale: Scale) -> None:
        super().__init__()
        self.window, self.net = Window(window, scale), net
        self.config_channels = int(net.config.num_channels)
        if net.config.model_type == "convnext":
            self.channels = 1
            self.stage_widths = tuple(net.config.hidden_sizes)
            first = int(net.config.patch_size)
            self.strides = tuple(first * 2**n for n in range(len(self.stage_widths)))
            self.width = int(self.stage_widths[-1])
        else:
            self.width = int(net.config.hidden_size)

    def _input(self, x: Tensor) -> Tensor:
        # Repeating a grey image over RGB is the same as summing the stem's weights.
        return self.window(planes(x, 1)).expand(-1, self.config_channels, -1, -1)

    def stages(self, x: Tensor) -> list[Tensor]:
        """(B, 1, H, W) → for each stage of a ConvNeXt (B, stage_width, H/stride, W/stride)."""
        hidden = self.net(self._input(x), output_hidden_states=True).hidden_states
        return list(hidden[-len(self.stage_widths) :])

    def pool(self, stage: Tensor) -> Tensor:
        """The last stage of a ConvNeXt (B, width, H, W) → (B, width): the mean over positions."""
        return stage.flatten(2).mean(dim=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, H, W) → (B, width): the mean over positions."""
        out = self.net(self._input(x)).last_hidden_state
        return self.pool(out) if out.dim() == 4 else out[:, 1:].mean(dim=1)


def huggingface2d(
    *,
    family: Family = "convnext",
    size: int = 224,
    patch: int = 16,
    depths: tuple[int, int, int, int] = (3, 3, 9, 3),
    widths: tuple[int, int, int, int] = (96, 192, 384, 768),
    depth: int = 12,
    heads: int = 6,
    hidden: int = 384,
    folder: Path | None = None,
    window: tuple[float, float] = (0.0, 2000.0),
    scale: Scale = "water",
) -> nn.Module:
    """ConvNeXt (Liu 2022, arXiv 2201.03545), ViT or DINOv2 (Oquab 2023, arXiv 2304.07193).

    Needs the extra: ``pip install 'medcl[hf]'``. Nothing is downloaded.

    Args:
        family: what to build; ignored with ``folder``.
        size: side of the slices; only Transformers need it.
        patch: side of a patch of a Transformer.
        depths: blocks of each ConvNeXt stage.
        widths: channels of each ConvNeXt stage.
        depth: blocks of a Transformer.
        heads: attention heads of a Transformer.
        hidden: width of a Transformer.
        folder: a model saved with ``save_pretrained`` (config.json, model.safetensors), whose
            architecture and weights are taken.
        window: level and width in HU of what the network sees.
        scale: "water" (0 HU is 0) or "unit" (0 to 1).

    Returns:
        a module (B, 1, H, W) in HU → (B, width).

    Raises:
        UsageError: if transformers is not installed, or the folder holds no model.
    """
    hf: Any
    try:
        hf = import_module("transformers")
    except ImportError:
        raise UsageError(
            "Encoder 'huggingface2d' needs Hugging Face transformers: pip install 'medcl[hf]'."
        ) from None
    net: Any
    if folder is not None:
        if not (Path(folder) / "config.json").is_file():
            raise UsageError(f"{folder} holds no config.json: give a folder of save_pretrained.")
        net = hf.AutoModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, trust_remote_code=False
        )
    elif family == "convnext":
        config = hf.ConvNextConfig(num_channels=1, depths=depths, hidden_sizes=widths)
        net = hf.ConvNextModel(config)
    else:
        sizes = {
            "num_channels": 1,
            "image_size": size,
            "patch_size": patch,
            "num_hidden_layers": depth,
            "num_attention_heads": heads,
            "hidden_size": hidden,
        }
        if family == "vit":
            config = hf.ViTConfig(**sizes, intermediate_size=4 * hidden)
            net = hf.ViTModel(config, add_pooling_layer=False)
        else:
            net = hf.Dinov2Model(hf.Dinov2Config(**sizes))
    return HuggingFace(net, window, scale)
