"""CAN: contrast and masked reconstruction in one pass, on two masked views."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from medcl.methods.contract import State
from medcl.methods.views import Positives, pair
from medcl.nn.decoders import TokenDecoder
from medcl.nn.encoders import tokenised
from medcl.nn.heads import projector
from medcl.nn.patches import grid_of, patchify, random_mask, seen, visible_count
from medcl.objectives.masked_reconstruction import masked_reconstruction
from medcl.objectives.nt_xent import nt_xent


class CAN(nn.Module):
    """Mishra 2022, arXiv 2210.16870: half of each view is masked. The visible parts are contrasted
    (mean over tokens, projected), the hidden parts reconstructed.

    L = w·NT-Xent(z1, z2) + (1 − w)·½(MAE(v1) + MAE(v2))

    The paper's third term, which predicts noise added to the input, is left out: signals and scans
    are noisy already. The encoder costs half of SimCLR's, since masked patches are not encoded.

    Args:
        encoder: a `Tokenised` encoder, e.g. `medcl.nn.vit.ViT`.
        positives: "instance" or "patient", as in SimCLR.
        mask: share of patches hidden in each view.
        contrast: w, from 0 (MAE) to 1 (SimCLR on masked views).
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
        self.views = pair(positives)
        self.patch = tuple(tokeniser.patch)
        values = tokeniser.channels * math.prod(self.patch)
        self.decoder = TokenDecoder(tokeniser.width, width, depth, heads, values)
        self.projector = projector(tokeniser.width, hidden, out)
        self.mask, self.contrast, self.temperature = mask, contrast, temperature
        self.mask_same_patient = mask_same_patient

    def step(
        self, views: Sequence[Tensor], batch: Mapping[str, Tensor], state: State
    ) -> dict[str, Tensor]:
        """See `medcl.methods.contract.Method.step`; each part is a ``loss_…``, with gradient."""
        x = torch.cat(list(views))  # (2B, channels, *space)
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
        reconstruction = masked_reconstruction(
            self.decoder(tokens, keep, grid), patchify(x, self.patch), hidden, ranks=state.ranks
        )
        parts = {
            "loss_contrast": self.contrast * contrast,
            "loss_reconstruction": (1 - self.contrast) * reconstruction,
        }
        return {
            "loss": parts["loss_contrast"] + parts["loss_reconstruction"],
            "embedding": h.chunk(2)[0].detach(),
            **parts,
        }
