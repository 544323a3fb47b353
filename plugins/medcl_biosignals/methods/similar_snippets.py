"""Snippets rebuilt from snippets that are like them, channels missing here and there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from medcl.methods.contract import State, View
from medcl.nn.distributed import Ranks
from medcl.nn.encoders import width_of
from medcl.nn.heads import projector
from medcl.objectives.means import mean_where
from medcl.objectives.nt_xent import nt_xent
from medcl.objectives.similarity_reconstruction import similarity_mix
from medcl_biosignals.methods.curves import Curves


class SimilarSnippets(nn.Module):
    """L = NT-Xent(z of masked views) + w·|Σ_j softmax(cos(z_i, z_j)/τ)·x̂_j − x_i|², x_i known.

    After Arunan 2025 (charging snippets of electric cars, arXiv 2510.05172) and SimMTM (Dong 2023,
    arXiv 2302.00861): a snippet is masked in spans of geometric length, twice; snippet embeddings
    are contrasted, and each whole snippet is rebuilt from the decodings x̂ of the *others*, its own
    masked copies among them, weighted by how alike they are. For fragmentary sensors: samples that
    are NaN, and channels without signal, are neither shown nor asked for. The paper's encoder is a
    BiLSTM and its weights are not published; the decoder is affine over cosines, w is 1.

    Args:
        encoder: (B, C, T) → (B, width).
        channels: of the signal.
        mask: share of samples hidden, by channel (SimMTM: 0.5).
        span: mean length of a hidden span, as a share of the window.
        weight: w.
        temperature: τ of the mixing weights (SimMTM: 0.2), and of the contrast.
        cosines: of each channel's decoding.
        hidden: width of the projector's hidden layer.
        out: width of the projections.
        mask_same_patient: keep samples of one patient out of each other's negatives.
    """

    needs: tuple[str, ...] = ()

    def __init__(
        self,
        encoder: nn.Module,
        *,
        channels: int = 2,
        mask: float = 0.5,
        span: float = 0.05,
        weight: float = 1.0,
        temperature: float = 0.2,
        cosines: int = 64,
        hidden: int = 256,
        out: int = 128,
        mask_same_patient: bool = True,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.views = (View(),)
        self.projector = projector(width_of(encoder), hidden, out)
        self.decoder = Curves(width_of(encoder), channels, cosines)
        self.mask, self.span, self.weight, self.temperature = mask, span, weight, temperature
        self.mask_same_patient = mask_same_patient

    def step(
        self, views: Sequence[Tensor], batch: Mapping[str, Tensor], state: State
    ) -> dict[str, Tensor]:
        """See `medcl.methods.contract.Method.step`."""
        known = views[0].isfinite()
        x = torch.where(known, views[0], 0.0)
        known &= (x != 0).any(dim=-1, keepdim=True)  # a channel without signal is absent
        both, asked = torch.cat([x, x]), torch.cat([known, known])
        hidden = geometric_mask(both, self.mask, self.span)
        h = self.encoder(torch.where(hidden, 0.0, both))  # (2B, width)
        z = self.projector(h)
        z1, z2 = z.chunk(2)
        group = batch["patient"] if self.mask_same_patient else None
        contrast = nt_xent(z1, z2, temperature=self.temperature, group=group, ranks=state.ranks)
        rebuilt = self._rebuilt(z, h, x.shape[-1], state.ranks)
        reconstruction = mean_where((rebuilt - both).square(), asked, state.ranks)
        return {
            "loss": contrast + self.weight * reconstruction,
            "embedding": h.chunk(2)[0].detach(),
            "contrast": contrast.detach(),
            "reconstruction": reconstruction.detach(),
        }

    def _rebuilt(self, z: Tensor, h: Tensor, length: int, ranks: Ranks) -> Tensor:
        """The decoder is affine: mixing embeddings and then decoding is the same, and cheaper."""
        return self.decoder(similarity_mix(z, h, temperature=self.temperature, ranks=ranks), length)


def geometric_mask(x: Tensor, share: float, span: float) -> Tensor:
    """Alternating hidden and shown spans of geometric length, each channel its own: like x, bool.

    A two-state chain that begins in its stationary state (Zerveas 2021, arXiv 2010.02803): hidden
    spans are ``span`` of the window long on average, ``share`` of all samples is hidden.
    """
    length = x.shape[-1]
    leave = 1 / max(span * length, 1)  # from hidden to shown, each sample
    enter = min(leave * share / (1 - share), 1.0)
    # One draw decides what follows either state: both stay or change (below both rates: swapped;
    # between them: settled on one state). So the state is that which was settled last, turned over
    # as often as it was swapped since: running counts, where a loop would take a step for each t.
    draws = torch.rand(x.shape, device=x.device)[..., :-1]
    low, high = min(leave, enter), max(leave, enter)
    swapped = torch.zeros(x.shape, dtype=torch.long, device=x.device)
    swapped[..., 1:] = (draws < low).cumsum(dim=-1)
    settled = torch.zeros(x.shape, dtype=torch.long, device=x.device)  # 0: by the first state
    at = torch.arange(1, length, device=x.device)
    settled[..., 1:] = torch.where((draws >= low) & (draws < high), at, 0).cummax(dim=-1).values
    first = torch.rand((*x.shape[:-1], 1), device=x.device) < share
    state = torch.where(settled > 0, enter > leave, first)
    return state ^ ((swapped - swapped.gather(-1, settled)) % 2 == 1)
