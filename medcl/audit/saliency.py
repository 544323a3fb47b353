"""Saliency of signals and images for a classifier: integrated gradients, and occlusion.

Both explain one number per sample (`evidence`: the log-odds of a class) relative to a *baseline*
without content: each channel at its own mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

import torch
from torch import Tensor

from medcl.metrics.metrics import Kind

STEPS = 32
"""Points of the integral: the sum of attributions is then within a few percent of exact."""
WINDOWS = {1: (32, 2), 2: (7, 2), 3: (4, 1)}
"""By number of dimensions: windows along each, and windows that overlap a point."""

Score = Callable[[Tensor], Tensor]
"""(B, C, ...) → (B,), one number per sample, with a gradient."""


def evidence(kind: Kind, scores: Tensor, target: Tensor) -> Tensor:
    """Evidence for a class, before any softmax.

    Args:
        kind: of problem.
        scores: (B, size) of `medcl.classifiers.contract.Classifier.predict`.
        target: (B,) the class (or label); ignored for other kinds.

    Returns:
        (B,): binary and multiclass, log p_c / (1 − p_c); multilabel, the label's logit; ordinal
        and hazard the sum of the logits, which rises with the grade or the risk; else the value.
    """
    match kind:
        case "binary" | "multiclass":
            chosen = torch.nn.functional.one_hot(target, scores.shape[1]).bool()
            others = scores.masked_fill(chosen, -torch.inf).logsumexp(1)
            return scores[chosen] - others
        case "multilabel":
            return scores.gather(1, target.unsqueeze(1)).squeeze(1)
        case _:
            return scores.sum(1)


def flat(x: Tensor) -> Tensor:
    """The baseline: (B, C, ...) with every channel at its mean."""
    return x.mean(dim=tuple(range(2, x.dim())), keepdim=True).expand_as(x)


def integrated_gradients(
    score: Score, x: Tensor, baseline: Tensor | None = None, *, steps: int = STEPS
) -> Tensor:
    """Integrated gradients (Sundararajan 2017, arXiv 1703.01365), by the midpoint rule.

    (x − b) · ∫₀¹ ∇score(b + α (x − b)) dα. They sum to score(x) − score(b) (completeness), up to
    the error of the rule.

    Args:
        score: in evaluation mode, so that a sample's score does not depend on the batch.
        x: (B, C, ...).
        baseline: of the same shape; None for `flat`.
        steps: points of the rule.

    Returns:
        (B, C, ...).
    """
    start = flat(x) if baseline is None else baseline
    total = torch.zeros_like(x)
    for step in range(steps):
        point = (start + (step + 0.5) / steps * (x - start)).detach().requires_grad_()
        (gradient,) = torch.autograd.grad(score(point).sum(), point)
        total += gradient
    return (x - start).detach() * total / steps


@torch.no_grad()
def occlusion(score: Score, x: Tensor, *, windows: int | None = None) -> Tensor:
    """Fall of the score when the baseline covers a window of the sample.

    After Zeiler & Fergus 2014 (arXiv 1311.2901); a mean over overlapping windows.

    Args:
        score: as in `integrated_gradients`.
        x: (B, C, ...) of one to three dimensions: time, or space.
        windows: along each of them; None for `WINDOWS`.

    Returns:
        (B, ...): positive where covering removes evidence.
    """
    sizes = tuple(x.shape[2:])
    count, over = WINDOWS[len(sizes)]
    cover = flat(x)
    before = score(x)
    fall = torch.zeros(len(x), *sizes, dtype=x.dtype, device=x.device)
    covered_count = torch.zeros(sizes, dtype=x.dtype, device=x.device)
    for window in product(*(_windows(size, windows or count, over) for size in sizes)):
        inside = (slice(None), slice(None), *window)
        covered = x.clone()
        covered[inside] = cover[inside]
        drop = before - score(covered)
        fall[(slice(None), *window)] += drop.reshape(-1, *[1] * len(sizes))
        covered_count[window] += 1
    return fall / covered_count


def _windows(size: int, count: int, over: int) -> Iterator[slice]:
    """Windows of 1/``count`` of a size, with stride 1/``over`` of a window; the last is aligned."""
    width = max(1, -(-size // count))
    stride = max(1, width // over)
    for start in range(0, max(1, size - width + stride), stride):
        begin = max(0, min(start, size - width))
        yield slice(begin, begin + width)
