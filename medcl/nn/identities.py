"""A momentum memory of the embeddings of each patient."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medcl.nn.distributed import ALONE, Ranks
from medcl.nn.queue import MISSING


class Identities(nn.Module):
    """One embedding for each patient, the average of those so far, equal on all ranks.

    ê_t = (1 − β)·ê_{t−1} + β·e_t,  β = max(0, mean_{i<t} cos(e_i, e_t)),  ê_1 = e_1

    as in the authors' code of CTVIS (Ying 2023, arXiv 2307.12616): an embedding that is unlike the
    earlier ones hardly moves the average. A patient has the place ``code % size``. All state is in
    buffers, so a checkpoint holds it.
    """

    average: Tensor  # (size, width) ê
    sums: Tensor  # (size, width) Σ e_i of unit embeddings
    counts: Tensor  # (size,) t
    owners: Tensor  # (size,) patient codes, −1 where nobody is remembered

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.register_buffer("average", torch.zeros(size, width))
        self.register_buffer("sums", torch.zeros(size, width))
        self.register_buffer("counts", torch.zeros(size, dtype=torch.long))
        self.register_buffer("owners", torch.full((size,), MISSING))

    def knows(self, patients: Tensor) -> Tensor:
        """Which of the patients (B,) are remembered: (B,) bool."""
        return self.owners[patients % len(self.owners)] == patients

    @torch.no_grad()
    def remember(
        self, e: Tensor, patients: Tensor, *, noise: float = 0.0, ranks: Ranks = ALONE
    ) -> None:
        """Add this rank's embeddings and every other rank's; of one patient's, their direction.

        Args:
            e: (B, width), of any length.
            patients: (B,) codes, 0 or more.
            noise: the share of samples in whose place another of the batch is remembered.
            ranks: the other processes; all must hold the same B.
        """
        mistaken = ranks.gather(torch.rand(len(e), device=e.device)) < noise
        other = ranks.gather(torch.rand(len(e), device=e.device))
        e = ranks.gather(F.normalize(e.detach().to(self.average.dtype), dim=1))
        patients = ranks.gather(patients.long())
        e = torch.where(mistaken[:, None], e[(other * len(e)).long()], e)
        same = (patients[:, None] == patients).to(e.dtype)
        e = F.normalize(same @ e, dim=1)  # (N, width), equal for the rows of one patient

        place = patients % len(self.owners)
        known = self.knows(patients)[:, None]
        before = self.counts[place] * known[:, 0]
        sums = torch.where(known, self.sums[place], 0.0)
        likeness = (sums * e).sum(dim=1) / before.clamp_min(1)
        beta = torch.where(before > 0, likeness.clamp_min(0), 1.0)[:, None]
        average = (1 - beta) * torch.where(known, self.average[place], 0.0) + beta * e

        # Where two patients share a place the last row's takes it: all its rows write the same.
        rows = torch.arange(len(place), device=place.device)
        last = torch.zeros_like(self.owners).scatter_reduce(0, place, rows, "amax")[place]
        self.average[place], self.sums[place] = average[last], (sums + e)[last]
        self.counts[place], self.owners[place] = before[last] + 1, patients[last]
