"""Two sensors of one person at one time, window by window and recording by recording."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from medcl.errors import UsageError
from medcl.methods.contract import State, View
from medcl.nn.heads import projector
from medcl.objectives.means import mean_where
from medcl.objectives.pairs import numbered
from medcl.objectives.precision import full, widened
from medcl_biosignals.encoders.towers import TwoTowers

MAX_SCALE = 100.0


class CrossModal(nn.Module):
    """L = CLIP(windows) + w·CLIP(recordings): an ECG window finds its PPG window, and back.

    After AnyPPG (ECG ↔ PPG by CLIP's loss: Radford 2021, arXiv 2103.00020) and retrieval of music
    by snippets that are pooled for each recording: the second term contrasts, for each patient in
    the batch, the mean of its windows' projections of either sensor, so that one window alone need
    not tell whose it is. Contrast at several depths is HiCMAE's hierarchy; here the levels are of
    time. Windows where one of the sensors is missing do not take part, and as their number differs
    from process to process, each process contrasts its own batch alone.

    Args:
        encoder: ``two-towers``, whose halves embed the two sensors.
        recording: w; 0 for windows alone.
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
        self.log_scale = nn.Parameter(torch.tensor(1.0 / temperature).log())
        self.recording, self.mask_same_patient = recording, mask_same_patient

    def step(
        self, views: Sequence[Tensor], batch: Mapping[str, Tensor], state: State
    ) -> dict[str, Tensor]:
        """See `medcl.methods.contract.Method.step`; ``found`` is the share of windows found."""
        assert isinstance(self.encoder, TwoTowers)
        h = self.encoder.both(views[0])  # two of (B, width/2)
        a, b = (head(part) for head, part in zip(self.projectors, h, strict=True))
        present = self.encoder.present(views[0])  # (B,)
        present = present | (present.sum() < 2)  # batch norm has seen all; pairs are contrasted
        patients = batch["patient"]
        group = patients if self.mask_same_patient else None
        a, b = (nn.functional.normalize(z, dim=1) for z in (a, b))
        windows = clip_of(a, b, self.log_scale, present, group)
        (one, filled), (other, _) = (by_group(z, patients, present) for z in (a, b))
        recordings = clip_of(one, other, self.log_scale, filled)
        with torch.no_grad():
            cosine = (a @ b.T).masked_fill(~present, -torch.inf)
            first = cosine.argmax(dim=1) == torch.arange(len(a), device=a.device)
            found = mean_where(first.float(), present)
        return {
            "loss": windows + self.recording * recordings,
            "embedding": torch.cat(list(h), dim=1).detach(),
            "windows": windows.detach(),
            "recordings": recordings.detach(),
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
    a: Tensor, b: Tensor, log_scale: Tensor, valid: Tensor, group: Tensor | None = None
) -> Tensor:
    """`medcl.objectives.clip.clip` of those rows of a batch that are ``valid``.

    The matrix is held: how many rows are left is not for the host to know.

    Args:
        a: (B, d) unit vectors.
        b: (B, d) likewise.
        log_scale: () log(1/τ).
        valid: (B,) bool.
        group: (B,) integers: other rows of a row's group are no negatives.
    """
    with full(a):
        s = widened(a) @ widened(b).T * widened(log_scale).exp()
    hidden = ~valid.expand_as(s)
    if group is not None:
        itself = torch.eye(len(s), dtype=torch.bool, device=s.device)
        hidden = hidden | ((group[:, None] == group) & ~itself)
    losses = []
    for scores in (s, s.T):  # a hidden pair is hidden in both, an invalid row only as a column
        scores = scores.masked_fill(hidden, -torch.inf)
        losses.append(mean_where(scores.logsumexp(1) - scores.diagonal(), valid))
    return (losses[0] + losses[1]) / 2
