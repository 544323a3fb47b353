"""DeepCluster-v2: predict each sample's cluster of the last epoch from its views."""

from __future__ import annotations

from torch import Tensor

from medcl.nn.distributed import ALONE, Ranks
from medcl.objectives.checks import positive
from medcl.objectives.means import mean_where
from medcl.objectives.precision import widened


def deepcluster(
    scores: Tensor, assignment: Tensor, *, temperature: float = 0.1, ranks: Ranks = ALONE
) -> Tensor:
    """−mean over views v and samples i of log softmax(c^v_i/τ) at k_i.

    Caron 2018 (arXiv 1807.05520), version 2 as in Caron 2020 (arXiv 2006.09882, appendix): the
    scores are cosines to centroids from spherical k-means over stored embeddings.

    Args:
        scores: (V, B, K).
        assignment: (B,) the cluster of each sample, −1 where it has none yet.
        temperature: τ > 0.
        ranks: the other processes (they may hold different numbers of assigned samples).

    Returns:
        Scalar; zero where no sample is assigned.

    Raises:
        UsageError: if τ is not positive.

    Example:
        >>> import torch
        >>> scores = torch.zeros(2, 3, 4)
        >>> round(deepcluster(scores, torch.tensor([0, 3, -1])).item(), 4)  # log 4
        1.3863
    """
    positive("deepcluster", temperature=temperature)
    log_p = (widened(scores) / temperature).log_softmax(2)
    at = assignment.clamp_min(0).expand(scores.shape[:2]).unsqueeze(2)
    losses = -log_p.gather(2, at).squeeze(2)  # (V, B)
    return mean_where(losses, (assignment >= 0).expand_as(losses), ranks)
