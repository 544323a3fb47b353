"""Quantised-target contrast: a masked step's code against the codes of other masked steps."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from medcl.nn.distributed import ALONE, Ranks
from medcl.objectives.checks import positive, same_length, same_shape
from medcl.objectives.means import mean_where
from medcl.objectives.precision import full, widened
from medcl.objectives.rows import blocks
from medcl.objectives.unit import unit


def quantised_contrast(
    context: Tensor,
    quantised: Tensor,
    mask: Tensor,
    codes: Tensor | None = None,
    *,
    temperature: float = 0.1,
    ranks: Ranks = ALONE,
) -> Tensor:
    """−mean over masked steps t of log( e^{cos(c_t, q_t)/τ} / Σ_{t′} e^{cos(c_t, q_t′)/τ} ).

    Baevski 2020 (wav2vec 2.0, arXiv 2006.11477, eq. 3), the contrastive part of Chung 2021
    (w2v-BERT, arXiv 2108.06209). There t′ is t and 100 distractors drawn from the other masked
    steps of the same recording; here it is all of them, which is the same loss without the draw.

    Args:
        context: (B, T, d) the network's output at each step.
        quantised: (B, T, d) the quantised input features.
        mask: (B, T) True where the step was masked.
        codes: (B, T) integers, the code of each step: steps of t's own code are no
            distractors (fairseq does so too). None: all are.
        temperature: τ > 0.
        ranks: the other processes (they may have masked other numbers of steps).

    Returns:
        Scalar. A step without distractors does not count.

    Raises:
        UsageError: if the shapes differ or τ is not positive.

    Example:
        >>> x, mask = torch.eye(2).unsqueeze(0), torch.ones(1, 2, dtype=torch.bool)
        >>> round(quantised_contrast(x, x, mask, temperature=1.0).item(), 4)  # log(1 + 1/e)
        0.3133
    """
    same_shape("quantised_contrast", 3, context=context, quantised=quantised)
    same_length("quantised_contrast", context=context, mask=mask)
    positive("quantised_contrast", temperature=temperature)
    length = temperature**-0.5
    c, q = unit(context, length), unit(quantised, length)

    steps = c.shape[1]
    itself = torch.eye(steps, dtype=torch.bool, device=c.device)

    def losses(b: slice) -> Tensor:
        """Of some recordings at once, and whether each counts: (2, b, T)."""
        with full(c):
            s = c[b] @ q[b].transpose(1, 2)  # (b, T, T)
        rivals = mask[b].unsqueeze(1) & ~itself
        if codes is not None:
            rivals = rivals & (codes[b].unsqueeze(2) != codes[b].unsqueeze(1))
        # A large negative number, not −∞: a row without rivals must not make its gradient NaN.
        low = s.masked_fill(~rivals, -torch.finfo(s.dtype).max).logsumexp(2)
        own = s.diagonal(dim1=1, dim2=2)
        loss = torch.nn.functional.softplus(low - own, threshold=torch.inf)
        return torch.stack([loss, (mask[b] & rivals.any(2)).to(loss.dtype)])

    parts = [checkpoint(losses, b, use_reentrant=False) for b in blocks(len(c), steps**2)]
    rows, counts = torch.cat(parts, dim=1)
    return mean_where(rows, counts > 0, ranks)


def codebook_diversity(probabilities: Tensor, *, ranks: Ranks = ALONE) -> Tensor:
    """1/(G·V) Σ_g Σ_v p̄_gv log p̄_gv: lowest where all codes are used alike.

    Baevski 2020 (wav2vec 2.0, eq. 4); p̄ is the mean over steps and recordings of all ranks.
    (fairseq uses (G·V − Σ_g exp H(p̄_g)) / (G·V) instead, with the same optimum.)

    Args:
        probabilities: (B, T, G, V) softmax over each of G codebooks' V entries.
        ranks: the other processes, with as many steps.

    Returns:
        Scalar.

    Example:
        >>> round(codebook_diversity(torch.full((1, 3, 1, 2), 0.5)).item(), 4)  # −log(2)/2
        -0.3466
    """
    mean = ranks.mean(widened(probabilities).mean((0, 1)))  # (G, V)
    # An unused code adds 0 either way, but the gradient of p log p at 0 is not finite.
    log = mean.clamp_min(torch.finfo(mean.dtype).tiny).log()
    return (mean * log).sum() / mean.numel()
