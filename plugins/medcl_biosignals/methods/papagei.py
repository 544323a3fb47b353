"""PaPaGei-S: contrast of pulse waves by their shape, across people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss, normalize, softplus

from medcl.errors import UsageError
from medcl.methods.contract import State, View
from medcl.nn.distributed import ALONE, Ranks
from medcl.nn.encoders import width_of
from medcl.objectives.means import mean_where
from medcl.objectives.pairs import own_columns
from medcl.objectives.precision import widened
from medcl_biosignals.encoders.parts import known
from medcl_biosignals.morphology import ipa, sqi, svri

_NONE = -1e9  # a similarity of what is left out: its exponential is zero, and its gradient too


class PaPaGeiS(nn.Module):
    """L = α·NT-Xent(z; bins of sVRI) + (1 − α)/2·(|ipâ − IPA| + |sqî − SQI|).

    Pillai 2025 (ICLR, arXiv 2410.20542). Windows whose sVRI lies in one bin are positives of each
    other, whoever they come from, all others are negatives. Two mixtures of experts on the
    embedding predict how the wave is parted by its notch and how skewed it is; see
    `medcl_biosignals.morphology`. The three numbers are those of the window before its
    augmentation.

    Read in forks of the authors' code, where NT-Xent is that of pytorch-metric-learning: each
    positive pair has a denominator of itself and the anchor's negatives. Three things differ. Bins
    are equal parts of the batch's range of sVRI but for its extremes (theirs: of that of the
    cleaned data set). The experts see the embedding (theirs: what its last linear layer sees). And
    a window without any sVRI takes no part in the contrast (theirs were removed before).

    Args:
        encoder: (B, 1, T) → (B, width); theirs is ``preact-resnet1d``.
        fs: sampling rate in Hz.
        alpha: α, from 0 to 1.
        temperature: τ.
        bins: of sVRI.
        trim: share of the batch beyond each end of their range, 0 to below 0.5.
        experts: of each mixture.
        dropout: within the experts of SQI.
        mask_same_patient: keep windows of one patient out of each other's negatives. Theirs does
            not.
    """

    needs: tuple[str, ...] = ()

    def __init__(
        self,
        encoder: nn.Module,
        *,
        fs: float = 125.0,
        alpha: float = 0.6,
        temperature: float = 0.07,
        bins: int = 8,
        trim: float = 0.01,
        experts: int = 3,
        dropout: float = 0.3,
        mask_same_patient: bool = True,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.views = (View(), View("none"))
        width = width_of(encoder)
        self.of_ipa, self.of_sqi = Mixture(width, experts), Mixture(width, experts, dropout)
        self.fs, self.alpha, self.temperature = fs, alpha, temperature
        self.bins, self.trim = bins, trim
        self.mask_same_patient = mask_same_patient

    def step(
        self, views: Sequence[Tensor], batch: Mapping[str, Tensor], state: State
    ) -> dict[str, Tensor]:
        """See `medcl.methods.contract.Method.step`; ``bins`` counts those that windows lie in.

        Raises:
            UsageError: if the signal has more than one channel.
        """
        augmented, plain = views
        if plain.shape[1] != 1:
            raise UsageError(
                f"Method 'papagei-s' describes one pulse wave, not {plain.shape[1]} channels: give "
                "one slot in prepare.leads."
            )
        wave = known(plain[:, 0])  # (B, T)
        bins = binned(svri(wave), self.bins, self.trim, state.ranks)
        h = self.encoder(augmented)  # (B, width)
        contrast = binned_contrast(
            h,
            bins,
            temperature=self.temperature,
            group=batch["patient"] if self.mask_same_patient else None,
            ranks=state.ranks,
        )
        of_ipa = l1_loss(self.of_ipa(h), ipa(wave, self.fs))
        of_sqi = l1_loss(self.of_sqi(h), sqi(wave, self.fs))
        rest = (1 - self.alpha) / 2
        return {
            "loss": self.alpha * contrast + rest * of_ipa + rest * of_sqi,
            "embedding": h.detach(),
            "contrast": contrast.detach(),
            "ipa": of_ipa.detach(),
            "sqi": of_sqi.detach(),
            "bins": torch.zeros(self.bins + 1, device=h.device).scatter(0, bins + 1, 1.0)[1:].sum(),
        }


class Mixture(nn.Module):
    """Experts, each a small network to one number, weighed by the embedding: (B, width) → (B,)."""

    def __init__(self, width: int, experts: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.experts = nn.ModuleList(
            nn.Sequential(
                nn.Linear(width, width // 2),
                nn.ReLU(),
                nn.Dropout(dropout),
                nn.Linear(width // 2, 1),
            )
            for _ in range(experts)
        )
        self.gate = nn.Linear(width, experts)

    def forward(self, h: Tensor) -> Tensor:
        said = torch.cat([expert(h) for expert in self.experts], dim=1)  # (B, E)
        return (said * self.gate(h).softmax(dim=1)).sum(dim=1)


def binned(values: Tensor, bins: int, trim: float, ranks: Ranks = ALONE) -> Tensor:
    """Which of ``bins`` equal parts of its range each value lies in: (B,) → (B,), −1 for NaN.

    The range is that of all ranks' values, without a share of ``trim`` at each end; what lies
    beyond it is in the first or the last part.
    """
    there = widened(ranks.gather(values))
    low, high = torch.nanquantile(there, trim), torch.nanquantile(there, 1 - trim)
    at = (values - low) / (high - low).clamp_min(torch.finfo(there.dtype).tiny) * bins
    return torch.where(values.isnan(), -1.0, at.floor().clamp(0, bins - 1)).long()


def binned_contrast(
    z: Tensor,
    bins: Tensor,
    *,
    temperature: float,
    group: Tensor | None = None,
    ranks: Ranks = ALONE,
) -> Tensor:
    """Mean over pairs (i, p) of one bin of −log( e^{s_ip} / (e^{s_ip} + Σ_n e^{s_in}) ).

    s = z zᵀ/τ, and n are the samples of other bins. Unlike in `medcl.objectives.supcon.supcon`, a
    positive is in no other's denominator.

    Args:
        z: (B, d).
        bins: (B,) integers, −1 for samples that take no part.
        temperature: τ.
        group: (B,) integers: samples of one group are no negatives of each other.
        ranks: the other processes.

    Returns:
        Scalar; zero where no two samples share a bin.
    """
    z = normalize(widened(z), dim=1)
    cols, others = ranks.gather(z), ranks.gather(bins)
    s = z @ cols.T / temperature  # (B, N)
    part = (bins >= 0)[:, None] & (others >= 0)
    alike = bins[:, None] == others
    itself = own_columns(len(z), ranks, z.device)[:, None] == torch.arange(
        len(cols), device=z.device
    )
    negative = part & ~alike
    if group is not None:
        negative = negative & (group[:, None] != ranks.gather(group))
    against = s.masked_fill(~negative, _NONE).logsumexp(dim=1, keepdim=True)  # (B, 1)
    return mean_where(softplus(against - s), part & alike & ~itself, ranks)
