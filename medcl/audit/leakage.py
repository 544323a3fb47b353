"""The leakage audit: patients, images or signals in both the training and the test part of a split.

It looks for three kinds of leak between training and test samples:

* patients: a patient key occurs in both parts.
* copies: two samples are the same, byte for byte.
* near-copies: two samples are the same up to scale, noise or compression, by their Pearson
  correlation. Not all pairs are compared: a random projection of the standardised samples preserves
  correlations (Johnson & Lindenstrauss 1984) and gives the nearest training samples of each test
  sample, which are then compared in full.

A copy is a leak whatever its patient keys are: it may be one patient under two numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medcl.embeddings.knn import neighbours
from medcl.errors import UsageError
from medcl.io.progress import track
from medcl.plugin import Samples

CANDIDATES = 5
"""Training samples that are compared in full with each test sample."""
ALIKE = 0.995
"""Minimum correlation of near-copies."""
WIDE = 4096
"""Longer samples are averaged over neighbouring values before they are projected."""
SKETCH = 64
"""Width of the projection."""
FLAT = b""
"""Digest of a constant sample (air, a detached lead): never a copy."""
SHOWN = 50
"""Maximum number of pairs listed per kind; all are counted."""

What = Literal["patient", "copy", "near-copy"]


@dataclass(frozen=True)
class Leak:
    """A patient or sample in both parts.

    Attributes:
        what: kind of leak.
        train: a training sample's id.
        test: a test sample's id.
        patients: their patient keys.
        alike: correlation; 1 for a copy, None for a patient.
    """

    what: What
    train: str
    test: str
    patients: tuple[str, str]
    alike: float | None = None


@dataclass(frozen=True)
class Audit:
    """Results of the audit.

    Attributes:
        train, test: numbers of samples, and
        train_patients, test_patients: of patients.
        counts: leaks of each kind.
        leaks: some of them.
        unknown: items without a known patient; each counts as one patient.
        item: the plugin's word for an item.
        sample: the study's word for a sample.
    """

    train: int
    test: int
    train_patients: int
    test_patients: int
    counts: dict[What, int]
    leaks: list[Leak]
    unknown: int = 0
    item: str = "item"
    sample: str = "sample"

    @property
    def passed(self) -> bool:
        """True if there is no leak."""
        return not any(self.counts.values())

    def as_dict(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return asdict(self) | {"passed": self.passed}

    def sentence(self) -> str:
        """The outcome in words."""
        compared = (
            f"{self.train:,} training {self.sample}s of {self.train_patients:,} patients and "
            f"{self.test:,} test {self.sample}s of {self.test_patients:,}"
        )
        if self.passed and self.unknown:
            return (
                f"Patients are unknown: each {self.item} was taken for a patient of its own "
                f"({self.unknown:,} of them), so that one patient may lie on both sides. No copy "
                f"or near-copy does: {compared} were compared."
            )
        if self.passed:
            return f"No leak: {compared} share no patient, copy or near-copy."
        names = {"patient": "patients", "copy": "copies", "near-copy": "near-copies"}
        parts = [f"{count:,} {names[what]}" for what, count in self.counts.items() if count]
        text = f"LEAK: {compared} share {' and '.join(parts)}."
        if self.unknown:
            text += f" Patients are unknown: each {self.item} was taken for a patient of its own."
        return text


def audit(
    samples: Samples,
    *splits: Sequence[str] | NDArray,
    alike: float = ALIKE,
    batch_size: int = 256,
    unknown: int = 0,
    item: str = "item",
    sample: str = "sample",
) -> Audit:
    """Look for leaks between the samples of "train" (or "validation") and those of "test".

    Args:
        samples: all samples; each is read once, candidates for near-copies twice.
        splits: one or more (the folds of a cross-validation), each (N,) of "train", "validation",
            "test", or "" for neither.
        alike: correlation from which two samples are near-copies.
        batch_size: samples per read.
        unknown, item, sample: see `Audit`.

    Raises:
        UsageError: if a part is empty.
    """
    patients = np.asarray(samples.patients)
    parts = [_parts(split) for split in splits]
    used = np.unique(np.concatenate([p for pair in parts for p in pair]))
    fingerprints = _fingerprints(samples, used, batch_size)
    row_of = np.full(len(samples), -1)
    row_of[used] = np.arange(len(used))
    leaks_of: dict[What, dict[tuple[str, str], Leak]] = {"patient": {}, "copy": {}, "near-copy": {}}
    for train, test in parts:
        known, asked = fingerprints.at(row_of[train]), fingerprints.at(row_of[test])
        copies = _copies(samples, train, test, known, asked)
        near = _near(samples, train, test, known, asked, alike, {c.test for c in copies})
        for leak in (*_patients(samples, patients, train, test), *copies, *near):
            one, other = leak.patients if leak.what == "patient" else (leak.train, leak.test)
            leaks_of[leak.what].setdefault((min(one, other), max(one, other)), leak)
    tested = np.unique(np.concatenate([test for _, test in parts]))
    trained = np.unique(np.concatenate([train for train, _ in parts]))
    return Audit(
        train=len(trained),
        test=len(tested),
        train_patients=len(set(patients[trained])),
        test_patients=len(set(patients[tested])),
        counts={what: len(leaks) for what, leaks in leaks_of.items()},
        leaks=[leak for leaks in leaks_of.values() for leak in list(leaks.values())[:SHOWN]],
        unknown=unknown,
        item=item,
        sample=sample,
    )


def _parts(split: Sequence[str] | NDArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    part = np.asarray(split)
    train = np.flatnonzero(np.isin(part, ("train", "validation")))
    test = np.flatnonzero(part == "test")
    if not len(train) or not len(test):
        raise UsageError("A leakage audit needs training and test samples.")
    return train, test


def _patients(samples: Samples, patients: NDArray, train: NDArray, test: NDArray) -> list[Leak]:
    """One leak for every patient in both parts."""
    first = {patients[p]: p for p in train[::-1]}
    other = {patients[p]: p for p in test[::-1]}
    return [
        Leak("patient", samples.ids[first[key]], samples.ids[other[key]], (str(key), str(key)))
        for key in sorted(first.keys() & other.keys())
    ]


@dataclass(frozen=True)
class _Fingerprints:
    """Fingerprints of samples: (n,) digests of the bytes, (n, SKETCH) projections."""

    digests: list[bytes]
    sketch: NDArray[np.float32]

    def at(self, rows: NDArray[np.int64]) -> _Fingerprints:
        """Fingerprints of some samples."""
        return _Fingerprints([self.digests[row] for row in rows], self.sketch[rows])


def _fingerprints(samples: Samples, positions: NDArray, batch_size: int) -> _Fingerprints:
    """Read samples once."""
    digests: list[bytes] = []
    sketches: list[NDArray[np.float32]] = []
    parts = np.split(positions, range(batch_size, len(positions), batch_size))
    for part in track(parts, "audit", total=len(parts)):
        for row in _split(samples.read(part), len(part)):
            data = np.ascontiguousarray(row).tobytes()
            flat = row.size == 0 or bool((row == row.flat[0]).all())
            digests.append(FLAT if flat else hashlib.blake2b(data, digest_size=16).digest())
            sketches.append(_sketch(row))
    return _Fingerprints(digests, np.stack(sketches))


def _sketch(row: NDArray) -> NDArray[np.float32]:
    """A short projection of a sample: cosines approximate correlations."""
    flat = np.nan_to_num(row.astype(np.float32)).ravel()
    flat = (
        np.array([part.mean() for part in np.array_split(flat, WIDE)]) if len(flat) > WIDE else flat
    )
    flat = flat - flat.mean()
    projected: NDArray[np.float32] = flat @ _projection(len(flat))
    return projected


@lru_cache(maxsize=8)
def _projection(width: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(width, SKETCH)).astype(np.float32)


def _copies(
    samples: Samples, train: NDArray, test: NDArray, known: _Fingerprints, asked: _Fingerprints
) -> list[Leak]:
    """Test samples whose bytes are those of a training sample."""
    row_of = dict(zip(known.digests, train, strict=True))
    return [
        _pair("copy", samples, row_of[digest], p, 1.0)
        for p, digest in zip(test, asked.digests, strict=True)
        if digest != FLAT and digest in row_of
    ]


def _split(batch: Mapping[str, NDArray], count: int) -> list[NDArray]:
    """A batch's samples one by one; bags come packed."""
    x = np.asarray(batch["x"])
    if "bag" not in batch:
        return list(x)
    bag = np.asarray(batch["bag"])
    return [x[bag == number] for number in range(count)]


