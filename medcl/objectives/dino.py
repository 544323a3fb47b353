"""DINO: the student's views predict the centred, sharpened output of a momentum teacher."""

from __future__ import annotations

import torch
from torch import Tensor

from medcl.errors import UsageError
from medcl.nn.distributed import ALONE, Ranks
from medcl.objectives.checks import positive
from medcl.objectives.cross_views import cross_views
from medcl.objectives.precision import widened


def dino(
    student: Tensor,
    teacher: Tensor,
    center: Tensor,
    *,
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.04,
    ranks: Ranks = ALONE,
) -> Tensor:
    """Mean over teacher views t and student views v ≠ t of −mean_i Σ_k q^t_ik log p^v_ik.

    Caron 2021 (arXiv 2104.14294): p = softmax(student/τ_s), q = softmax((teacher − center)/τ_t).
    Student view v and teacher view v are of one crop, which is not compared with itself. After
    the step: ``center = move_center(center, teacher)``.

    Args:
        student: (V, B, K), the teacher's crops first.
        teacher: (T, B, K), T ≤ V; a constant.
        center: (K,), the same on all ranks; a constant.
        student_temperature: τ_s > 0.
        teacher_temperature: τ_t > 0.
        ranks: not needed here; `move_center` needs them.

    Returns:
        Scalar.

    Raises:
        UsageError: if there is no pair of different views, or a temperature is not positive.

    Example:
        >>> scores, center = torch.zeros(2, 3, 4), torch.zeros(4)
        >>> round(dino(scores, scores, center).item(), 4)  # log 4
        1.3863
    """
    positive(
        "dino", student_temperature=student_temperature, teacher_temperature=teacher_temperature
    )
    if len(student) < 2 or not 1 <= len(teacher) <= len(student):
        raise UsageError(
            f"dino needs at least two student views and at most as many of the teacher, "
            f"not {len(student)} and {len(teacher)}."
        )
    q = ((widened(teacher.detach()) - center.detach()) / teacher_temperature).softmax(2)
    return cross_views(q, student, student_temperature)


@torch.no_grad()
def move_center(
    center: Tensor, teacher: Tensor, *, momentum: float = 0.9, ranks: Ranks = ALONE
) -> Tensor:
    """c ← m·c + (1 − m)·mean of the teacher's outputs over views, samples and ranks.

    Args:
        center: (K,).
        teacher: (T, B, K).
        momentum: m.
        ranks: the other processes.

    Example:
        >>> move_center(torch.zeros(2), torch.ones(2, 3, 2), momentum=0.5)
        tensor([0.5000, 0.5000])
    """
    now = ranks.mean(widened(teacher).mean((0, 1)))
    return (momentum * center + (1 - momentum) * now).to(center.dtype)
