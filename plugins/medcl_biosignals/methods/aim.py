"""AIM, the pretraining of LSM-2: a masked autoencoder of recordings that are incomplete."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from medcl.errors import UsageError
from medcl.methods.contract import State, View
from medcl.nn.decoders import TokenDecoder
from medcl.nn.host import value
from medcl.objectives.masked_reconstruction import masked_reconstruction
from medcl_biosignals.encoders.parts import known
from medcl_biosignals.encoders.sensors import SensorViT, mean_of


class AIM(nn.Module):
    """Adaptive and inherited masking: Xu 2025 (LSM-2), arXiv 2506.05321.

    What is missing is an inherited mask, beside an artificial one that is drawn as gaps are: single
    patches, spans of time in all channels, or whole channels. The encoder sees neither: as many
    hidden tokens as the fullest window of the batch allows are dropped, attention leaves out the
    rest. The decoder has one learnt token for both. The loss is the squared error on patches that
    are hidden by the artificial mask and are there:

    L = mean over (artificial ∧ ¬missing) of ‖p̂ − p‖² / P

    Windows of which nothing is left to see are not asked. Written from the paper, without any code
    of its authors: the masks are theirs, the sizes of the networks ours.

    Args:
        encoder: ``sensor-vit``.
        patches: share of patches hidden where single ones are.
        spans: share of the time hidden in all channels.
        sensors: share of channels hidden; not drawn of a single channel.
        width: of the decoder's tokens.
        depth: decoder blocks.
        heads: decoder attention heads.
        normalise: predict patches normalised one by one (He 2021, arXiv 2111.06377); not LSM-2's.

    Raises:
        UsageError: if the encoder is no ``sensor-vit``.
    """

    needs: tuple[str, ...] = ()

    def __init__(
        self,
        encoder: nn.Module,
        *,
        patches: float = 0.8,
        spans: float = 0.5,
        sensors: float = 0.5,
        width: int = 128,
        depth: int = 2,
        heads: int = 4,
        normalise: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(encoder, SensorViT):
            raise UsageError("Method 'aim' needs encoder.name=sensor-vit.")
        self.encoder = encoder
        self.views = (View(),)
        self.patches, self.spans, self.sensors = patches, spans, sensors
        self.normalise = normalise
        self.decoder = TokenDecoder(encoder.width, width, depth, heads, math.prod(encoder.patch))

    def step(
        self, views: Sequence[Tensor], batch: Mapping[str, Tensor], state: State
    ) -> dict[str, Tensor]:
        """See `medcl.methods.contract.Method.step`; ``missing`` is the share of patches."""
        (x,) = views
        encoder = self.encoder
        missing, grid = encoder.missing(x), encoder.grid(x)  # (B, N)
        artificial = self.drawn(len(x), grid, x.device)
        hidden = missing | artificial
        keep = visible_first(hidden)  # (B, K)
        seen = ~hidden.gather(1, keep)
        tokens = encoder.seen_tokens(x, keep, seen)  # (B, 1 + K, width)
        prediction = self.decoder(tokens, keep, grid, seen)  # (B, N, patch)
        loss = masked_reconstruction(
            prediction,
            encoder.patches(known(x)),
            artificial & ~missing & seen.any(dim=1, keepdim=True),
            normalise=self.normalise,
            ranks=state.ranks,
        )
        return {
            "loss": loss,
            "embedding": mean_of(tokens[:, 1:], seen).detach(),
            "missing": missing.float().mean(),
        }

    def drawn(self, batch: int, grid: Sequence[int], device: torch.device) -> Tensor:
        """The artificial mask (B, N) of patches in (channels, time) order: a kind for each window.

        Equal shares of windows have single patches, spans of time, and channels hidden.
        """
        channels, times = grid
        single = _share(batch, channels * times, self.patches, device).unflatten(1, (channels, -1))
        spans = _share(batch, times, self.spans, device)[:, None].expand_as(single)
        sensors = _share(batch, channels, self.sensors, device)[..., None].expand_as(single)
        kinds = torch.stack([single, spans, sensors][: 3 if channels > 1 else 2], dim=1)
        kind = torch.randint(kinds.shape[1], (batch,), device=device)
        return kinds[torch.arange(batch, device=device), kind].flatten(1)


def _share(batch: int, count: int, share: float, device: torch.device) -> Tensor:
    """(B, count) bool: so many are True in every row, but neither none nor all of several."""
    chosen = min(max(round(share * count), 1), max(count - 1, 1))
    return torch.rand(batch, count, device=device).argsort(dim=1) < chosen


def visible_first(hidden: Tensor) -> Tensor:
    """Positions (B, K) of what is False in ``hidden`` (B, N), filled up by others in shorter rows.

    K is the largest number in a row, and at least one; N where the host would have to wait for it.
    """
    largest = value((~hidden).sum(dim=1).max())
    count = hidden.shape[1] if largest is None else max(int(largest), 1)
    return hidden.byte().argsort(dim=1, stable=True)[:, :count]
