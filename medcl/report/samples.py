"""Samples in a report: example views, and a map of their embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from inspect import signature
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medcl.embeddings.embeddings import embed
from medcl.errors import MedclError
from medcl.labels import target as targets
from medcl.plugin import Samples
from medcl.registry import resolve
from medcl.report import plots
from medcl.report.cards import Absent
from medcl.run import Run, load_samples

if TYPE_CHECKING:
    from torch import nn

EXAMPLES = 3
MAPPED = 1200


@dataclass(frozen=True)
class Map:
    """The embedding map, drawn twice: by label (None without a task) and by patient."""

    by_label: plots.Scatter | None
    by_patient: plots.Scatter
    label: str
    shown: int
    of: int
    patients: int


def examples(run: Run) -> str | Absent:
    """Samples of different patients with their augmented views, drawn by the plugin."""
    if run.plugin.preview is None:
        return Absent("This plugin draws no preview.")
    samples = _samples(run, None)
    if isinstance(samples, Absent):
        return samples
    return _draw(run, samples, _spread(samples.patients, EXAMPLES))


def _samples(run: Run, task: str | None) -> Samples | Absent:
    """The run's samples; the reason of a failure is not shown, since it may hold a path."""
    try:
        return load_samples(run.recipe, run.data, task=task)
    except (MedclError, OSError, KeyError):
        return Absent(
            "The samples cannot be read from the index that the run was trained on.",
            f"medcl index ARCHIVE --plugin {run.recipe.plugin} --out IDX",
        )


def _draw(run: Run, samples: Samples, positions: NDArray[np.int64]) -> str | Absent:
    """Call the plugin's preview; an error skips this picture only.

    A preview with a parameter ``encoder`` gets the trained one, if it can be read.
    """
    import torch

    assert run.plugin.preview is not None
    preview = resolve(run.plugin.preview)
    more = {"encoder": _encoder(run)} if "encoder" in signature(preview).parameters else {}
    views = resolve(run.plugin.views)(**run.recipe.views)
    x = torch.as_tensor(np.ascontiguousarray(samples.read(positions)["x"])).float()
    try:
        with plots.style():
            return plots.png(preview(x, views, **more), dpi=90)
    except Exception as error:  # its message may hold a path
        return Absent(f"The plugin's preview failed: {type(error).__name__}.")


def _encoder(run: Run) -> nn.Module | None:
    try:
        return run.encoder()
    except Exception:  # not trained yet, or damaged: the map says which
        return None


def _spread(patients: Sequence[str], count: int) -> NDArray[np.int64]:
    """The middle sample of each of the first ``count`` patients; more of each if they are fewer."""
    positions_of: dict[str, list[int]] = {}
    for position, patient in enumerate(patients):
        positions_of.setdefault(patient, []).append(position)
    groups = list(positions_of.values())[:count]
    rounds = -(-count // len(groups)) if groups else 0
    picked = [g[len(g) * (2 * r + 1) // (2 * rounds)] for r in range(rounds) for g in groups]
    return np.array(picked[:count], np.int64)


def embedding_map(run: Run, task: str | None) -> Map | Absent:
    """t-SNE of the pretrained embeddings (van der Maaten & Hinton 2008) of a random subset.

    Args:
        run: a finished run.
        task: whose samples and labels; None for the samples of pretraining.
    """
    if not (run.path / "encoder.safetensors").is_file():
        return Absent("The run has no encoder yet.", "the same medcl pretrain, to its end")
    samples = _samples(run, task)
    if isinstance(samples, Absent):
        return samples
    try:
        labels = _labels(run, samples, task)
    except MedclError:
        return Absent(
            "The index does not give these samples the labels that the task asks for.",
            f"medcl probe RUN --task {task}, which says why",
        )
    known = np.flatnonzero(np.array([label is not None for label in labels]))
    drawn = np.random.default_rng(run.recipe.seed).permutation(known)[:MAPPED]
    if len(drawn) < 5:
        return Absent(f"There are only {len(drawn)} samples: too few for a map.")
    shown = samples.at(np.sort(drawn))
    try:
        x = embed(run.encoder(), shown, label="map").x
    except Exception as error:  # a damaged file: its reader may raise anything
        return Absent(f"The run's encoder cannot be used: {type(error).__name__}.")
    xy = tsne(x, seed=run.recipe.seed)
    names = [str(labels[p]) for p in np.sort(drawn)]
    about = [
        f"{name or 'sample'} · patient {patient[:8]}"
        for name, patient in zip(names, shown.patients, strict=True)
    ]
    return Map(
        by_label=plots.scatter(xy, names, about, legend=True) if task else None,
        by_patient=plots.scatter(xy, shown.patients, about, legend=False),
        label=run.plugin.tasks[task].label if task else "",
        shown=len(shown),
        of=len(known),
        patients=len(set(shown.patients)),
    )


def _labels(run: Run, samples: Samples, task: str | None) -> Sequence[str | None]:
    """The class of each sample, None if unknown; for values, their quartile."""
    if task is None:
        return [""] * len(samples)
    target = targets.target(run.plugin.tasks[task], samples)
    if target.kind != "regression":
        return [n if k else None for n, k in zip(target.names(), target.known, strict=True)]
    edges = np.quantile(target.y[target.known], (0.25, 0.5, 0.75))
    quarter = np.searchsorted(edges, target.y)
    return [f"quarter {q + 1}" if k else None for q, k in zip(quarter, target.known, strict=True)]


def tsne(x: NDArray[np.float32], *, seed: int) -> NDArray[np.float32]:
    """(N, D) → (N, 2), standardised first."""
    from sklearn.manifold import TSNE
    from sklearn.preprocessing import StandardScaler

    standard = StandardScaler().fit_transform(x)
    perplexity = min(30.0, (len(x) - 1) / 3)
    model = TSNE(2, perplexity=perplexity, init="pca", random_state=seed)
    xy: NDArray[np.float32] = model.fit_transform(standard)
    return xy


def by_turns(rows: NDArray[np.int64], patients: NDArray, count: int) -> NDArray[np.int64]:
    """The first ``count`` rows, round-robin over patients."""
    turns: dict[str, int] = {}
    turn = []
    for row in rows:
        turn.append(turns.get(patients[row], 0))
        turns[patients[row]] = turn[-1] + 1
    chosen: NDArray[np.int64] = rows[np.argsort(turn, kind="stable")][:count]
    return chosen
