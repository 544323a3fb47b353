"""Two sensors of one person at one time, window by window and recording by recording."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from medcl.errors import UsageError
from medcl.methods.contract import State, View
from medcl.nn.heads import projector
from medcl.objectives.clip import clip
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
        patients = batch["patient"]
        if present.sum() > 1:  # batch norm has seen all; only pairs are contrasted
            a, b, patients = a[present], b[present], patients[present]
        windows = clip(
            a,
            b,
            self.log_scale,
            group=patients if self.mask_same_patient else None,
        )
        one, other = (by_group(z, patients) for z in (a, b))
        recordings = clip(one, other, self.log_scale)
        with torch.no_grad():
            cosine = nn.functional.normalize(a, dim=1) @ nn.functional.normalize(b, dim=1).T
            found = (cosine.argmax(dim=1) == torch.arange(len(a), device=a.device)).float().mean()
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


def by_group(z: Tensor, group: Tensor) -> Tensor:
    """The mean unit vector of each group, in order of first code: (B, d), (B,) → (G, d)."""
    _, code = group.unique(return_inverse=True)
    rows = nn.functional.normalize(z, dim=1)
    sums = rows.new_zeros(int(code.max()) + 1, z.shape[1]).index_add(0, code, rows)
    return nn.functional.normalize(sums, dim=1)
