"""Planning and reading micro-batches.

Micro-batch number m is the m-th forward pass of the run, counted over all epochs; its content is a
function of (seed, m, rank). A resumed run starts at any m without replaying earlier batches.
The m-th *global* batch is split over ranks, so W ranks × B see the samples of one process × W·B.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from medcl.engine.positives import drawn, near
from medcl.errors import UsageError
from medcl.plugin import Samples
from medcl.seeds import DRAW, ORDER, derive
from medcl.strings import codes, distinct, encoded

Read = Callable[..., dict[str, np.ndarray]]
"""`Samples.read`, of positions; or `Samples.draw`, of positions and seeds."""

PARTNER = "partner."
"""Prefix of batch keys of the partner, another sample of the patient, for methods that need one."""


@dataclass(frozen=True)
class Selection:
    """The samples of pretraining.

    Attributes:
        samples: all samples of the index.
        rows: positions in ``samples`` of those that are trained on.
        patients: a code for each of ``rows``, 0 … P−1.
        label: a number for each of ``rows`` (−1 or NaN where missing), or None.
        site: a code for each of ``rows``, 0 the largest site, −1 where unknown; or None.
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
        """Sampling weights of ``rows``, or None: all equal.

        Raises:
            UsageError: if a weight is missing, zero or not finite.
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
        """Positions among ``rows`` of the positive partners of each (N, P), padded with −1.

        Partners are of the same patient, even if a group holds several. None if the samples have
        no locations: then any other sample of the patient is a partner.
        """
        samples, rows = self.samples, self.rows
        if samples.locations is None:
            return None
        items = codes(encoded(samples.items).at(rows))
        groups = items if samples.groups is None else codes(encoded(samples.groups).at(rows))
        pairs = np.stack([self.patients, groups], axis=1)
        _, pair_codes = np.unique(pairs, axis=0, return_inverse=True)
        return near(pair_codes.ravel(), items, samples.locations[rows], samples.reach)


def select(
    samples: Samples,
    split: dict[str, str],
    label: str | None = None,
    sites: Mapping[str, str | None] | None = None,
    *,
    all_patients: bool = False,
) -> Selection:
    """Keep the samples of training patients, or of all patients: test samples lose their label.

    Args:
        samples: all samples.
        split: patient key → "train" or "test".
        label: the label for the method; None: the only one, if there is one. If the samples lack
            the named label, the method gets none, never another one instead.
        sites: item → site key, None where unknown.
        all_patients: train on test patients too, without their labels.

    Raises:
        UsageError: if no sample belongs to a training patient.
    """
    trained = ("train", "test") if all_patients else ("train",)
    patients = encoded(samples.patients)
    selected = np.array([split.get(patient) in trained for patient in patients.names], bool)
    rows = np.flatnonzero(selected[patients.codes])
    if not rows.size:
        raise UsageError(
            f"None of the {len(samples):,} samples belongs to a training patient. "
            "Loosen the dataset settings, or lower split.test."
        )
    patients = patients.at(rows)
    keys, code = distinct(patients), codes(patients)
    assert all(split[key] in trained for key in keys), "a test patient among the training samples"
    if label is None and len(samples.labels) == 1:
        (label,) = samples.labels
    column = None if label is None else samples.labels.get(label)
    values = None if column is None else numbers(np.asarray(column))[rows]
    if values is not None and all_patients:
        hidden = np.array([split[key] == "test" for key in keys])[code]
        values[hidden] = np.nan if values.dtype.kind == "f" else -1
    site = None
    if sites is not None:
        items = encoded(samples.items).at(rows)
        site = by_size([sites.get(item) for item in items.names], items.codes)
    return Selection(samples, rows, code, values, site)


def by_size(names: Sequence[str | None], positions: np.ndarray | None = None) -> np.ndarray:
    """Names as codes by frequency: 0 the most frequent (ties by name), −1 for None.

    With ``positions`` (N,): the codes of ``names[positions]``.
    """
    at = np.arange(len(names)) if positions is None else positions
    counts: Counter[str] = Counter()
    for name, count in zip(names, np.bincount(at, minlength=len(names)).tolist(), strict=True):
        if name is not None and count:
            counts[name] += count
    order = sorted(counts, key=lambda name: (-counts[name], name))
    code = {name: number for number, name in enumerate(order)}
    return np.array([-1 if name is None else code.get(name, -1) for name in names], np.int64)[at]


def numbers(label: np.ndarray) -> np.ndarray:
    """A label column as numbers: names become 0, 1, … in sorted order, missing ones −1."""
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
    """One epoch of samples in random order (N,): each once, or drawn by weight (`weighted`)."""
    random = np.random.default_rng(derive(seed, ORDER, epoch))
    order = random.permutation(len(patients))
    return order if weights is None else weighted(patients, weights, random)[order]


def weighted(patients: np.ndarray, weights: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Samples drawn by weight; each patient keeps its number of draws: positions (N,), by patient.

    Systematic sampling: a sample with n times the mean weight of its patient is drawn ⌊n⌋ or ⌈n⌉
    times, so that its share is right over the epochs, and no patient gains draws.

    Args:
        patients: (N,) codes 0 … P−1, each present.
        weights: (N,) above zero.
        random: draws the offset of each patient.
    """
    order = np.argsort(patients, kind="stable")
    patient, weight = patients[order], weights[order].astype(np.float64)
    counts = np.bincount(patients)
    ends = np.cumsum(counts)
    upper = np.cumsum(weight / np.bincount(patient, weight)[patient] * counts[patient])
    # Rounding, of the sums or of an offset just below one, must not move a draw to another patient.
    upper = np.clip(upper, (ends - counts)[patient], ends[patient])
    upper[ends - 1] = ends
    draws = np.arange(len(order)) + random.random(len(counts))[patient] * (1 - 1e-9)
    return order[np.searchsorted(upper, draws, side="right")]


