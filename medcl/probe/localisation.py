"""Localisation: a label-free figure for samples with locations.

The query is a transformed view of a test patient's sample. Candidates are the untransformed samples
of the other items of its group (another kernel of the same scan), or of its own item if there is no
other. The error is the distance from the true location to that of the most similar candidate.
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

from medcl import manifest
from medcl.embeddings.embeddings import embed
from medcl.engine.data import tensor
from medcl.errors import MedclError, UsageError
from medcl.plugin import Samples, Views
from medcl.probe.result import PRETRAINED, RANDOM
from medcl.reading import read_json
from medcl.registry import resolve
from medcl.run import Run, load_samples
from medcl.seeds import generator

CHANCE = "chance"
DRAWS = 3
"""Number of views of each sample, and of untrained encoders; figures are means over them."""
QUERIES = 2000
"""Maximum number of queries."""
_LOCALISATION = 0x9C1
FILE, EARLIER_FILE = "localisation.json", "places.json"
"""Of a run; the second is the name under earlier versions."""


@dataclass(frozen=True)
class Finding:
    """Localisation by one representation.

    Attributes:
        representation: "pretrained", "random" (untrained encoders), or "chance".
        distance: from the true location to the retrieved one; mean over queries of a patient,
            then over patients.
        found: share of queries that retrieve the nearest candidate, averaged likewise.
    """

    representation: str
    distance: float
    found: float


@dataclass(frozen=True)
class Localisation:
    """Figures of localisation, and their basis.

    Attributes:
        queries: number of samples, each in `DRAWS` views.
        patients: their number; all are test patients.
        across: share of queries with candidates from another item.
        among: mean number of candidates.
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
        """The experiment in one line."""
        where = "in another reconstruction" if self.across > 0.5 else "among its neighbours"
        return f"The same place, found again {where} from a transformed view"

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Heads and rows, for a terminal."""
        heads = ["features", f"away, {self.unit}".rstrip(", "), "found exactly"]
        rows = [[f.representation, f"{f.distance:.1f}", f"{f.found:.0%}"] for f in self.findings]
        return heads, rows

    def verdict(self) -> str:
        """The basis of the figures, and its limits."""
        patients = "1 patient" if self.patients == 1 else f"{self.patients} patients"
        text = (
            f"{self.queries} samples of {patients} that no model was trained on, each "
            f"among {self.among:.0f}, in {DRAWS} views."
        )
        if self.patients < 5:
            text += " Too few patients for an interval: they do not generalise to other patients."
        return text

    def as_dict(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return asdict(self)

    @classmethod
    def load(cls, path: Path) -> Localisation:
        """Read the file of `localise`.

        Raises:
            MedclError: if it is damaged.
        """
        raw: Mapping[str, Any] = read_json(path, "Run medcl probe RUN again.")
        findings = [Finding(**one) for one in raw["findings"]]
        return cls(**{**raw, "findings": findings})


def can_say(samples: Samples) -> bool:
    """True if samples have locations."""
    return samples.locations is not None and bool(np.isfinite(samples.locations).all(axis=1).any())


def localise(
    run: Run, *, data: Path | None = None, batch_size: int = 256, device: str = "auto"
) -> Localisation:
    """Localise the samples of the test patients, and write RUN/localisation.json.

    Args:
        run: a finished run.
        data: the index; None for the run's own.
        batch_size: samples per forward pass.
        device: see `medcl.embeddings.embeddings.embed`.

    Raises:
        UsageError: if the samples have no locations, or no test patient has two samples.
    """
    samples = load_samples(run.recipe, data or run.data)
    if not can_say(samples):
        raise UsageError(
            "These samples have no locations, so localisation is not possible. "
            "Name a task: medcl probe RUN --task NAME"
        )
    split = run.split()
    tested = [n for n, patient in enumerate(samples.patients) if split.get(patient) == "test"]
    samples = samples.at(np.array(tested, dtype=np.int64))
    searches = list(_searched(samples))
    if not searches:
        raise UsageError(
            "No test patient has two samples in one space: localisation is not possible."
        )
    views = resolve(run.plugin.views)(**run.recipe.views)
    queries = np.array([query for query, _ in searches])
    encoders = [(PRETRAINED, run.encoder())]
    encoders += [(RANDOM, run.encoder(trained=False, seed=seed)) for seed in range(DRAWS)]
    distances: dict[str, list[NDArray[np.float64]]] = {}
    for name, encoder in encoders:
        bank = embed(encoder, samples, batch_size=batch_size, device=device, label=name).x
        for draw in range(DRAWS):
            query = _viewed(encoder, samples, queries, views, run.recipe.seed, draw, batch_size)
            distances.setdefault(name, []).append(_distances(query, bank, samples, searches))
    nearest = _apart(samples, searches, np.min)
    patients = np.asarray(samples.patients)[queries]
    findings = [
        Finding(
            name,
            float(np.mean([_mean(one, patients) for one in each])),
            float(np.mean([_mean(one <= nearest + 1e-6, patients) for one in each])),
        )
        for name, each in distances.items()
    ]
    one_of = np.array([1 / len(bank) for _, bank in searches])
    findings.append(
        Finding(
            CHANCE, _mean(_apart(samples, searches, np.mean), patients), _mean(one_of, patients)
        )
    )
    item = np.asarray(samples.items)
    result = Localisation(
        queries=len(searches),
        patients=len(set(patients)),
        across=float(np.mean([item[query] != item[bank[0]] for query, bank in searches])),
        among=float(np.mean([len(bank) for _, bank in searches])),
        unit=samples.unit,
        findings=findings,
    )
    manifest.write_text(run.path / FILE, json.dumps(result.as_dict(), indent=2) + "\n")
    return result


def _searched(samples: Samples) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Evenly picked queries, each with the positions of its candidates."""
    assert samples.locations is not None
    known = np.isfinite(samples.locations).all(axis=1)
    item = np.asarray(samples.items)
    group = item if samples.groups is None else np.asarray(samples.groups)
    rows = np.flatnonzero(known)
    for query in rows[np.linspace(0, len(rows) - 1, min(len(rows), QUERIES)).astype(np.int64)]:
        nearby = known & (group == group[query])
        others = np.flatnonzero(nearby & (item != item[query]))
        bank = others if len(others) else np.flatnonzero(nearby)
        if len(bank) > 1:
            yield int(query), bank


