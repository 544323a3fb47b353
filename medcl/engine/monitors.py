"""Collapse metrics: pure functions of embeddings, which all normalise to unit length first."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize


def embedding_std(x: Tensor) -> Tensor:
    """Mean over dimensions of the standard deviation of unit embeddings (N, D) → ().

    About 1/√D where embeddings spread over the sphere, 0 where all are the same
    (Chen & He 2021, SimSiam, arXiv 2011.10566).
    """
    return unit(x).std(dim=0, correction=0).mean()


def spread(x: Tensor) -> Tensor:
    """`embedding_std` × √D: 1 is healthy, 0 is collapsed, whatever the width."""
    return embedding_std(x) * x.shape[1] ** 0.5


def effective_rank(x: Tensor) -> Tensor:
    """The number of dimensions that the centred unit embeddings (N, D) use: exp(entropy(σ/Σσ)).

    σ are the singular values; between 1 and min(N − 1, D); 0 where all embeddings are the same
    (Roy & Vetterli 2007, EUSIPCO).
    """
    z = unit(x)
    sigma = torch.linalg.svdvals(z - z.mean(dim=0))
    if sigma[0] <= 1e-6 * len(x) ** 0.5:  # only rounding errors
        return sigma.new_zeros(())
    share = sigma / sigma.sum()
    return torch.special.entr(share).sum().exp()


def rankme(x: Tensor, *, eps: float = 1e-7) -> Tensor:
    """RankMe: exp(entropy(σ/Σσ + ε)) of the embeddings (N, D) as they are, neither centred nor
    scaled; from 1 to min(N, D).

    Garrido 2023, arXiv 2210.02885, eq. 3. Higher went with better linear probes, among runs of one
    method on one set.
    """
    sigma = torch.linalg.svdvals(x.detach().float())
    share = sigma / sigma.sum().clamp_min(eps) + eps
    return torch.special.entr(share).sum().exp()


def lidar(views: Tensor, *, delta: float = 1e-4, eps: float = 1e-7) -> Tensor:
    """LiDAR: the effective rank of the directions that tell samples apart, and not their views.

    With V views of each of N samples, (V, N, D), and each sample a class: exp(entropy(λ/Σλ + ε)) of
    the eigenvalues λ of S_w^−½ S_b S_w^−½, S_b the covariance of the samples' means, S_w that of
    views around them plus δ (Thilak 2024, arXiv 2312.04000, eqs. 1 to 5). The paper takes V = 50;
    with two views S_w is rougher, so compare values only between runs with equal settings.
    """
    z = views.detach().double()
    mean = z.mean(0)  # (N, D)
    centred = mean - mean.mean(0)
    within = (z - mean).flatten(0, 1)
    between = centred.T @ centred / len(centred)
    noise = within.T @ within / len(within)
    noise.diagonal().add_(delta)
    # λ of S_w^−½ S_b S_w^−½ are those of L⁻¹ S_b L⁻ᵀ, S_w = L Lᵀ.
    lower = torch.linalg.cholesky(noise)
    half = torch.linalg.solve_triangular(lower, between, upper=False)
    whitened = torch.linalg.solve_triangular(lower, half.T, upper=False)
    eigen = torch.linalg.eigvalsh((whitened + whitened.T) / 2).clamp_min(0)
    share = eigen / eigen.sum().clamp_min(eps) + eps
    return torch.special.entr(share).sum().exp().float()


def alignment(x: Tensor, y: Tensor, *, alpha: float = 2.0) -> Tensor:
    """Mean distance ‖x − y‖^α of positive pairs (N, D): 0 is best.

    Wang & Isola 2020, arXiv 2005.10242, eq. 5.
    """
    return (unit(x) - unit(y)).norm(dim=1).pow(alpha).mean()


def uniformity(x: Tensor, *, t: float = 2.0) -> Tensor:
    """log of the mean over pairs i < j of exp(−t‖x_i − x_j‖²), (N, D) → (): lower is more uniform.

    0 is collapse; −4 is the limit on a high-dimensional sphere for t = 2.
    Wang & Isola 2020, arXiv 2005.10242, eq. 6.
    """
    z = unit(x)
    n = len(z)
    squared = (2 - 2 * z @ z.T).clamp_min(0)[*torch.triu_indices(n, n, offset=1)]
    return squared.mul(-t).logsumexp(dim=0) - torch.tensor(squared.numel()).log()


def unit(x: Tensor) -> Tensor:
    """Rows of unit length, in float32."""
    return normalize(x.detach().float(), dim=1)


def verdict(spread: float, rank: float, first: float) -> str | None:
    """A warning about collapse, or None.

    An untrained encoder can map all samples close together, and training then separates them. So
    collapse means a spread that is small *and* no larger than at the start.

    Args:
        spread: `spread` of the embeddings now.
        rank: their `effective_rank`.
        first: the spread before training.
    """
    if (spread < 0.1 and spread <= 0.5 * first) or spread < 1e-3:
        return (
            "the encoder has collapsed: it gives nearly the same embedding to every sample "
            "(monitor 'spread' in metrics.csv, healthy near 1, collapsed near 0). Lower "
            "optimizer.lr, lengthen optimizer.warmup, weaken the views, or take a method with "
            "negatives or a variance term."
        )
    if rank < 2:
        return (
            "the embeddings lie on a line: fewer than two dimensions are in use (monitor "
            "'effective_rank' in metrics.csv). That is expected only with labels of two classes; "
            "otherwise lower optimizer.lr or take a method that decorrelates dimensions."
        )
    return None
