"""Prediction of whole images by overlapping windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

AT_ONCE = 4
"""Windows in one forward pass."""


@torch.inference_mode()
def whole(
    scores: Callable[[Tensor], Tensor],
    x: Tensor,
    patch: Sequence[int],
    *,
    overlap: float,
    device: torch.device,
) -> Tensor:
    """Probabilities (C, *space) of an image, on the CPU: MONAI's sliding windows.

    Windows are weighted by a Gaussian, as in nnU-Net. An image smaller than a window is extended by
    its lowest value. Sums over windows stay in main memory, so that a device holds windows alone.

    Args:
        scores: (B, channels, *patch) → logits (B, C, *patch).
        x: (1, channels, *space).
        patch: size of a window.
        overlap: share of a window that it has in common with the next along an axis.
        device: of the windows.
    """
    from monai.inferers import sliding_window_inference

    logits = sliding_window_inference(
        x.float(),
        roi_size=tuple(patch),
        sw_batch_size=AT_ONCE,
        predictor=lambda windows: scores(windows).float(),
        overlap=overlap,
        mode="gaussian",
        cval=float(x.min()),
        sw_device=device,
        device="cpu",
    )
    assert isinstance(logits, Tensor)
    return torch.softmax(logits[0], dim=0)
