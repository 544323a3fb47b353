"""Which samples are in which micro-batch, and reading them.

Micro-batch number m is the m-th forward pass of the run, counted over all epochs; its content is a
function of (seed, m, rank). A resumed run starts at any m without replaying what came before.
The m-th *global* batch is cut into ranks, so W ranks × B see what one process with W·B sees.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from medcl.engine.positives import drawn, near
from medcl.errors import UsageError
from medcl.plugin import Samples
from medcl.seeds import ORDER, derive

PARTNER = "partner."
"""Prefix of what was read for the other sample of the same patient, where a method asks for one."""


@dataclass(frozen=True)
class Selection:
    """The samples that are trained on.

    Attributes:
        samples: all samples of the index.
        rows: positions in ``samples`` that may be trained on.
        patients: a code for each of ``rows``, 0 … P−1.
        label: a number for each of ``rows`` (−1 or NaN where missing), or None.
        site: a code for each of ``rows``, 0 the site with most of them, −1 where unknown; or None.
    """

    samples: Samples
    rows: np.ndarray  # (N,) int64
    patients: np.ndarray  # (N,) int64
    label: np.ndarray | None = None  # (N, ...)
    site: np.ndarray | None = None  # (N,) int64

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def weights(self) -> np.ndarray | None:
        """How often each of ``rows`` is drawn, or None: all alike.

        Raises:
            UsageError: if a weight is missing, zero, or no number.
        """
        if self.samples.weights is None:
            return None
        weights = np.asarray(self.samples.weights, np.float64)
        if (
            weights.shape != (len(self.samples),)
            or not (weights > 0).all()
            or not (np.isfinite(weights).all())
        ):
            raise UsageError(
                f"The plugin's samples have weights of shape {weights.shape}: there must be one "
                f"for each of {len(self.samples):,} samples, finite and above zero."
            )
        return weights[self.rows]

    @cached_property
    def partners(self) -> np.ndarray | None:
        """Positions among ``rows`` of each one's positive partners (N, P), −1 where it has fewer.

        Never of another patient, whatever the groups say. None where the samples do not say where
        they lie: then any other of the patient is one.
        """
        samples, rows = self.samples, self.rows
        if samples.places is None:
            return None
        _, items = np.unique(np.asarray(samples.items)[rows], return_inverse=True)
        groups = items
        if samples.groups is not None:
            _, groups = np.unique(np.asarray(samples.groups)[rows], return_inverse=True)
        pairs = np.stack([self.patients, groups.astype(np.int64)], axis=1)
        _, apart = np.unique(pairs, axis=0, return_inverse=True)
        return near(apart.ravel(), items, samples.places[rows], samples.reach)


def select(
    samples: Samples,
    split: dict[str, str],
    label: str | None = None,
    sites: Mapping[str, str | None] | None = None,
    *,
    everyone: bool = False,
) -> Selection:
    """Keep the samples of training patients, or of all: those of test patients lose their label.

    Args:
        samples: all samples.
        split: patient key → "train" or "test".
        label: which label to hand to the method; without a name, the only one there is. Where the
            named one is absent, none is handed over: never another in its place.
        sites: item → site key, None where unknown.
        everyone: whether test patients are learnt from too, without labels.

    Raises:
        UsageError: if no sample belongs to a training patient.
    """
    learnt = ("train", "test") if everyone else ("train",)
    rows = np.flatnonzero([split.get(patient) in learnt for patient in samples.patients])
    if not rows.size:
        raise UsageError(
            f"None of the {len(samples):,} samples belongs to a training patient. "
            "Loosen the dataset settings, or lower split.test."
        )
    keys, codes = np.unique(np.asarray(samples.patients)[rows], return_inverse=True)
    assert all(split[key] in learnt for key in keys), "a test patient among the training samples"
    if label is None and len(samples.labels) == 1:
        (label,) = samples.labels
    column = None if label is None else samples.labels.get(label)
    values = None if column is None else numbers(np.asarray(column))[rows]
    if values is not None and everyone:
        hidden = np.array([split[key] == "test" for key in keys])[codes]
        values[hidden] = np.nan if values.dtype.kind == "f" else -1
    site = None
    if sites is not None:
        site = by_size([sites.get(samples.items[row]) for row in rows.tolist()])
    return Selection(samples, rows, codes.astype(np.int64), values, site)


def by_size(names: Sequence[str | None]) -> np.ndarray:
    """Names as codes: 0 the most frequent one (of equals the first by name), −1 for None."""
    counts = Counter(name for name in names if name is not None)
    order = sorted(counts, key=lambda name: (-counts[name], name))
    code = {name: number for number, name in enumerate(order)}
    return np.array([-1 if name is None else code[name] for name in names], np.int64)


def numbers(label: np.ndarray) -> np.ndarray:
    """A label column as numbers: names become 0, 1, … in sorted order, a missing one −1."""
    if label.dtype.kind in "biu":
        return label.astype(np.int64)
    if label.dtype.kind == "f":
        return label.astype(np.float32)
    names = sorted({str(value) for value in label if value is not None and value != ""})
    codes = {name: code for code, name in enumerate(names)}
    return np.array([codes.get(str(v), -1) if v is not None else -1 for v in label], np.int64)


def shuffled(
    patients: np.ndarray, seed: int, epoch: int, weights: np.ndarray | None = None
) -> np.ndarray:
    """One epoch over samples in random order, each once, or as often as `weighted` says: (N,)."""
    random = np.random.default_rng(derive(seed, ORDER, epoch))
    order = random.permutation(len(patients))
    return order if weights is None else weighted(patients, weights, random)[order]


def weighted(patients: np.ndarray, weights: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Samples drawn by weight, each patient as often as it has samples: positions (N,), by patient.

    Systematic: a sample with n times the mean weight of its patient is drawn ⌊n⌋ or ⌈n⌉ times, so
    that over the epochs each has its share, and nobody crowds the others out.

    Args:
        patients: (N,) codes 0 … P−1, each present.
        weights: (N,) above zero.
        random: where in the sample's share the drawing begins, for each patient.
    """
    order = np.argsort(patients, kind="stable")
    owner, weight = patients[order], weights[order].astype(np.float64)
    counts = np.bincount(patients)
    ends = np.cumsum(counts)
    upto = np.cumsum(weight / np.bincount(owner, weight)[owner] * counts[owner])
    # No rounding takes a draw to somebody else: not of the sums, nor of what is all but one.
    upto = np.clip(upto, (ends - counts)[owner], ends[owner])
    upto[ends - 1] = ends
    draws = np.arange(len(order)) + random.random(len(counts))[owner] * (1 - 1e-9)
    return order[np.searchsorted(upto, draws, side="right")]


