"""InfoNCE between two sets of embeddings: queries and keys (MoCo, CLIP's core, one-way SimCLR)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from medcl.errors import UsageError
from medcl.nn.distributed import ALONE, Ranks
from medcl.objectives.checks import positive, same_shape
from medcl.objectives.pairs import Hidden, own_columns
from medcl.objectives.precision import exact
from medcl.objectives.tiled import row_sums, two_sided_sums
from medcl.objectives.unit import unit


def info_nce(
    queries: Tensor,
    keys: Tensor,
    *,
    temperature: float = 0.1,
    negatives: Tensor | None = None,
    group: Tensor | None = None,
    negative_group: Tensor | None = None,
    in_batch: bool = True,
    symmetric: bool = False,
    decoupled: bool = False,
    ranks: Ranks = ALONE,
) -> Tensor:
    """−mean_i log( e^{s_ii} / (Σ_j e^{s_ij} + Σ_k e^{q_i·n_k/τ}) ), s_ij = q_i·k_j/τ.

    Oord 2018 (arXiv 1807.03748); with a queue He 2020 (MoCo, arXiv 1911.05722); without the
    positive in the denominator Yeh 2022 (DCL, arXiv 2110.06848). It is computed as
    softplus(log Σ_negatives − s_ii), which keeps its precision when the loss is almost zero.

    Embeddings are L2-normalised inside; a zero vector has similarity 0 and gets no gradient.
    A query without negatives adds zero (also when ``decoupled``).

    Args:
        queries: (B, d) this rank's queries.
        keys: (B, d) this rank's keys; ``keys[i]`` is the positive of ``queries[i]``. The keys of
            every rank are candidates. They get gradient if they require it.
        temperature: τ > 0.
        negatives: (K, d) queue of further negatives, the same on all ranks; gets no gradient.
        group: (B,) integers, e.g. the patient: keys of the query's group are not negatives.
        negative_group: (K,) groups of the queue; with ``group`` hides the query's own.
        in_batch: other keys of the batch are negatives; False for MoCo v1/v2, whose negatives
            are the queue alone.
        symmetric: the mean of queries → keys and keys → queries; not with a queue of keys.
        decoupled: leave the positive out of the denominator.
        ranks: the other processes.

    Returns:
        Scalar, float32 (float64 for float64 inputs).

    Raises:
        UsageError: if the shapes differ, τ is not positive, or settings exclude each other.

    Example:
        >>> round(info_nce(torch.eye(4), torch.eye(4), temperature=1.0).item(), 4)  # log(1 + 3/e)
        0.7437
    """
    same_shape("info_nce", 2, queries=queries, keys=keys)
    positive("info_nce", temperature=temperature)
    if negatives is not None and symmetric:
        raise UsageError("info_nce: a queue holds keys; symmetric=True would need one of queries.")
    if negatives is None and not in_batch:
        raise UsageError("info_nce: in_batch=False leaves no negatives without a queue.")

    length = temperature**-0.5
    q, k = unit(queries, length), unit(keys, length)
    own = (q * k).sum(1, dtype=exact(q))  # (B,)
    logs = []
    if in_batch:
        logs = in_batch_negatives(q, k, group, 1 / temperature, symmetric=symmetric, ranks=ranks)
    if negatives is not None:
        hidden = Hidden(None, group, negative_group) if negative_group is not None else None
        queue = unit(negatives.detach(), length)
        logs += [row_sums(q, queue, hide=hidden, bound=1 / temperature).lse]
        logs = [_log_sum(torch.stack(logs))]  # one denominator: batch and queue
    losses = [against_negatives(own, negative, decoupled) for negative in logs]
    return torch.stack(losses).mean().to(q.dtype)


def _log_sum(logs: Tensor) -> Tensor:
    """Log-sum over the first axis; −inf, with zero gradient, where all entries are −inf."""
    some = (logs != -torch.inf).any(0)
    return torch.where(some, torch.where(some, logs, 0.0).logsumexp(0), -torch.inf)


def in_batch_negatives(
    q: Tensor, k: Tensor, group: Tensor | None, bound: float, symmetric: bool, ranks: Ranks
) -> list[Tensor]:
    """Log-sum over in-batch negatives of each query and, if symmetric, of each key: (B,) each."""
    own = own_columns(len(q), ranks, q.device)
    groups = None if group is None else ranks.gather(group)
    hidden = Hidden(own.unsqueeze(1), group, groups, all_exist=True)
    if symmetric and ranks.world == 1:
        return [sums.lse for sums in two_sided_sums(q, k, hide=hidden, bound=bound)]
    pairs = [(q, k), (k, q)] if symmetric else [(q, k)]
    return [row_sums(a, ranks.gather(b), hide=hidden, bound=bound).lse for a, b in pairs]


def against_negatives(positive: Tensor, negative: Tensor, decoupled: bool = False) -> Tensor:
    """Mean of log(1 + e^{negative − positive}), or of negative − positive: (B,), (B,) → scalar.

    Rows without negatives (−inf) add zero; NaN stays NaN.
    """
    some = negative != -torch.inf
    margin = torch.where(some, negative, 0.0) - positive
    loss = margin if decoupled else softplus(margin, threshold=torch.inf)
    return torch.where(some, loss, 0 * positive).mean()
