"""Is the same place found again? A figure without labels, for samples that say where they lie.

The encoder is shown a transformed view of a sample of a test patient, and looks for it among the
samples of the other items of its group as they are (another kernel of the same scan), or of its own
item where there is no other. How far away from the true place is the one that is most alike?
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from medcl.embeddings.embeddings import embed, take
from medcl.engine.data import tensor
from medcl.errors import MedclError, UsageError
from medcl.io.atomic import write_text
from medcl.plugin import Samples, Views
from medcl.probe.result import PRETRAINED, RANDOM
from medcl.reading import read_json
from medcl.registry import resolve
from medcl.run import Run, load_samples
from medcl.seeds import generator

CHANCE = "chance"
DRAWS = 3
"""Views of each sample, and untrained encoders: the figures are means over them."""
QUERIES = 2000
"""Samples that are looked for, at most."""
_PLACES = 0x9C1


@dataclass(frozen=True)
class Finding:
    """How well one representation finds places.

    Attributes:
        representation: "pretrained", "random" (encoders as initialised), or "chance".
        distance: from the true place to the one found; the mean over queries of a patient, then
            over patients.
        found: share of queries whose find is the nearest there is, averaged alike.
    """

    representation: str
    distance: float
    found: float


@dataclass(frozen=True)
class Places:
    """The figures, and what they rest on.

    Attributes:
        queries: samples looked for, each in `DRAWS` views.
        patients: of them; none was trained on.
        across: share of queries that were looked for in another item than their own.
        among: how many samples a query was looked for in, on average.
        unit: of the distances.
    """

    queries: int
    patients: int
    across: float
    among: float
    unit: str
    findings: list[Finding] = field(default_factory=list)

    @property
    def title(self) -> str:
        """What was done, in one line."""
        where = "in another reconstruction" if self.across > 0.5 else "among its neighbours"
        return f"The same place, found again {where} from a transformed view"

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Heads and rows, for a terminal."""
        heads = ["features", f"away, {self.unit}".rstrip(", "), "found exactly"]
        rows = [[f.representation, f"{f.distance:.1f}", f"{f.found:.0%}"] for f in self.findings]
        return heads, rows

    def verdict(self) -> str:
        """What may be concluded, and what not."""
        people = "1 patient" if self.patients == 1 else f"{self.patients} patients"
        text = (
            f"{self.queries} samples of {people} that nothing was trained on, each among "
            f"{self.among:.0f}, in {DRAWS} views."
        )
        if self.patients < 5:
            text += " Too few people for an interval: no figure here speaks of other patients."
        return text

    def as_dict(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return asdict(self)

    @classmethod
    def load(cls, path: Path) -> Places:
        """Read what `places` wrote.

        Raises:
            MedclError: if it is damaged.
        """
        raw: Mapping[str, Any] = read_json(path, "Make it anew: medcl probe RUN")
        findings = [Finding(**one) for one in raw["findings"]]
        return cls(**{**raw, "findings": findings})


def can_say(samples: Samples) -> bool:
    """Whether samples say where they lie."""
    return samples.places is not None and bool(np.isfinite(samples.places).all(axis=1).any())


def places(run: Run, *, data: Path | None = None, batch_size: int = 256) -> Places:
    """Look for every sample of the test patients, and write RUN/places.json.

    Args:
        run: a finished run.
        data: the index; None for the one that the run was trained on.
        batch_size: samples a forward pass.

    Raises:
        UsageError: if the samples do not say where they lie, or no test patient has two.
    """
    samples = load_samples(run.recipe, data or run.data)
    if not can_say(samples):
        raise UsageError(
            "These samples do not say where they lie, so there is no place to be found again. "
            "Name a task: medcl probe RUN --task NAME"
        )
    split = run.split()
    mine = [n for n, who in enumerate(samples.patients) if split.get(who) == "test"]
    samples = take(samples, np.array(mine, dtype=np.int64))
    where = list(_searched(samples))
    if not where:
        raise UsageError("No test patient has two samples in one space, so nothing can be found.")
    views = resolve(run.plugin.views)(**run.recipe.views)
    asked = np.array([query for query, _ in where])
    encoders = [(PRETRAINED, run.encoder())]
    encoders += [(RANDOM, run.encoder(trained=False, seed=seed)) for seed in range(DRAWS)]
    away: dict[str, list[NDArray[np.float64]]] = {}
    for name, encoder in encoders:
        bank = embed(encoder, samples, batch_size=batch_size, label=name).x
        for draw in range(DRAWS):
            query = _viewed(encoder, samples, asked, views, run.recipe.seed, draw, batch_size)
            away.setdefault(name, []).append(_distances(query, bank, samples, where))
    nearest = _apart(samples, where, np.min)
    people = np.asarray(samples.patients)[asked]
    findings = [
        Finding(
            name,
            float(np.mean([_mean(one, people) for one in each])),
            float(np.mean([_mean(one <= nearest + 1e-6, people) for one in each])),
        )
        for name, each in away.items()
    ]
    one_of = np.array([1 / len(bank) for _, bank in where])
    findings.append(
        Finding(CHANCE, _mean(_apart(samples, where, np.mean), people), _mean(one_of, people))
    )
    item = np.asarray(samples.items)
    found = Places(
        queries=len(where),
        patients=len(set(people)),
        across=float(np.mean([item[query] != item[bank[0]] for query, bank in where])),
        among=float(np.mean([len(bank) for _, bank in where])),
        unit=samples.unit,
        findings=findings,
    )
    write_text(run.path / "places.json", json.dumps(found.as_dict(), indent=2) + "\n")
    return found


def _searched(samples: Samples) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Samples, evenly picked, and the samples among which each is looked for."""
    assert samples.places is not None
    known = np.isfinite(samples.places).all(axis=1)
    item = np.asarray(samples.items)
    group = item if samples.groups is None else np.asarray(samples.groups)
    rows = np.flatnonzero(known)
    for query in rows[np.linspace(0, len(rows) - 1, min(len(rows), QUERIES)).astype(np.int64)]:
        near = known & (group == group[query])
        others = np.flatnonzero(near & (item != item[query]))
        bank = others if len(others) else np.flatnonzero(near)
        if len(bank) > 1:
            yield int(query), bank


@torch.no_grad()
def _viewed(
    encoder: nn.Module,
    samples: Samples,
    asked: NDArray[np.int64],
    views: Views,
    seed: int,
    draw: int,
    batch_size: int,
) -> NDArray[np.float32]:
    """Embeddings (Q, D) of one view of each asked sample; the same views for every encoder."""
    random = generator(torch.device("cpu"), seed, _PLACES, draw)
    encoder.eval().cpu()
    parts = []
    for start in range(0, len(asked), batch_size):
        x = tensor(samples.read(asked[start : start + batch_size])["x"]).float()
        parts.append(encoder(views(x, random, "global")).float().numpy())
    return np.concatenate(parts)


def _distances(
    query: NDArray[np.float32],
    bank: NDArray[np.float32],
    samples: Samples,
    where: Iterable[tuple[int, NDArray[np.int64]]],
) -> NDArray[np.float64]:
    """How far the find of each query (Q, D) is from its place; features standardised by the bank's.

    Raises:
        MedclError: if a feature is not finite.
    """
    assert samples.places is not None
    if not (np.isfinite(query).all() and np.isfinite(bank).all()):
        raise MedclError("The encoder gives features that are no numbers.")
    mean, scale = bank.mean(axis=0), bank.std(axis=0) + 1e-6
    q, b = ((x - mean) / scale for x in (query, bank))
    q, b = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (q, b))
    out = []
    for row, (at, among) in enumerate(where):
        found = among[int(np.argmax(b[among] @ q[row]))]
        out.append(np.linalg.norm(samples.places[found] - samples.places[at]))
    return np.array(out, dtype=np.float64)


def _apart(samples: Samples, where: Iterable[tuple[int, NDArray[np.int64]]], of: Any) -> Any:
    """The nearest, or the mean, distance from each query to where it is looked for."""
    assert samples.places is not None
    p = samples.places
    return np.array([of(np.linalg.norm(p[among] - p[at], axis=1)) for at, among in where])


def _mean(values: NDArray[Any], people: NDArray[Any]) -> float:
    """Over the queries of each patient, then over patients: all count alike."""
    return float(np.mean([values[people == one].mean() for one in np.unique(people)]))