def paired(
    patients: np.ndarray,
    seed: int,
    epoch: int,
    partners: np.ndarray | None = None,
    weights: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """One epoch of pairs of samples of the same patient: anchors (N,), partners (N,).

    Patients take turns: every patient is drawn once before any is drawn again, so all count alike
    however much they recorded, and a batch of B ≤ P anchors holds B different patients. That is in
    the spirit of Abbaspourazad 2024 (arXiv 2312.05409), whose exact rule for filling a batch we
    could not look up. With P < B a patient appears several times in a batch; methods tell them
    apart from negatives by ``batch["patient"]``. Within a patient the samples take turns too. The
    partner is another sample of the patient, or one of its ``partners`` where they are given; a
    sample without any is paired with itself.

    Args:
        patients: (N,) codes 0 … P−1, each present.
        seed: the run's seed.
        epoch: which pass.
        partners: (N, P) positions, −1 where there are fewer; see `medcl.engine.positives`.
        weights: (N,) how often each is drawn among its patient's; see `weighted`. One that is drawn
            twice may become its own partner.
    """
    random = np.random.default_rng(derive(seed, ORDER, epoch))
    size = len(patients)
    chosen = np.arange(size) if weights is None else weighted(patients, weights, random)
    # grouped by patient, shuffled within each group
    by_patient = chosen[np.lexsort((random.random(size), patients[chosen]))]
    counts = np.bincount(patients)
    starts = np.cumsum(counts) - counts
    rounds = -(-size // len(counts))
    turns = random.permuted(np.tile(np.arange(len(counts)), (rounds, 1)), axis=1).ravel()[:size]
    visit = np.arange(size) // len(counts)  # how often this patient was drawn before
    count = counts[turns]
    anchor = visit % count
    anchors = by_patient[starts[turns] + anchor]
    if partners is not None:
        return anchors, drawn(partners, anchors, random)
    step = 1 + np.floor(random.random(size) * (count - 1)).astype(np.int64)  # 1 … count − 1
    partner = (anchor + np.where(count > 1, step, 0)) % count
    return anchors, by_patient[starts[turns] + partner]


def check_fills(selection: Selection, batch_size: int, world: int) -> None:
    """Refuse batches that the training samples cannot fill.

    Raises:
        UsageError: if there are fewer samples than one batch of all ranks.
    """
    if len(selection) < batch_size * world:
        where = f" on each of {world} devices" if world > 1 else ""
        raise UsageError(
            f"{len(selection):,} training samples do not fill a batch of {batch_size:,}{where}: "
            f"set trainer.batch_size to at most {len(selection) // world:,}."
        )


class Batches(Dataset[tuple[int, dict[str, Tensor]]]):
    """Micro-batches by number. See the module's docstring."""

    def __init__(
        self,
        selection: Selection,
        *,
        batch_size: int,
        seed: int,
        pairs: bool,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """``batch_size`` is that of one rank; ``pairs`` adds a partner to each anchor."""
        total = batch_size * world
        self.selection = selection
        self.seed = seed
        self.pairs = pairs
        self._partners = selection.partners if pairs else None  # once, not in every loader process
        self.per_epoch = len(selection) // total  # full batches only
        self._total = total
        self._mine = slice(rank * batch_size, (rank + 1) * batch_size)
        self._order: tuple[int, np.ndarray, np.ndarray | None] = (-1, np.empty(0), None)

    def __getitem__(self, number: int) -> tuple[int, dict[str, Tensor]]:
        epoch, place = divmod(number, self.per_epoch)
        anchors, partners = self._epoch(epoch)
        here = slice(place * self._total, (place + 1) * self._total)
        batch = self._read(anchors[here][self._mine])
        if partners is not None:
            other = self._read(partners[here][self._mine])
            batch |= {PARTNER + key: value for key, value in other.items()}
        return number, batch

    def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray | None]:
        if self._order[0] != epoch:
            patients, weights = self.selection.patients, self.selection.weights
            if self.pairs:
                pairs = paired(patients, self.seed, epoch, self._partners, weights)
                self._order = (epoch, *pairs)
            else:
                self._order = (epoch, shuffled(patients, self.seed, epoch, weights), None)
        return self._order[1:]

    def _read(self, chosen: np.ndarray) -> dict[str, Tensor]:
        """Read selection entries ``chosen`` (B,): what the plugin reads, and the keys."""
        selection = self.selection
        rows = selection.rows[chosen]
        arrays = dict(selection.samples.read(rows))
        arrays |= {"patient": selection.patients[chosen], "index": rows}
        if selection.site is not None:
            arrays["site"] = selection.site[chosen]
        if selection.label is not None:
            arrays["label"] = selection.label[chosen]
        return {key: tensor(value) for key, value in arrays.items()}


def tensor(array: np.ndarray) -> Tensor:
    """As a tensor, sharing memory where that is safe."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())


class _From(Sampler[int]):
    """The numbers ``first`` … ``total − 1``; its length is ``total``, as the loop counts from 0."""

    def __init__(self, first: int, total: int) -> None:
        self.first, self.total = first, total

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first, self.total))

    def __len__(self) -> int:
        return self.total


def loader(
    batches: Batches, *, first: int, total: int, workers: int, pin_memory: bool
) -> DataLoader[tuple[int, dict[str, Tensor]]]:
    """Micro-batches ``first`` … ``total − 1``, in order, read by ``workers`` processes."""
    return DataLoader(
        batches,
        batch_size=None,  # a micro-batch is read as a whole
        sampler=_From(first, total),
        num_workers=workers,
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
    )
