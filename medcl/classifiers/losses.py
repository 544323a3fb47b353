"""The supervised loss of every kind of problem, on rows whose label is known."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medcl.labels.outputs import Loss, Outputs
from medcl.nn.cosine import Cosine
from medcl.objectives.class_balanced import class_balanced, effective_weights
from medcl.objectives.generalised_cross_entropy import eased
from medcl.objectives.ldam import SCALE, ldam
from medcl.objectives.logit_adjusted import logit_adjusted

FOCUS = 2.0
"""γ of the focal loss: its authors' choice (Lin 2017, arXiv 1708.02002)."""
DEFERRED = 0.8
"""Share of the training after which LDAM-DRW weighs classes: epoch 160 of 200 (Cao 2019)."""
DEFERRED_BETA = 0.9999
MARGINS = ("ldam", "ldam-drw")
MIXED, PARTNER = "mixed.share", "mixed.partner"
"""Batch keys of mixed samples: λ, and the position of the other sample of each (B,)."""


def head(width: int, outputs: Outputs) -> nn.Module:
    """The last layer, (..., width) → (..., `Outputs.size`): linear, or cosines for LDAM."""
    if outputs.loss in MARGINS:
        return Cosine(width, outputs.size, SCALE)
    return nn.Linear(width, outputs.size)


def scheduled(outputs: Outputs) -> float:
    """The share of the training up to which the loss changes; see `Classifier`."""
    return DEFERRED if outputs.loss == "ldam-drw" else 0.0


def supervised(outputs: Outputs, scores: Tensor, y: Tensor, progress: float = 1.0) -> Tensor:
    """The loss that ``outputs`` asks for, as a mean over the rows with a label.

    =============  ================================================================
    kind           loss
    =============  ================================================================
    binary,        cross-entropy; weighted: Σ w_y ℓ / Σ w_y
    multiclass
    multilabel     binary cross-entropy, a mean over known entries; weighted: w_c on
                   the positives of label c
    ordinal        Σ over thresholds k of binary cross-entropy of "y > k" (Cao 2020,
                   CORAL, arXiv 1901.07884); weighted by w_y
    regression     squared error; y is standardised by training samples
    cox            −log partial likelihood, ties after Breslow 1974, a mean over the
                   events; the risk set is the batch
    hazard         −log likelihood of discrete-time hazards σ(score): an event in its
                   interval, a censored one survived its own (Zadeh & Schmid 2021,
                   doi 10.1109/TPAMI.2020.2979450)
    =============  ================================================================

    ``focal`` multiplies each binary or multi-class term by (1 − p)^γ, p the probability of the
    target. ``robust`` is for noisy labels: it replaces each such term by (1 − p^q) / q (see
    `medcl.objectives.generalised_cross_entropy`), and the squared error by Huber's, which is linear
    beyond one deviation (Huber 1964, doi 10.1214/aoms/1177703732).

    For rare classes there are also ``class-balanced``, ``ldam``, ``ldam-drw`` and
    ``logit-adjusted``: `medcl.objectives` of these names, with the counts of the training samples.
    ``ldam`` takes scores of `head`; ``ldam-drw`` weighs classes by effective numbers (β 0.9999)
    once `DEFERRED` of the training is over; terms of an aggregator's own stay unweighted.

    Args:
        outputs: kind, loss, weights and counts.
        scores: (B, `Outputs.size`) logits, or values.
        y: see `Outputs.kind`.
        progress: how much of the training is over, 0 … 1.

    Returns:
        Scalar; 0, with a gradient of 0, where no label is known.

    Example:
        >>> two = Outputs("binary", ("no", "yes"))
        >>> round(supervised(two, torch.zeros(3, 2), torch.tensor([0, 1, -1])).item(), 4)
        0.6931
    """
    scores = scores if scores.dtype == torch.float64 else scores.float()
    match outputs.kind:
        case "binary" | "multiclass":
            if outputs.counts is not None:
                return _by_counts(outputs, scores, y, progress)
            return _classes(outputs, scores, y)
        case "multilabel":
            return _labels(outputs, scores, y)
        case "ordinal":
            return _ordered(outputs, scores, y)
        case "regression":
            return _values(outputs, scores, y)
        case "cox":
            return _cox(scores, y)
        case "hazard":
            return _hazard(scores, y)


def of_batch(
    outputs: Outputs, scores: Tensor, batch: Mapping[str, Tensor], progress: float = 1.0
) -> Tensor:
    """`supervised` on ``batch["y"]``; of mixed samples λ of it, and 1 − λ on the others' labels."""
    loss = supervised(outputs, scores, batch["y"], progress)
    if MIXED not in batch:
        return loss
    other = supervised(outputs, scores, batch["y"][batch[PARTNER]], progress)
    return torch.lerp(other, loss, batch[MIXED])