def paired(
    patients: np.ndarray,
    seed: int,
    epoch: int,
    partners: np.ndarray | None = None,
    weights: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """One epoch of pairs of samples of the same patient: anchors (N,), partners (N,).

    Patients take turns: every patient is drawn once before any is drawn again. So patients weigh
    the same however much they recorded, and a batch of B ≤ P anchors holds B different patients.
    This follows the idea of Abbaspourazad 2024 (arXiv 2312.05409), who do not publish their exact
    rule. With P < B a patient appears several times in a batch; methods exclude them from the
    negatives by ``batch["patient"]``. The samples of a patient take turns too. The partner is
    another sample of the patient, or one of its ``partners`` if they are given; a sample without
    any is paired with itself.

    Args:
        patients: (N,) codes 0 … P−1, each present.
        seed: the run's seed.
        epoch: number of the epoch.
        partners: (N, P) positions, padded with −1; see `medcl.engine.positives`.
        weights: (N,) sampling weights within a patient; see `weighted`. A sample that is drawn
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
    visit = np.arange(size) // len(counts)  # earlier draws of this patient
    count = counts[turns]
    anchor = visit % count
    anchors = by_patient[starts[turns] + anchor]
    if partners is not None:
        return anchors, drawn(partners, anchors, random)
    step = 1 + np.floor(random.random(size) * (count - 1)).astype(np.int64)  # 1 … count − 1
    partner = (anchor + np.where(count > 1, step, 0)) % count
    return anchors, by_patient[starts[turns] + partner]


def some_pairs(
    patients: np.ndarray,
    count: int,
    random: np.random.Generator,
    partners: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """At most ``count`` different anchors (M,), sorted, and a partner of each (M,): see `paired`.

    Patients take turns. Partners are drawn only for the anchors, however many samples there are.

    Args:
        patients: (N,) codes 0 … P−1, each present.
        count: how many anchors.
        random: draws anchors and partners.
        partners: (N, P) positions, padded with −1; see `medcl.engine.positives`.
    """
    order = np.argsort(patients, kind="stable")
    counts = np.bincount(patients)
    starts = np.cumsum(counts) - counts
    takes = _turns(counts, min(count, len(patients)), random)
    chosen = [
        starts[patient] + random.choice(counts[patient], take, replace=False, shuffle=False)
        for patient, take in enumerate(takes.tolist())
        if take
    ]
    position = np.concatenate(chosen)  # in ``order``
    anchors = order[position]
    if partners is not None:
        others = drawn(partners, anchors, random)
    else:
        size, first = counts[patients[anchors]], starts[patients[anchors]]
        step = 1 + np.floor(random.random(len(position)) * (size - 1)).astype(np.int64)
        others = order[first + (position - first + np.where(size > 1, step, 0)) % size]
    rank = np.argsort(anchors)
    return anchors[rank], others[rank]


def _turns(counts: np.ndarray, total: int, random: np.random.Generator) -> np.ndarray:
    """How many of each patient's ``counts`` (P,) are taken in turns, ``total`` in all."""
    takes = np.zeros_like(counts)
    while (left := total - takes.sum()) > 0:
        remaining = random.permutation(np.flatnonzero(takes < counts))
        each = max(1, min(left // len(remaining), (counts - takes)[remaining].min()))
        takes[remaining[:left]] += each
    return takes


def check_fills(selection: Selection, batch_size: int, world: int) -> None:
    """Check that the training samples fill a batch.

    Raises:
        UsageError: if there are fewer samples than one batch of all ranks.
    """
    if len(selection) < batch_size * world:
        where = f" on each of {world} devices" if world > 1 else ""
        raise UsageError(
            f"{len(selection):,} training samples do not fill a batch of {batch_size:,}{where}: "
            f"set trainer.batch_size to at most {len(selection) // world:,}."
        )


@dataclass(frozen=True)
class Part:
    """Samples to read, and batch keys that need no reading: name → (B, ...)."""

    rows: np.ndarray  # (B,) positions of samples
    keys: Mapping[str, np.ndarray]
    seeds: np.ndarray | None = None  # (B,) of what is drawn anew; None: nothing is

    def read(self, read: Read) -> dict[str, Tensor]:
        """The arrays that the plugin reads, and the keys, as tensors."""
        arrays = read(self.rows) if self.seeds is None else read(self.rows, self.seeds)
        return {key: tensor(value) for key, value in {**arrays, **self.keys}.items()}


@dataclass(frozen=True)
class Planned:
    """A micro-batch before reading, as it is sent to a loader process."""

    number: int
    anchors: Part
    partners: Part | None

    def read(self, read: Read) -> tuple[int, dict[str, Tensor]]:
        """The micro-batch, with its number."""
        batch = self.anchors.read(read)
        if self.partners is not None:
            other = self.partners.read(read)
            batch |= {PARTNER + key: value for key, value in other.items()}
        return self.number, batch


class Batches:
    """Micro-batches by number; see the module's docstring."""

    def __init__(
        self,
        selection: Selection,
        *,
        batch_size: int,
        seed: int,
        pairs: bool,
        rank: int = 0,
        world: int = 1,
        anew: bool = False,
    ) -> None:
        """``batch_size`` is that of one rank; ``pairs`` adds a partner to each anchor; ``anew``
        draws samples by the micro-batch, where they can be (`medcl.plugin.Samples.draw`)."""
        self._anew = anew and not pairs and selection.samples.draw is not None
        self.read: Read = selection.samples.read
        if self._anew and selection.samples.draw is not None:
            self.read = selection.samples.draw
        total = batch_size * world
        self.selection = selection
        self.seed = seed
        self.pairs = pairs
        self.per_epoch = len(selection) // total  # full batches only
        self._total = total
        self._of_rank = slice(rank * batch_size, (rank + 1) * batch_size)
        self._order: tuple[int, np.ndarray, np.ndarray | None] = (-1, np.empty(0), None)

    def __getitem__(self, number: int) -> tuple[int, dict[str, Tensor]]:
        return self.plan(number).read(self.read)

    def plan(self, number: int) -> Planned:
        """The samples of micro-batch ``number``."""
        epoch, index = divmod(number, self.per_epoch)
        anchors, partners = self._epoch(epoch)
        batch = slice(index * self._total, (index + 1) * self._total)
        return Planned(
            number,
            self._part(anchors[batch][self._of_rank], self._seeds(number)),
            None if partners is None else self._part(partners[batch][self._of_rank]),
        )

    def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray | None]:
        if self._order[0] != epoch:
            selection = self.selection
            patients, weights = selection.patients, selection.weights
            if self.pairs:
                pairs = paired(patients, self.seed, epoch, selection.partners, weights)
                self._order = (epoch, *pairs)
            else:
                self._order = (epoch, shuffled(patients, self.seed, epoch, weights), None)
        return self._order[1:]

    def _seeds(self, number: int) -> np.ndarray | None:
        """A seed for each anchor of this rank, of (seed, number), if reading is random."""
        if not self._anew:
            return None
        state = np.random.SeedSequence((self.seed, DRAW, number))
        return state.generate_state(self._total, np.uint64)[self._of_rank]

    def _part(self, positions: np.ndarray, seeds: np.ndarray | None = None) -> Part:
        """The samples at ``positions`` (B,) of the selection."""
        selection = self.selection
        rows = selection.rows[positions]
        keys = {"patient": selection.patients[positions], "index": rows}
        if selection.site is not None:
            keys["site"] = selection.site[positions]
        if selection.label is not None:
            keys["label"] = selection.label[positions]
        return Part(rows, keys, seeds)


def tensor(array: np.ndarray) -> Tensor:
    """As a tensor, sharing memory where that is safe."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())


class _From(Sampler[Planned]):
    """Plans ``first`` … ``total − 1``; its length is ``total``, as the loop counts from 0."""

    def __init__(self, batches: Batches, first: int, total: int) -> None:
        self.batches, self.first, self.total = batches, first, total

    def __iter__(self) -> Iterator[Planned]:
        return map(self.batches.plan, range(self.first, self.total))

    def __len__(self) -> int:
        return self.total


@dataclass(frozen=True)
class _Reader(Dataset[tuple[int, dict[str, Tensor]]]):
    """The function that reads: all that a loader process holds. It gets a plan for each batch."""

    read: Read

    def __getitem__(self, planned: Planned) -> tuple[int, dict[str, Tensor]]:
        return planned.read(self.read)


def loader(
    batches: Batches, *, first: int, total: int, workers: int, pin_memory: bool
) -> DataLoader[tuple[int, dict[str, Tensor]]]:
    """Micro-batches ``first`` … ``total − 1``, in order, read by ``workers`` processes."""
    return DataLoader(
        _Reader(batches.read),
        batch_size=None,  # a micro-batch is read as a whole
        sampler=_From(batches, first, total),
        num_workers=workers,
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
    )
