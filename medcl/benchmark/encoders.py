"""The encoders that a scoreboard is asked for: runs, released ones, or folders of either."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from medcl.errors import UsageError
from medcl.run import Run

_RUN = "recipe.yaml"


def found(place: str | Path | Run) -> list[Run]:
    """One run, or all finished ones in a folder that is none itself.

    Raises:
        UsageError: if there is none.
    """
    if isinstance(place, Run):
        return [place]
    path = Path(place)
    if not path.is_dir() or (path / _RUN).is_file():
        return [Run.open(path)]
    inside = sorted(recipe.parent for recipe in path.glob(f"*/{_RUN}"))
    if not inside:
        raise UsageError(f"{path} holds no run and no released encoder.")
    return [Run.open(folder) for folder in inside]


def by_name(runs: Sequence[Run]) -> dict[str, Run]:
    """Rows by the names of their folders; with the folder above, where two have one name.

    Raises:
        UsageError: if a run is given twice.
    """
    count = Counter(run.path.name for run in runs)
    out: dict[str, Run] = {}
    for run in runs:
        path = run.path.absolute()
        name = path.name if count[path.name] == 1 else f"{path.parent.name}-{path.name}"
        if name in out:
            raise UsageError(f"{run.path} and {out[name].path} would have one name: rename one.")
        out[name] = run
    return out
