"""Instance contrast that also predicts measures of the whole window, with any subset of leads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import smooth_l1_loss

from medcl.errors import UsageError
from medcl.methods.batch import required
from medcl.methods.contract import State
from medcl.methods.views import encode, pair
from medcl.nn.distributed import ALONE, Ranks
from medcl.nn.encoders import width_of
from medcl.nn.heads import projector
from medcl.objectives.nt_xent import nt_xent
from medcl_biosignals.measured import measured, size

_EPSILON = 1e-4


class Described(nn.Module):
    """L = NT-Xent(g(v1), g(v2)) + w·SmoothL1(d̂(v), d), d the standardised measures of the window.

    Two views of a recording share what tells its person from others, which need not be what tells
    one disease from another. So the encoder also predicts, from each augmented piece, what is
    measured of the whole window (`medcl_biosignals.measured`): amplitudes, slopes, spectra, the
    correlations of leads and the rhythm. Regression of fixed features beside a contrastive loss is
    the pretext of ScatSimCLR (Kinakh 2021, arXiv 2108.13939), there of scattering coefficients of
    images; the measures are ours. d is standardised over the batch.

    In a share of the steps both views keep the same random leads, one to all of them, for the whole
    batch: an encoder of twelve leads then serves recordings of one. Drawn for each view by itself,
    leads would have to look alike; drawn for each sample, their set would tell samples apart.

    Args:
        encoder: (B, C, T) → (B, width).
        temperature: τ.
        hidden: width of the projector's hidden layer, and of the predictor's of d.
        out: width of the projections.
        describe: w.
        subsets: share of the steps with a part of the leads, 0 to 1.
        mask_same_patient: keep samples of one patient out of each other's negatives.
        channels: C; follows prepare.leads.
        fs: sampling rate of the windows in Hz; follows prepare.fs.
    """

    needs = ("x",)

    def __init__(
        self,
        encoder: nn.Module,
        *,
        temperature: float = 0.1,
        hidden: int = 512,
        out: int = 128,
        describe: float = 10.0,
        subsets: float = 0.5,
        mask_same_patient: bool = True,
        channels: int = 12,
        fs: float = 100.0,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.views = pair("instance")
        width = width_of(encoder)
        self.projector = projector(width, hidden, out)
        self.describer = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, size(channels))
        )
        self.temperature, self.weight, self.subsets = temperature, describe, subsets
        self.mask_same_patient, self.channels, self.fs = mask_same_patient, channels, fs

    def step(
        self, views: Sequence[Tensor], batch: Mapping[str, Tensor], state: State
    ) -> dict[str, Tensor]:
        """See `medcl.methods.contract.Method.step`.

        Raises:
            UsageError: if the windows have another number of leads.
        """
        if views[0].shape[1] != self.channels:
            raise UsageError(
                f"Method 'described' was made for {self.channels} leads, and the windows have "
                f"{views[0].shape[1]}: leave method.channels out, it follows prepare.leads."
            )
        kept = some_leads(views[0], self.subsets, state.ranks)  # (C,)
        h1, h2 = encode(self.encoder, [view * kept[:, None] for view in views])  # (B, width) each
        h = torch.cat([h1, h2])
        z1, z2 = self.projector(h).chunk(2)  # (B, out) each
        contrast = nt_xent(
            z1,
            z2,
            temperature=self.temperature,
            group=batch["patient"] if self.mask_same_patient else None,
            ranks=state.ranks,
        )
        target = standardised(
            measured(required(batch, "x", "described").float(), self.fs), state.ranks
        )  # (B, D)
        miss = smooth_l1_loss(self.describer(h), torch.cat([target, target]))
        return {
            "loss": contrast + self.weight * miss,
            "embedding": h1.detach(),
            "contrast": contrast.detach(),
            "miss": miss.detach(),
        }


def some_leads(x: Tensor, share: float, ranks: Ranks = ALONE) -> Tensor:
    """Which leads (C,) a step keeps: all but in ``share`` of the steps; then 1 … C − 1 of them.

    One lead alone, as watches and chest straps record, is drawn as often as all other numbers. All
    ranks keep what the first one draws: else its leads would tell a sample from those of others.
    """
    leads = x.shape[1]
    draw, order = ranks.gather(torch.rand(3 + leads, device=x.device))[: 3 + leads].split(
        (3, leads)
    )
    several = 1 + (draw[1] * (leads - 1)).long()
    number = torch.where(draw[2] < 0.5, torch.ones_like(several), several)
    number = torch.where(draw[0] < share, number, leads)
    return (order.argsort() < number).to(x.dtype)


def standardised(measures: Tensor, ranks: Ranks = ALONE) -> Tensor:
    """(B, D), over the samples of all ranks; what lies beyond four deviations counts as four."""
    centred = measures - ranks.mean(measures.mean(dim=0))
    deviation = ranks.mean(centred.square().mean(dim=0)).sqrt()
    return (centred / (deviation + _EPSILON)).clamp(-4, 4)