def soft(outputs: Outputs, scores: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy with soft labels: Σ w_c·p_c·ℓ_c / Σ w_c·p_c over rows and classes.

    Args:
        outputs: of kind binary or multiclass, with the weights w.
        scores: (B, C) logits.
        labels: (B, C) probabilities p, NaN where a row has none.

    Returns:
        Scalar; 0, with a gradient of 0, where no row has any.

    Example:
        >>> one = Outputs("binary", ("no", "yes"))
        >>> round(soft(one, torch.zeros(1, 2), torch.tensor([[0.3, 0.7]])).item(), 4)
        0.6931
    """
    known = labels.isfinite().all(1)
    weighed = labels[known]  # (K, C)
    weights = _weights(outputs, weighed)
    weighed = weighed if weights is None else weighed * weights
    scores = scores[known] if scores.dtype == torch.float64 else scores[known].float()
    total = -(weighed * scores.log_softmax(1)).sum()
    return total / weighed.sum().clamp_min(torch.finfo(weighed.dtype).tiny)


def _weights(outputs: Outputs, like: Tensor) -> Tensor | None:
    """One per class; None for equal weights."""
    return None if outputs.weights is None else like.new_tensor(outputs.weights)


def _mean(losses: Tensor, weight: Tensor | None = None) -> Tensor:
    """Σ w ℓ / Σ w; 0 if empty."""
    if not losses.numel():
        return losses.sum()
    if weight is None:
        return losses.mean()
    return (weight * losses).sum() / weight.sum().clamp_min(torch.finfo(losses.dtype).tiny)


def _classes(outputs: Outputs, scores: Tensor, y: Tensor) -> Tensor:
    known = y >= 0
    scores, y = scores[known], y[known]
    losses = F.cross_entropy(scores, y, reduction="none")  # (K,)
    losses = _shaped(losses, outputs.loss)
    weights = _weights(outputs, scores)
    return _mean(losses, None if weights is None else weights[y])


def _by_counts(outputs: Outputs, scores: Tensor, y: Tensor, progress: float) -> Tensor:
    counts = torch.tensor(outputs.counts, device=scores.device)
    match outputs.loss:
        case "class-balanced":
            return class_balanced(scores, y, counts)
        case "logit-adjusted":
            return logit_adjusted(scores, y, counts)
        case _:
            deferred = outputs.loss == "ldam-drw" and progress >= DEFERRED
            weights = effective_weights(counts, DEFERRED_BETA) if deferred else None
            return ldam(scores / SCALE, y, counts, weights=weights)


def _shaped(losses: Tensor, loss: Loss) -> Tensor:
    """−log p of each term, transformed by the loss."""
    match loss:
        case "focal":
            return (-torch.expm1(-losses)) ** FOCUS * losses
        case "robust":
            return eased(losses)
        case _:
            return losses


def _yes_no(scores: Tensor, target: Tensor, loss: Loss, positive: Tensor | None = None) -> Tensor:
    """Binary cross-entropy entry by entry; ``positive`` weighs the terms whose target is 1."""
    losses = F.binary_cross_entropy_with_logits(scores, target, reduction="none")
    losses = _shaped(losses, loss)
    return losses if positive is None else losses * (1 + target * (positive - 1))


def _labels(outputs: Outputs, scores: Tensor, y: Tensor) -> Tensor:
    known = y.isfinite()
    target = torch.where(known, y, 0.0).to(scores.dtype)
    losses = _yes_no(scores, target, outputs.loss, _weights(outputs, scores))
    return _mean(losses[known])


def _ordered(outputs: Outputs, scores: Tensor, y: Tensor) -> Tensor:
    known = y >= 0
    scores, y = scores[known], y[known]
    above = (y[:, None] > torch.arange(scores.shape[1], device=y.device)).to(scores.dtype)
    losses = _yes_no(scores, above, outputs.loss).sum(1)
    weights = _weights(outputs, scores)
    return _mean(losses, None if weights is None else weights[y])


def _values(outputs: Outputs, scores: Tensor, y: Tensor) -> Tensor:
    known = y.isfinite()
    prediction, target = scores[known, 0], y[known].to(scores.dtype)
    if outputs.loss == "robust":
        return _mean(
            2 * F.huber_loss(prediction, target, reduction="none")
        )  # near 0 the squared error
    return _mean((prediction - target) ** 2)


def _cox(scores: Tensor, y: Tensor) -> Tensor:
    known = y.isfinite().all(1)
    score, time, event = scores[known, 0], y[known, 0], y[known, 1] > 0
    if not event.any():
        return scores.sum() * 0  # no event in this batch: no gradient
    order = time.argsort(descending=True)
    score, time, event = score[order], time[order], event[order]
    at_risk = score.logcumsumexp(0)
    # The risk set at a time includes those tied with it: take the last of equal times.
    last = torch.searchsorted(-time.contiguous(), -time.contiguous(), right=True) - 1
    return (at_risk[last] - score)[event].mean()


def _hazard(scores: Tensor, y: Tensor) -> Tensor:
    known = y.isfinite().all(1)
    scores, y = scores[known], y[known]
    number = torch.arange(scores.shape[1], device=y.device)
    interval = y[:, :1].long()
    happened = ((number == interval) & (y[:, 1:] > 0)).to(scores.dtype)
    losses = F.binary_cross_entropy_with_logits(scores, happened, reduction="none")
    return _mean(torch.where(number <= interval, losses, 0.0).sum(1))
