"""Masked contrast against quantised targets, and prediction of their codes: w2v-BERT on patches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medcl.methods.contract import State, View
from medcl.nn.decoders import TokenDecoder
from medcl.nn.encoders import tokenised
from medcl.nn.patches import grid_of, patchify, random_mask, seen, visible_count
from medcl.objectives.means import mean_where
from medcl.objectives.quantised_contrast import codebook_diversity, quantised_contrast


class Quantiser(nn.Module):
    """Product quantisation by Gumbel softmax (Baevski 2020, arXiv 2006.11477): (B, N, F) → codes.

    Args:
        inner: values of a patch.
        groups: codebooks, whose entries are put side by side.
        entries: of each.
        out: width of a quantised vector.
    """

    def __init__(self, inner: int, groups: int, entries: int, out: int) -> None:
        super().__init__()
        self.groups, self.entries = groups, entries
        self.norm = nn.LayerNorm(inner)
        self.logits = nn.Linear(inner, groups * entries)
        self.book = nn.Parameter(torch.randn(groups, entries, out // groups))
        self.out = nn.Linear(out // groups * groups, out)

    def forward(self, patches: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
        """Quantised vectors (B, N, out), codes (B, N, G), and soft probabilities (B, N, G, V)."""
        logits = self.logits(self.norm(patches)).unflatten(2, (self.groups, self.entries)).float()
        if self.training:
            hard = F.gumbel_softmax(logits, tau=temperature, hard=True, dim=-1)
        else:
            hard = F.one_hot(logits.argmax(dim=-1), self.entries).to(logits.dtype)
        picked = torch.einsum("bngv,gvd->bngd", hard, self.book.float())
        return self.out(picked.flatten(2).to(patches.dtype)), hard.argmax(-1), logits.softmax(-1)


class Quantised(nn.Module):
    """L = L_contrast + α·L_diversity + β·L_codes.

    Chung 2021 (w2v-BERT, arXiv 2108.06209): at masked steps, tell the quantised feature from those
    of other masked steps (wav2vec 2.0's loss), and deeper in the network predict its codes as
    BERT does its words. There a convolutional front end and Conformers, here patches and a
    Transformer that sees visible patches alone (as in MAE), with a light decoder over all positions
    for both losses; the encoder is what is kept.

    Args:
        encoder: a `Tokenised` encoder: ``vit1d``.
        mask: share of patches hidden.
        groups: codebooks (wav2vec 2.0: 2).
        entries: of each (320 there).
        out: width of the quantised vectors.
        temperature: τ of the contrast.
        gumbel: temperature of the quantiser at the beginning; it falls to a quarter (2 to 0.5).
        diversity: α (0.1 there).
        codes: β (w2v-BERT: 1).
        width: of the decoder's tokens.
        depth: its blocks.
        heads: its attention heads.

    Raises:
        UsageError: if the encoder does not show its tokens.
    """

    needs: tuple[str, ...] = ()

    def __init__(
        self,
        encoder: nn.Module,
        *,
        mask: float = 0.5,
        groups: int = 2,
        entries: int = 64,
        out: int = 64,
        temperature: float = 0.1,
        gumbel: float = 2.0,
        diversity: float = 0.1,
        codes: float = 1.0,
        width: int = 128,
        depth: int = 2,
        heads: int = 4,
    ) -> None:
        super().__init__()
        shown = tokenised(encoder, "quantised")
        self.encoder = encoder
        self.views = (View(),)
        self.patch = tuple(shown.patch)
        values = shown.channels * math.prod(self.patch)
        self.quantiser = Quantiser(values, groups, entries, out)
        self.decoder = TokenDecoder(shown.width, width, depth, heads, out + groups * entries)
        self.out, self.mask, self.temperature, self.gumbel = out, mask, temperature, gumbel
        self.diversity, self.codes = diversity, codes

    def step(
        self, views: Sequence[Tensor], batch: Mapping[str, Tensor], state: State
    ) -> dict[str, Tensor]:
        """See `medcl.methods.contract.Method.step`; ``used`` is the share of codes in use."""
        x = torch.nan_to_num(views[0])
        grid = grid_of(x.shape[2:], self.patch)
        cells = math.prod(grid)
        hidden = random_mask(len(x), cells, self.mask, x.device)  # (B, N)
        keep = seen(hidden, visible_count(cells, self.mask))
        tokens = tokenised(self.encoder, "quantised").tokens(x, keep)  # (B, 1 + K, width)
        decoded = self.decoder(tokens, keep, grid)  # (B, N, out + G·V)
        warm = self.gumbel * 0.25 ** (state.step / max(state.steps, 1))
        target, codes, soft = self.quantiser(patchify(x, self.patch), warm)
        whole = codes * self.quantiser.entries ** torch.arange(codes.shape[2], device=x.device)
        contrast = quantised_contrast(
            decoded[..., : self.out],
            target,
            hidden,
            whole.sum(dim=2),
            temperature=self.temperature,
            ranks=state.ranks,
        )
        logits = decoded[..., self.out :].unflatten(2, soft.shape[2:])  # (B, N, G, V)
        each = F.cross_entropy(logits.movedim(3, 1), codes, reduction="none")  # (B, N, G)
        guess = mean_where(each, hidden[..., None].expand_as(each))
        spread = codebook_diversity(soft, ranks=state.ranks)
        used = torch.zeros(soft.shape[2:], device=x.device)
        used = used.scatter(1, codes.flatten(0, 1).T, 1.0)
        return {
            "loss": contrast + self.diversity * spread + self.codes * guess,
            "embedding": tokens[:, 1:].mean(dim=1).detach(),
            "contrast": contrast.detach(),
            "codes": guess.detach(),
            "used": used.mean(),
        }