def _near(
    samples: Samples,
    train: NDArray,
    test: NDArray,
    known: _Fingerprints,
    asked: _Fingerprints,
    alike: float,
    copies: set[str],
) -> list[Leak]:
    """Test samples that correlate with one of their nearest training samples, copies left out."""
    similar, where = neighbours(asked.sketch, known.sketch, k=CANDIDATES)
    slack = 4 * (1 - alike**2) / np.sqrt(SKETCH) + 0.05  # error bound of the projection
    leaks = []
    for p, near, candidates in zip(test, similar, where, strict=True):
        candidates = candidates[near >= alike - slack]
        if samples.ids[p] in copies or not len(candidates):
            continue
        rows = np.concatenate([[p], train[candidates]])
        own, *others = _split(samples.read(rows), len(rows))
        for other, row in zip(others, candidates, strict=True):
            r = _correlation(own, other)
            if r >= alike:
                leaks.append(_pair("near-copy", samples, train[row], p, round(r, 4)))
                break
    return leaks


def _correlation(a: NDArray, b: NDArray) -> float:
    """Pearson's r of two samples; 0 if one is constant or their shapes differ."""
    if a.shape != b.shape:
        return 0.0
    one, other = (np.nan_to_num(v.astype(np.float64)).ravel() for v in (a, b))
    one, other = one - one.mean(), other - other.mean()
    norm = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / norm if norm > 0 else 0.0


def _pair(what: What, samples: Samples, train: int, test: int, alike: float) -> Leak:
    return Leak(
        what,
        samples.ids[train],
        samples.ids[test],
        (samples.patients[train], samples.patients[test]),
        alike,
    )
