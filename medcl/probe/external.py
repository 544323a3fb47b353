"""External validation: fitted on patients of the run's own index, tested on those of another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from medcl.errors import UsageError
from medcl.plugin import Axes, Samples
from medcl.run import Run, load_samples

NOTE = (
    "Tested on another index than the run's own. A patient in both is left out of the test only "
    "if both were indexed with the same key."
)


def is_external(run: Run, data: Path | None) -> bool:
    """True for another index; False for the run's own, even if it was moved or has grown."""
    from medcl.archive.index import Index

    if data is None:
        return False
    return not run.split().keys() <= set(Index.open(data).items["patient"])


def own_and_external(run: Run, data: Path, task: str) -> Samples:
    """The run's own training samples, then the samples of ``data`` of patients not pretrained on.

    Raises:
        UsageError: if either has no samples, or lacks a label of the other.
    """
    split = run.split()
    own, other = (load_samples(run.recipe, path, task=task) for path in (run.data, data))
    train = np.flatnonzero([split.get(p) == "train" for p in own.patients])
    seen = run.pretrained_on()
    test = np.flatnonzero([p not in seen for p in other.patients])
    for path, positions in ((run.data, train), (data, test)):
        if not len(positions):
            raise UsageError(f"{path}: task '{task}' has no samples there to fit or test on.")
    return joined(own.at(train), other.at(test))


def joined(first: Samples, second: Samples) -> Samples:
    """Concatenate samples; fields that only one of them has are left out.

    Locations are kept if both give them in the same unit and dimension.
    """
    shared = first.labels.keys() & second.labels.keys()
    located = (
        first.locations is not None
        and second.locations is not None
        and first.locations.shape[1:] == second.locations.shape[1:]
        and (first.unit, first.reach) == (second.unit, second.reach)
    )
    return Samples(
        ids=[*first.ids, *second.ids],
        items=[*first.items, *second.items],
        patients=[*first.patients, *second.patients],
        read=partial(_read, first, second),
        labels={
            name: np.concatenate([np.asarray(first.labels[name]), np.asarray(second.labels[name])])
            for name in sorted(shared)
        },
        groups=_both(first.groups, second.groups),
        locations=_stacked(first.locations, second.locations) if located else None,
        reach=first.reach if located else math.inf,
        unit=first.unit if located else "",
        facts={**first.facts, **second.facts},
        weights=_stacked(first.weights, second.weights),
        where=None
        if first.where is None or second.where is None
        else partial(_where, first, second),
        instances=first.instances,
        draw=None if first.draw is None or second.draw is None else partial(_draw, first, second),
        mask_classes=first.mask_classes if first.mask_classes == second.mask_classes else (),
        axes=None if first.axes is None or second.axes is None else partial(_axes, first, second),
    )


def _axes(first: Samples, second: Samples, position: int) -> Axes:
    """`Samples.axes` of both."""
    assert first.axes is not None
    assert second.axes is not None
    inside = position - len(first)
    return first.axes(position) if inside < 0 else second.axes(inside)


def _draw(
    first: Samples, second: Samples, positions: np.ndarray, seeds: np.ndarray
) -> dict[str, np.ndarray]:
    """`Samples.draw` of both."""
    assert first.draw is not None
    assert second.draw is not None
    late = positions >= len(first)
    if late.all():
        return second.draw(positions - len(first), seeds)
    if not late.any():
        return first.draw(positions, seeds)
    one = first.draw(positions[~late], seeds[~late])
    two = second.draw(positions[late] - len(first), seeds[late])
    order = np.argsort(np.concatenate([np.flatnonzero(~late), np.flatnonzero(late)]))
    return {name: np.concatenate([one[name], two[name]])[order] for name in one}


def _where(first: Samples, second: Samples, positions: np.ndarray) -> dict[str, np.ndarray]:
    """`Samples.where` of both; columns that only one of them has are left out."""
    assert first.where is not None
    assert second.where is not None
    in_second = positions >= len(first)
    one, two = first.where(positions[~in_second]), second.where(positions[in_second] - len(first))
    order = np.argsort(np.concatenate([np.flatnonzero(~in_second), np.flatnonzero(in_second)]))
    return {
        name: np.concatenate([np.asarray(one[name]), np.asarray(two[name])])[order]
        for name in one.keys() & two.keys()
    }


def _both(first: Sequence[str] | None, second: Sequence[str] | None) -> list[str] | None:
    return None if first is None or second is None else [*first, *second]


def _stacked(first: np.ndarray | None, second: np.ndarray | None) -> np.ndarray | None:
    return None if first is None or second is None else np.concatenate([first, second])


def _read(first: Samples, second: Samples, positions: np.ndarray) -> dict[str, np.ndarray]:
    """A batch of both, in the requested order."""
    in_second = positions >= len(first)
    if in_second.all():
        return second.read(positions - len(first))
    if not in_second.any():
        return first.read(positions)
    one, two = first.read(positions[~in_second]), second.read(positions[in_second] - len(first))
    order = np.argsort(np.concatenate([np.flatnonzero(~in_second), np.flatnonzero(in_second)]))
    return {name: np.concatenate([one[name], two[name]])[order] for name in one}
