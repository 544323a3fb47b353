"""List-wise Wasserstein: scores of a list follow graded relevance, over a batch of lists."""

from __future__ import annotations

import torch
from torch import Tensor

from medcl.nn.distributed import ALONE, Ranks
from medcl.objectives.checks import positive, same_shape
from medcl.objectives.precision import exact, full, widened


def listwise_wasserstein(
    scores: Tensor, relevance: Tensor, *, temperature: float = 1.0, ranks: Ranks = ALONE
) -> Tensor:
    """Squared 2-Wasserstein distance of two Gaussians, fitted over the batch's lists.

    Esfandiarpoor 2025 (SyCL, arXiv 2503.23239) for graded instead of yes-or-no relevance. With
    x = softmax(scores/τ) and y = softmax(relevance), rows as samples in N dimensions:
    W = ‖m_x − m_y‖² + tr Σ_x + tr Σ_y − 2 tr (Σ_x Σ_y)^½, covariances over the lists with n − 1.
    The last trace is the nuclear norm of x̃ỹᵀ/(n − 1) (x̃ centred), which needs no matrix root; the
    authors take eigenvalues of a product (Mathiasen 2020, arXiv 2009.14075) and add 1e-15.

    In-batch use: scores = anchors · candidatesᵀ, relevance = grades by, say, ordinal distance.

    Args:
        scores: (Q, N) a query's similarity to the N candidates of its list.
        relevance: (Q, N) their grades, higher is more relevant; a constant. A list with a NaN is
            of unknown grades and does not count.
        temperature: τ > 0 of the scores.
        ranks: the other processes; their lists are part of the batch.

    Returns:
        Scalar, zero where the two distributions are one, or no list is graded.

    Raises:
        UsageError: if the shapes differ or τ is not positive.

    Example:
        >>> grades = torch.tensor([[2.0, 1.0, 0.0], [0.0, 2.0, 1.0]])
        >>> round(listwise_wasserstein(grades, grades).abs().item(), 4)
        0.0
    """
    same_shape("listwise_wasserstein", 2, scores=scores, relevance=relevance)
    positive("listwise_wasserstein", temperature=temperature)
    with full(scores):
        # Differences of almost equal sums: the decomposition, in float64, costs more than they do.
        kind = exact(scores)
        x = ranks.gather(widened(scores)).to(kind).div(temperature).softmax(1)  # (W·Q, N)
        y = ranks.gather(widened(relevance.detach())).to(kind).softmax(1)
        known = ~y.isnan().any(1)
        if not bool(known.any()):
            return (x * 0).sum().to(widened(scores).dtype)
        x, y = x[known], y[known]
        mean_x, mean_y = x.mean(0), y.mean(0)
        x, y = x - mean_x, y - mean_y
        spread = x.square().sum() + y.square().sum() - 2 * nuclear_norm(x @ y.T)
        loss = (mean_x - mean_y).square().sum() + spread / max(len(x) - 1, 1)
        return loss.to(widened(scores).dtype)


def nuclear_norm(a: Tensor) -> Tensor:
    """Sum of singular values, whose gradient leaves out the directions where they are zero."""
    if not bool(a.isfinite().all()):  # the decomposition would raise; the loss shall show it
        return (a * torch.nan).sum()
    with torch.no_grad():
        u, s, vh = torch.linalg.svd(a.double(), full_matrices=False)
        some = s > s.amax() * len(s) * torch.finfo(a.dtype).eps
        direction = ((u * some) @ vh).to(a.dtype)
    return (direction * a).sum()