@torch.no_grad()
def _viewed(
    encoder: nn.Module,
    samples: Samples,
    queries: NDArray[np.int64],
    views: Views,
    seed: int,
    draw: int,
    batch_size: int,
) -> NDArray[np.float32]:
    """Embeddings (Q, D) of one view of each query; the same views for every encoder."""
    random = generator(torch.device("cpu"), seed, _LOCALISATION, draw)
    encoder.eval().cpu()
    parts = []
    for start in range(0, len(queries), batch_size):
        x = tensor(samples.read(queries[start : start + batch_size])["x"]).float()
        parts.append(encoder(views(x, random, "global")).float().numpy())
    return np.concatenate(parts)


def _distances(
    query: NDArray[np.float32],
    bank: NDArray[np.float32],
    samples: Samples,
    searches: Iterable[tuple[int, NDArray[np.int64]]],
) -> NDArray[np.float64]:
    """Distance (Q,) from each query's location to the retrieved one; standardised by the bank.

    Raises:
        MedclError: if a feature is not finite.
    """
    assert samples.locations is not None
    if not (np.isfinite(query).all() and np.isfinite(bank).all()):
        raise MedclError("The encoder gives NaN or infinite features.")
    mean, scale = bank.mean(axis=0), bank.std(axis=0) + 1e-6
    q, b = ((x - mean) / scale for x in (query, bank))
    q, b = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (q, b))
    out = []
    for row, (query_row, candidates) in enumerate(searches):
        retrieved = candidates[int(np.argmax(b[candidates] @ q[row]))]
        out.append(np.linalg.norm(samples.locations[retrieved] - samples.locations[query_row]))
    return np.array(out, dtype=np.float64)


def _apart(samples: Samples, searches: Iterable[tuple[int, NDArray[np.int64]]], of: Any) -> Any:
    """The nearest, or the mean, distance from each query to its candidates."""
    assert samples.locations is not None
    p = samples.locations
    return np.array(
        [of(np.linalg.norm(p[candidates] - p[query], axis=1)) for query, candidates in searches]
    )


def _mean(values: NDArray[Any], patients: NDArray[Any]) -> float:
    """Mean over the queries of each patient, then over patients, with equal weight."""
    return float(np.mean([values[patients == patient].mean() for patient in np.unique(patients)]))
