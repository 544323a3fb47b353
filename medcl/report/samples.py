"""Samples in a report: example views, and a map of their embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from inspect import signature
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medcl import manifest
from medcl.archive.index import Index
from medcl.embeddings.embeddings import embed, unit
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
VALUES, COLUMNS = 12, 8
"""At most so many values of a column that is mapped, and so many such columns."""
MISSING = "missing"
SAME = 1e-6
"""Of a feature's size: deviations below are rounding."""


@dataclass(frozen=True)
class ColumnMap:
    """The same points coloured by a technical column of the index, such as the scanner.

    Attributes:
        name: of the column.
        plot: the points that it is known of, and the others as "missing".
        shared: how often the nearest sample of another patient has the same value.
        chance: the same of a random sample of another patient.
    """

    name: str
    plot: plots.Scatter
    shared: float
    chance: float


@dataclass(frozen=True)
class Map:
    """The embedding map, drawn twice: by label (None without a task) and by patient."""

    by_label: plots.Scatter | None
    by_patient: plots.Scatter
    label: str
    shown: int
    of: int
    patients: int
    by_column: list[ColumnMap] = field(default_factory=list)


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
    except (MedclError, OSError, KeyError) as error:
        manifest.tell(error)
        return Absent(
            "The samples cannot be read from the index that the run was trained on.",
            f"medcl index ARCHIVE --plugin {run.recipe.plugin} --out IDX",
        )


def _draw(run: Run, samples: Samples, positions: NDArray[np.int64]) -> str | Absent:
    """Call the plugin's preview; an error skips this picture only.

    A preview with a parameter ``encoder`` gets the trained one, if it can be read; one with
    ``axes``, what the samples say of theirs.
    """
    import torch

    assert run.plugin.preview is not None
    preview = resolve(run.plugin.preview)
    takes = signature(preview).parameters
    more: dict[str, Any] = {"encoder": _encoder(run)} if "encoder" in takes else {}
    if "axes" in takes and samples.axes is not None:
        more["axes"] = [samples.axes(int(position)) for position in positions]
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
    except MedclError as error:
        manifest.tell(error)
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
        by_column=_by_column(run, x, xy, shown),
    )


def _by_column(
    run: Run, x: NDArray[np.float32], xy: NDArray[np.float32], shown: Samples
) -> list[ColumnMap]:
    """Maps by the index's technical columns with a few values: is it the scanner that clusters?"""
    try:
        index = Index.open(run.data)
        rows = {row["id"]: row for row in index.items.select("id", *index.fields).to_dicts()}
    except (MedclError, OSError, KeyError) as error:
        manifest.tell(error)
        return []
    near = _nearest_of_another(x, np.asarray(shown.patients))
    found = []
    for name in index.fields:
        values = [rows.get(item, {}).get(name) for item in shown.items]
        names = np.array([MISSING if value is None else str(value) for value in values])
        known = names != MISSING
        if not 2 <= len(set(names[known])) <= VALUES or isinstance(values[0], list):
            continue
        both = known & (near >= 0) & known[near]
        if not both.any():
            continue
        about = [f"{name} {value}" for value in names]
        found.append(
            ColumnMap(
                name,
                plots.scatter(xy, names.tolist(), about, legend=True),
                float((names[both] == names[near[both]]).mean()),
                _by_chance(names[known], np.asarray(shown.patients)[known]),
            )
        )
    return found[:COLUMNS]


def _nearest_of_another(x: NDArray[np.float32], patients: NDArray) -> NDArray[np.int64]:
    """Of each sample (N, D), the nearest of another patient by cosine: (N,); −1 without one."""
    z = unit(x)
    cosine = z @ z.T
    cosine[patients[:, None] == patients] = -np.inf
    near = cosine.argmax(axis=1)
    return np.where(np.isfinite(cosine[np.arange(len(x)), near]), near, -1)


def _by_chance(values: NDArray, patients: NDArray) -> float:
    """How often two samples of different patients have the same value."""
    apart = patients[:, None] != patients
    return float((values[:, None] == values)[apart].mean()) if apart.any() else float("nan")


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
    """(N, D) → (N, 2), standardised first.

    Equal rows are one point: t-SNE's neighbour search may crash the process on many of them. Where
    fewer than five are left, as of a collapsed encoder, the map is the first two principal
    components.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    finite = np.nan_to_num(np.asarray(x, dtype=np.float64), posinf=0.0, neginf=0.0)
    centred = finite - finite.mean(axis=0)
    deviation = centred.std(axis=0)
    # What rounding makes of a constant is no feature.
    constant = deviation <= SAME * np.maximum(np.abs(finite).max(axis=0), 1e-12)
    standard = np.where(constant, 0.0, centred / np.where(constant, 1.0, deviation))
    _, first, which = np.unique(
        np.round(standard, 4), axis=0, return_index=True, return_inverse=True
    )
    which, distinct = which.ravel(), standard[first]
    if len(distinct) < 5:
        width = min(2, *distinct.shape)
        xy = np.zeros((len(distinct), 2))
        if len(distinct) > 1:
            xy[:, :width] = PCA(width, random_state=seed).fit_transform(distinct)
        return xy[which].astype(np.float32)
    perplexity = min(30.0, (len(distinct) - 1) / 3)
    model = TSNE(2, perplexity=perplexity, init="pca", random_state=seed)
    points: NDArray[np.float32] = model.fit_transform(distinct.astype(np.float32))[which]
    return points


def by_turns(rows: NDArray[np.int64], patients: NDArray, count: int) -> NDArray[np.int64]:
    """The first ``count`` rows, round-robin over patients."""
    turns: dict[str, int] = {}
    turn = []
    for row in rows:
        turn.append(turns.get(patients[row], 0))
        turns[patients[row]] = turn[-1] + 1
    chosen: NDArray[np.int64] = rows[np.argsort(turn, kind="stable")][:count]
    return chosen
