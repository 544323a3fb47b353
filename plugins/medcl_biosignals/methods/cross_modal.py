"""Two sensors of one person at one time, window by window and recording by recording."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from medcl.errors import UsageError
from medcl.methods.contract import State, View
from medcl.nn.distributed import ALONE, Ranks
from medcl.nn.heads import projector
from medcl.objectives.means import mean_where
from medcl.objectives.pairs import numbered, own_columns
from medcl.objectives.precision import full, widened
from medcl_biosignals.encoders.towers import TwoTowers

MAX_SCALE = 100.0


class CrossModal(nn.Module):
    """L = CLIP(windows) + w·CLIP(recordings) + v·Σ_l CLIP(windows at depth l).

    An ECG window finds its PPG window, and back.

    After AnyPPG (ECG ↔ PPG by CLIP's loss: Radford 2021, arXiv 2103.00020) and retrieval of music
    by snippets that are pooled for each recording: the second term contrasts, for each patient in
    the batch, the mean of its windows' projections of either sensor, so that one window alone need
    not tell whose it is. The third one is HiCMAE's hierarchy (Sun 2024, arXiv 2401.05698): windows
    are contrasted at earlier stages of the two towers too, whose means over time have projectors
    of their own; there v is 0.0025 beside a reconstruction that this method lacks, and its fusion
    of the sensors in the decoder has no place. Windows where one of the sensors is missing do not
    take part.

    Args:
        encoder: ``two-towers``, whose halves embed the two sensors.
        recording: w; 0 for windows alone.
        hierarchy: v.
        depths: how many stages before the embedding are contrasted, the last ones; 0 for none.
        sides: names of the two sensors (the modalities), in the order of the encoder's channels.
        temperature: 1/s at the start.
        hidden: width of the projectors' hidden layers.
        out: width of the shared space.
        mask_same_patient: other windows of the same patient are no negatives of a window.

    Raises:
        UsageError: if the encoder has no two towers, or both sensors have the same name.
    """

    needs: tuple[str, ...] = ()

    def __init__(
        self,
        encoder: nn.Module,
        *,
        recording: float = 1.0,
        hierarchy: float = 1.0,
        depths: int = 0,
        sides: tuple[str, str] = ("ecg", "ppg"),
        temperature: float = 0.07,
        hidden: int = 256,
        out: int = 128,
        mask_same_patient: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(encoder, TwoTowers):
            raise UsageError("Method 'cross-modal' needs encoder.name=two-towers.")
        if len(set(sides)) < 2:
            raise UsageError(f"method.sides needs two different names, not {list(sides)}.")
        self.encoder, self.modalities = encoder, sides
        self.views = (View(),)
        self.projectors = nn.ModuleList(
            projector(encoder.width // 2, hidden, out) for _ in range(2)
        )
        widths = encoder.stage_widths
        if not 0 <= depths <= len(widths):
            raise UsageError(f"method.depths lies between 0 and {len(widths)}, encoder's stages.")
        self.depth_projectors = nn.ModuleList(
            nn.ModuleList(projector(width, hidden, out) for _ in range(2))
            for width in widths[len(widths) - depths :]
        )
        self.log_scale = nn.Parameter(torch.tensor(1.0 / temperature).log())
        self.recording, self.hierarchy = recording, hierarchy
        self.mask_same_patient = mask_same_patient

    def step(
        self, views: Sequence[Tensor], batch: Mapping[str, Tensor], state: State
    ) -> dict[str, Tensor]:
        """See `medcl.methods.contract.Method.step`; ``found`` is the share of windows found."""
        assert isinstance(self.encoder, TwoTowers)
        stages = self.encoder.depths(views[0])
        h = [parts[-1] for parts in stages]  # two of (B, width/2)
        a, b = (head(part) for head, part in zip(self.projectors, h, strict=True))
        # Of all ranks from here on, (N, ...); each averages the losses of its own rows.
        own, ranks = own_columns(len(a), state.ranks, a.device), state.ranks
        present = ranks.gather(self.encoder.present(views[0]))
        present = present | (present.sum() < 2)  # batch norm has seen all; pairs are contrasted
        patients = ranks.gather(batch["patient"])
        group = patients if self.mask_same_patient else None
        a, b = (ranks.gather(nn.functional.normalize(z, dim=1)) for z in (a, b))
        windows = clip_of(a, b, self.log_scale, present, own, group=group, ranks=ranks)
        (one, filled), (other, _) = (by_group(z, patients, present) for z in (a, b))
        recordings = clip_of(one, other, self.log_scale, filled, own, ranks=ranks)
        deep = a.new_zeros(())
        for at, heads in enumerate(reversed(self.depth_projectors), start=2):
            both = zip(cast(Iterable[nn.Module], heads), stages, strict=True)
            low, high = (
                ranks.gather(nn.functional.normalize(head(parts[-at]), dim=1))
                for head, parts in both
            )
            deep = deep + clip_of(low, high, self.log_scale, present, own, group=group, ranks=ranks)
        with torch.no_grad():
            cosine = (a[own] @ b.T).masked_fill(~present, -torch.inf)
            found = mean_where((cosine.argmax(dim=1) == own).float(), present[own])
        return {
            "loss": windows + self.recording * recordings + self.hierarchy * deep,
            "embedding": torch.cat(h, dim=1).detach(),
            "windows": windows.detach(),
            "recordings": recordings.detach(),
            "depths": deep.detach(),
            "found": found,
        }

    def project(self, batch: Mapping[str, Tensor], modality: str) -> Tensor:
        """See `medcl.methods.contract.Paired`."""
        assert isinstance(self.encoder, TwoTowers)
        number, x = self.modalities.index(modality), batch["x"]
        z: Tensor = self.projectors[number](self.encoder.both(x)[number])
        return torch.where(self.encoder.heard(x)[:, number, None], z, 0.0)

    @torch.no_grad()
    def after_step(self, state: State) -> None:
        """s stays at or below 100, as in CLIP."""
        self.log_scale.clamp_(max=math.log(MAX_SCALE))


def by_group(z: Tensor, group: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """The mean direction of each group's ``valid`` unit vectors, in order of first code.

    There are as many rows as samples, since the host does not know how many groups there are.

    Args:
        z: (B, d) unit vectors.
        group: (B,) integers.
        valid: (B,) bool.

    Returns:
        (B, d), and (B,) True for the rows that are a group.
    """
    code, weight = numbered(group), valid.to(z.dtype)
    sums = torch.zeros_like(z).index_add(0, code, z * weight[:, None])
    filled = torch.zeros_like(weight).index_add(0, code, weight) > 0
    return nn.functional.normalize(sums, dim=1), filled


def clip_of(
    a: Tensor,
    b: Tensor,
    log_scale: Tensor,
    valid: Tensor,
    own: Tensor,
    *,
    group: Tensor | None = None,
    ranks: Ranks = ALONE,
) -> Tensor:
    """`medcl.objectives.clip.clip` of those rows that are ``valid``, of all ranks.

    The matrix is held: how many rows are left is not for the host to know.

    Args:
        a: (N, d) unit vectors.
        b: (N, d) likewise.
        log_scale: () log(1/τ).
        valid: (N,) bool.
        own: (B,) the rows whose losses this rank averages.
        group: (N,) integers: other rows of a row's group are no negatives.
        ranks: the other processes.
    """
    hidden = (~valid).expand(len(own), -1)
    if group is not None:
        itself = own[:, None] == torch.arange(len(a), device=a.device)
        hidden = hidden | ((group[own][:, None] == group) & ~itself)
    losses = []
    for rows, cols in ((a[own], b), (b[own], a)):
        with full(rows):
            s = widened(rows) @ widened(cols).T * widened(log_scale).exp()  # (B, N)
        s = s.masked_fill(hidden, -torch.inf)
        at = s.gather(1, own[:, None]).squeeze(1)
        losses.append(mean_where(s.logsumexp(1) - at, valid[own], ranks))
    return (losses[0] + losses[1]) / 2
