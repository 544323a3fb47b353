"""Token-relation distillation: the student learns the teacher's similarities between tokens."""

from __future__ import annotations

from torch import Tensor

from medcl.nn.distributed import ALONE, Ranks
from medcl.objectives.checks import same_shape
from medcl.objectives.precision import full, widened


def token_relation(
    student_a: Tensor,
    student_b: Tensor,
    teacher_a: Tensor,
    teacher_b: Tensor,
    *,
    ranks: Ranks = ALONE,
) -> Tensor:
    """Mean over tokens, heads and samples of KL( R^teacher ‖ R^student ), R = softmax(a bᵀ/√d).

    Wang 2020 (MiniLM, arXiv 2002.10957) and Shi 2024 (hybrid distillation, arXiv 2306.15876): the
    relation of queries and keys (a = q, b = k) or of values (a = b = v), by which a student of a
    contrastive teacher's features learns a masked-image teacher's diversity. Sum the ones wanted;
    distilling the features themselves is `masked_embedding` with every position masked.

    Args:
        student_a: (B, H, N, d).
        student_b: (B, H, N, d).
        teacher_a: (B, H, N, e); a constant; e may differ from d.
        teacher_b: (B, H, N, e); a constant.
        ranks: not needed.

    Returns:
        Scalar, zero where all relations are the teacher's.

    Raises:
        UsageError: if the shapes differ.

    Example:
        >>> import torch
        >>> x = torch.randn(2, 1, 5, 8)
        >>> round(token_relation(x, x, x, x).item(), 4)
        0.0
    """
    same_shape("token_relation", 4, student_a=student_a, student_b=student_b)
    same_shape("token_relation", 4, teacher_a=teacher_a, teacher_b=teacher_b)
    student = _log_relation(student_a, student_b)
    teacher = _log_relation(teacher_a.detach(), teacher_b.detach())
    return (teacher.exp() * (teacher - student)).sum(3).mean()


def _log_relation(a: Tensor, b: Tensor) -> Tensor:
    with full(a):
        a, b = widened(a), widened(b)
        return (a @ b.transpose(2, 3) / a.shape[3] ** 0.5).log_softmax(3)  # (B, H, N, N)
