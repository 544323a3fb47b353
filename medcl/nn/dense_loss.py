"""Dice and cross-entropy of dense predictions, with positions of unknown class left out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from medcl.errors import MedclError

UNKNOWN = -1
"""The class of positions that teach nothing: outside of the image, or labelled to be ignored."""


def dice_and_cross_entropy(
    scores: Tensor, mask: Tensor, *, background: bool = False
) -> dict[str, Tensor]:
    """``loss``, the sum of ``dice`` and ``cross_entropy``, as nnU-Net (arXiv 1809.10486) has it.

    Dice is MONAI's, of each sample and class, the first only with ``background``; cross-entropy
    is a mean over positions. Both leave out the positions whose class is `UNKNOWN`.

    Args:
        scores: (B, C, *space) logits, the background first.
        mask: (B, *space) int64 classes.
        background: whether the first class is one like the others.

    Raises:
        MedclError: if a class is not below C.
    """
    from monai.losses import MaskedDiceLoss

    size = scores.shape[1]
    if int(mask.max()) >= size:
        raise MedclError(f"A mask holds class {int(mask.max())}, and there are {size} classes.")
    known = mask != UNKNOWN
    share = known.float().mean().clamp(min=1e-12)
    scores = scores.float()
    entropy = F.cross_entropy(scores, mask, ignore_index=UNKNOWN, reduction="sum") / (
        mask.numel() * share
    )
    one_hot = F.one_hot(mask.clamp(min=0), size).movedim(-1, 1).float()
    dice = MaskedDiceLoss(include_background=background)(
        torch.softmax(scores, dim=1), one_hot, known[:, None].float()
    )
    return {"loss": dice + entropy, "dice": dice.detach(), "cross_entropy": entropy.detach()}
