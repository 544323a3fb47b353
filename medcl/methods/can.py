"""CAN: contrast and masked reconstruction in one pass, on two masked views."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from medcl.methods.contract import State
from medcl.methods.views import Positives, pair
from medcl.nn.decoders import TokenDecoder
from medcl.nn.ema import Momentum, cosine_momentum
from medcl.nn.encoders import tokenised
from medcl.nn.heads import projector
from medcl.nn.patches import grid_of, patchify, random_mask, seen, visible_count
from medcl.objectives.masked_embedding import masked_embedding
from medcl.objectives.masked_reconstruction import masked_reconstruction
from medcl.objectives.nt_xent import nt_xent


class CAN(nn.Module):
    """Mishra 2022, arXiv 2210.16870: half of each view is masked. The visible parts are contrasted
    (mean over tokens, projected), the hidden parts reconstructed.

    L = w·NT-Xent(z1, z2) + (1 − w)·½(MAE(v1) + MAE(v2)) + u·(what a slow copy makes of v1 and v2)

    With ``same_view`` both masks are of one view, as in Point-CMAE (Ren 2024, arXiv 2407.05862).
    With u > 0 the decoder also foretells, at hidden patches, the tokens of the whole view by a
    momentum copy, as `data2vec`: contrast, reconstruction and self-distillation of one encoder, as
    VTP (Yao 2025, arXiv 2512.13687) trains tokenisers, there with text on the side of contrast.

    The paper's third term, which predicts noise added to the input, is left out: signals and scans
    are noisy already. The encoder costs half of SimCLR's, since masked patches are not encoded.

    Args:
        encoder: a `Tokenised` encoder, e.g. `medcl.nn.vit.ViT`.
        positives: "instance" or "patient", as in SimCLR.
        mask: share of patches hidden in each view.
        contrast: w, from 0 (MAE) to 1 (SimCLR on masked views).
        distil: u, 0 or more.
        momentum: of the copy at the start, rising to 1 on a cosine.
        same_view: mask one view twice.
        temperature: τ.
        width: of the decoder's tokens.
        depth: decoder blocks.
        heads: decoder attention heads.
        hidden: width of the projector's hidden layer.
        out: width of the projections.
        mask_same_patient: keep samples of one patient out of each other's negatives.

    Raises:
        UsageError: if the encoder is not `Tokenised`.
    """

    needs: tuple[str, ...] = ()

    def __init__(
        self,
        encoder: nn.Module,
        *,
        positives: Positives = "instance",
        mask: float = 0.5,
        contrast: float = 0.5,
        distil: float = 0.0,
        momentum: float = 0.996,
        same_view: bool = False,
        temperature: float = 0.1,
        width: int = 128,
        depth: int = 2,
        heads: int = 4,
        hidden: int = 512,
        out: int = 128,
        mask_same_patient: bool = True,
    ) -> None:
        super().__init__()
        tokeniser = tokenised(encoder, "can")
        self.encoder = encoder
        self.views = pair(positives)[:1] if same_view else pair(positives)
        self.patch = tuple(tokeniser.patch)
        values = tokeniser.channels * math.prod(self.patch)
        self.values = values
        told = values + (tokeniser.width if distil else 0)
        self.decoder = TokenDecoder(tokeniser.width, width, depth, heads, told)
        self.teacher = Momentum(encoder) if distil else None
        self.distil, self.momentum = distil, momentum
        self.projector = projector(tokeniser.width, hidden, out)
        self.mask, self.contrast, self.temperature = mask, contrast, temperature
        self.mask_same_patient = mask_same_patient

    def step(
        self, views: Sequence[Tensor], batch: Mapping[str, Tensor], state: State
    ) -> dict[str, Tensor]:
        """See `medcl.methods.contract.Method.step`; each part is a ``loss_…``, with gradient."""
        x = torch.cat([views[0], views[-1]])  # (2B, channels, *space)
        grid = grid_of(x.shape[2:], self.patch)
        cells = math.prod(grid)
        hidden = random_mask(len(x), cells, self.mask, x.device)  # (2B, N)
        keep = seen(hidden, visible_count(cells, self.mask))  # (2B, K)
        tokens = tokenised(self.encoder, "can").tokens(x, keep)  # (2B, 1 + K, width)
        h = tokens[:, 1:].mean(dim=1)  # (2B, width)
        contrast = nt_xent(
            *self.projector(h).chunk(2),
            temperature=self.temperature,
            group=batch["patient"] if self.mask_same_patient else None,
            ranks=state.ranks,
        )
        told = self.decoder(tokens, keep, grid)  # (2B, N, values and, with a copy, width)
        reconstruction = masked_reconstruction(
            told[..., : self.values], patchify(x, self.patch), hidden, ranks=state.ranks
        )
        parts = {
            "loss_contrast": self.contrast * contrast,
            "loss_reconstruction": (1 - self.contrast) * reconstruction,
        }
        if self.teacher is not None:
            goal = self._goal(x)  # (2B, N, width)
            miss = masked_embedding(
                told[..., self.values :], goal, hidden, distance="smooth_l1", ranks=state.ranks
            )
            parts["loss_distil"] = self.distil * miss
        return {
            "loss": torch.stack(list(parts.values())).sum(),
            "embedding": h.chunk(2)[0].detach(),
            **parts,
        }

    @torch.no_grad()
    def _goal(self, x: Tensor) -> Tensor:
        """The copy's tokens of the whole views, normalised."""
        assert self.teacher is not None
        tokens = tokenised(self.teacher.module, "can").tokens(x)[:, 1:]
        return layer_norm(tokens, tokens.shape[-1:])

    def after_step(self, state: State) -> None:
        """The copy, if there is one, follows."""
        if self.teacher is not None:
            momentum = cosine_momentum(self.momentum, state.step, state.steps)
            self.teacher.follow(self.encoder, momentum)
