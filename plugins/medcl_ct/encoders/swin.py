"""The encoder of Swin UNETR, built by MONAI."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

from torch import Tensor, nn

from medcl.errors import UsageError
from medcl.nn import weights as released
from medcl_ct.encoders.parts import Scale, Window


class SwinEncoder(nn.Module):
    """Hatamizadeh 2022, arXiv 2201.01266: four Swin stages; the last one's mean is the embedding.

    Attributes:
        width: of the output.
    """

    def __init__(
        self,
        base: int,
        depths: tuple[int, ...],
        heads: tuple[int, ...],
        drop_path: float,
        checkpoint: bool,
        window: tuple[float, float],
        scale: Scale,
    ) -> None:
        super().__init__()
        from monai.networks.nets.swin_unetr import SwinTransformer

        if find_spec("einops") is None:
            raise UsageError(
                "Encoder 'swin_unetr3d' needs einops, which MONAI uses: pip install einops"
            )
        self.window = Window(window, scale)
        self.net = SwinTransformer(
            in_chans=1,
            embed_dim=base,
            window_size=(7, 7, 7),
            patch_size=(2, 2, 2),
            depths=depths,
            num_heads=heads,
            drop_path_rate=drop_path,
            use_checkpoint=checkpoint,
            spatial_dims=3,
        )
        self.width = 16 * base

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, D, H, W) → (B, width); each side a multiple of 32."""
        if x.dim() != 5 or any(n % 32 for n in x.shape[2:]):
            raise UsageError(
                f"swin_unetr3d takes volumes whose sides are multiples of 32, not "
                f"{tuple(x.shape[2:])}: set views.size and dataset accordingly."
            )
        return self.net(self.window(x))[-1].flatten(2).mean(dim=2)


def swin_unetr3d(
    *,
    base: int = 48,
    depths: tuple[int, int, int, int] = (2, 2, 2, 2),
    heads: tuple[int, int, int, int] = (3, 6, 12, 24),
    drop_path: float = 0.0,
    checkpoint: bool = False,
    window: tuple[float, float] = (0.0, 2000.0),
    scale: Scale = "water",
    weights: Path | None = None,
) -> nn.Module:
    """The encoder of Swin UNETR.

    Args:
        base: channels of the first stage (``feature_size``); published weights have 48.
        depths: blocks of each stage.
        heads: attention heads of each stage; they must divide ``base``·1, 2, 4, 8.
        drop_path: stochastic depth.
        checkpoint: recompute activations in the backward pass: slower, less memory.
        window: level and width in HU of what the network sees.
        scale: "water" or "unit"; published weights were trained with "unit" on
            ``window: [37.5, 425]`` (−175 to 250 HU).
        weights: a file of MONAI's self-supervised Swin (Tang 2022, arXiv 2111.14791;
            ``model_swinvit.pt``), of a fine-tuned Swin UNETR, or of SuPreM (Li 2024,
            arXiv 2310.16754; ``supervised_suprem_swinunetr_2100.pth``). Read their licences.

    Returns:
        a module (B, 1, D, H, W) in HU → (B, 16·base).

    Raises:
        UsageError: if einops is not installed.
    """
    encoder = SwinEncoder(base, depths, heads, drop_path, checkpoint, window, scale)
    if weights is not None:
        released.load(encoder.net, weights, rename=rename)
    return encoder


def rename(name: str) -> str:
    """Names of older MONAI and Swin checkpoints, as today's MONAI has them."""
    name = re.sub(r"\.mlp\.fc([12])\.", r".mlp.linear\1.", name)
    return re.sub(r"(layers\d)\.0\.0\.", r"\1.0.", name)
