"""iBOT: a teacher's soft codes of hidden patches, predicted by a student that does not see them."""

from __future__ import annotations

from torch import Tensor

from medcl.nn.distributed import ALONE, Ranks
from medcl.objectives.checks import positive, same_length, same_shape
from medcl.objectives.precision import widened


def masked_codes(
    student: Tensor,
    codes: Tensor,
    mask: Tensor,
    *,
    temperature: float = 0.1,
    ranks: Ranks = ALONE,
) -> Tensor:
    """Mean over samples of the mean over their masked patches of −Σ_k q_k log softmax(s/τ)_k.

    Zhou 2022 (iBOT, arXiv 2111.07832), in DINOv2's form (Oquab 2023, arXiv 2304.07193): every
    sample counts alike, however many of its patches are masked, and one without any adds zero.

    Args:
        student: (B, N, K) scores s.
        codes: (B, N, K) distributions q; a constant.
        mask: (B, N) True where the student did not see the patch.
        temperature: τ > 0.
        ranks: not needed: a sample is compared with itself alone.

    Returns:
        Scalar.

    Raises:
        UsageError: if the shapes differ, or τ is not positive.

    Example:
        >>> import torch
        >>> mask = torch.tensor([[True, False]])
        >>> q = torch.ones(1, 2, 4) / 4
        >>> round(masked_codes(torch.zeros(1, 2, 4), q, mask).item(), 4)  # log 4
        1.3863
    """
    same_shape("masked_codes", 3, student=student, codes=codes)
    same_length("masked_codes", student=student, mask=mask)
    positive("masked_codes", temperature=temperature)
    log_p = (widened(student) / temperature).log_softmax(2)
    losses = -(codes.detach() * log_p).sum(2)  # (B, N)
    masked = mask.to(losses.dtype)
    return ((losses * masked).sum(1) / masked.sum(1).clamp_min(1)).mean()
