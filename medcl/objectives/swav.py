"""SwAV: predict one view's balanced prototype assignment from the other views."""

from __future__ import annotations

import torch
from torch import Tensor

from medcl.errors import UsageError
from medcl.nn.distributed import ALONE, Ranks
from medcl.objectives.checks import positive
from medcl.objectives.cross_views import cross_views
from medcl.objectives.sinkhorn import sinkhorn


def swav(
    scores: Tensor,
    queue: Tensor | None = None,
    *,
    assigned: int = 2,
    temperature: float = 0.1,
    epsilon: float = 0.05,
    iterations: int = 3,
    ranks: Ranks = ALONE,
) -> Tensor:
    """Mean over views a < ``assigned`` and v ≠ a of −mean_i Σ_k q^a_ik log softmax_k(c^v_i/τ).

    Caron 2020 (arXiv 2006.09882): c^v = scores of view v to the prototypes (cosines), q^a =
    `sinkhorn` of c^a over the samples of all ranks, without gradient. Multi-crop: small crops are
    the views that are not assigned, they only predict.

    Args:
        scores: (V, B, K) cosines of L2-normalised embeddings and prototypes, global views first.
        queue: (assigned, Q, K) scores of stored embeddings of this rank, which are included in the
            balance alone.
        assigned: how many views are assigned, from the first.
        temperature: τ > 0.
        epsilon: of Sinkhorn.
        iterations: of Sinkhorn.
        ranks: the other processes.

    Returns:
        Scalar.

    Raises:
        UsageError: if there is no second view, or τ or ε is not positive.

    Example:
        >>> scores = torch.eye(2).repeat(2, 1, 1)  # two views that agree
        >>> round(swav(scores).item(), 4)
        0.0
    """
    positive("swav", temperature=temperature, epsilon=epsilon)
    if scores.ndim != 3 or not 1 <= assigned <= len(scores) or len(scores) < 2:
        raise UsageError(
            f"swav needs scores (views ≥ 2, B, K) and 1 ≤ assigned ≤ views, "
            f"not {tuple(scores.shape)} and {assigned}."
        )
    pools = scores[:assigned] if queue is None else torch.cat([scores[:assigned], queue], 1)
    size = scores.shape[1]
    q = torch.stack(
        [sinkhorn(p, epsilon=epsilon, iterations=iterations, ranks=ranks)[:size] for p in pools]
    )
    return cross_views(q, scores, temperature)
