"""Dice and cross-entropy of dense predictions, with positions of unknown class left out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from medcl.errors import MedclError
from medcl.nn.host import refuse

UNKNOWN = -1
"""The class of positions that teach nothing: outside of the image, or labelled to be ignored."""


_SMOOTH = 1e-5  # as in MONAI


def dice_and_cross_entropy(
    scores: Tensor, mask: Tensor, *, background: bool = False
) -> dict[str, Tensor]:
    """``loss``, the sum of ``dice`` and ``cross_entropy``, as nnU-Net (arXiv 1809.10486) has it.

    Dice is as MONAI's `DiceLoss`, which asks the device for values: of each sample and class, the
    first only with ``background``; cross-entropy is a mean over positions. Both leave out the
    positions whose class is `UNKNOWN`.

    Args:
        scores: (B, C, *space) logits, the background first.
        mask: (B, *space) int64 classes.
        background: whether the first class is one like the others.

    Raises:
        MedclError: if a class is not below C.
    """
    size = scores.shape[1]
    refuse(mask >= size, MedclError(f"A mask holds a class above the {size} that there are."))
    known = mask != UNKNOWN
    share = known.float().mean().clamp(min=1e-12)
    scores = scores.float()
    entropy = F.cross_entropy(scores, mask, ignore_index=UNKNOWN, reduction="sum") / (
        mask.numel() * share
    )
    codes = torch.arange(size, device=mask.device).view(1, size, *(1,) * (mask.ndim - 1))
    first = 0 if background else 1
    truth = (mask[:, None] == codes)[:, first:].flatten(2)  # an unknown position has no class
    shares = (torch.softmax(scores, dim=1) * known[:, None])[:, first:].flatten(2)
    both, either = (shares * truth).sum(dim=2), shares.sum(dim=2) + truth.sum(dim=2)
    dice = (1 - (2 * both + _SMOOTH) / (either + _SMOOTH)).mean()
    return {"loss": dice + entropy, "dice": dice.detach(), "cross_entropy": entropy.detach()}


def over_resolutions(scores: Sequence[Tensor], mask: Tensor) -> dict[str, Tensor]:
    """`dice_and_cross_entropy` at several resolutions, weighted 1, ½, ¼ … over their sum (nnU-Net).

    The mask of a coarser resolution has the classes of the nearest voxels. ``dice`` and
    ``cross_entropy`` are those of the finest.

    Args:
        scores: (B, C, *space) of each resolution, fine to coarse.
        mask: (B, *space) int64 classes at the finest.

    Raises:
        MedclError: if a class is not below C.
    """
    finest = dice_and_cross_entropy(scores[0], mask)
    total = finest["loss"]
    for n, coarse in enumerate(scores[1:], start=1):
        # float32, which `interpolate` takes, holds classes exactly
        near = F.interpolate(mask[:, None].float(), coarse.shape[2:], mode="nearest-exact")
        total = total + dice_and_cross_entropy(coarse, near[:, 0].long())["loss"] / 2**n
    return {**finest, "loss": total / sum(0.5**n for n in range(len(scores)))}
