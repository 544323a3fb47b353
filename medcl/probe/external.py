"""External validation: fitted on the people of the run's own index, tested on those of another."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from medcl.embeddings.embeddings import take
from medcl.errors import UsageError
from medcl.plugin import Samples
from medcl.run import Run, load_samples

NOTE = (
    "Tested on another index than the run's own. A person of both is left out of the test only "
    "if both were indexed with the same key."
)


def is_outside(run: Run, data: Path | None) -> bool:
    """Whether this is another index, and not the run's own that was moved, or that has grown."""
    from medcl.archive.index import Index

    if data is None:
        return False
    return not run.split().keys() <= set(Index.open(data).items["patient"])


def both(run: Run, data: Path, task: str) -> Samples:
    """The run's own training samples, then all samples of ``data`` but of whom pretraining saw.

    Raises:
        UsageError: if one of them has none, or lacks a label of the other.
    """
    side = run.split()
    own, other = (load_samples(run.recipe, path, task=task) for path in (run.data, data))
    train = np.flatnonzero([side.get(p) == "train" for p in own.patients])
    seen = run.pretrained_on()
    test = np.flatnonzero([p not in seen for p in other.patients])
    for path, positions in ((run.data, train), (data, test)):
        if not len(positions):
            raise UsageError(f"{path}: task '{task}' finds no samples there to fit or to test on.")
    return joined(take(own, train), take(other, test))


def joined(first: Samples, second: Samples) -> Samples:
    """The samples of both, one after the other; labels that only one of them has are left out."""
    shared = first.labels.keys() & second.labels.keys()
    return Samples(
        ids=[*first.ids, *second.ids],
        items=[*first.items, *second.items],
        patients=[*first.patients, *second.patients],
        read=partial(_read, first, second),
        labels={
            name: np.concatenate([np.asarray(first.labels[name]), np.asarray(second.labels[name])])
            for name in sorted(shared)
        },
    )


def _read(first: Samples, second: Samples, positions: np.ndarray) -> dict[str, np.ndarray]:
    """A batch of both: each part read where it lies, then put in the order asked for."""
    late = positions >= len(first)
    if late.all():
        return second.read(positions - len(first))
    if not late.any():
        return first.read(positions)
    one, two = first.read(positions[~late]), second.read(positions[late] - len(first))
    order = np.argsort(np.concatenate([np.flatnonzero(~late), np.flatnonzero(late)]))
    return {name: np.concatenate([one[name], two[name]])[order] for name in one}
