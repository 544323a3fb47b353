"""Opening what predicts: a run, or a study of `medcl.finetune`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from medcl.errors import UsageError
from medcl.finetune.places import FACTS, FOLDER
from medcl.run import Run

if TYPE_CHECKING:
    from medcl.finetune.opened import Study


def opened(path: Path) -> Run | Study:
    """A run, a study, or one fold of a study (``STUDY/folds/r0f1``).

    Raises:
        UsageError: if the folder is none of these, or not finished.
    """
    fold = path.parent.name == FOLDER and (path / FACTS).is_file()
    if fold or (path / FOLDER).is_dir():
        from medcl.finetune.opened import Study  # with torch, which a run does without at first

        return Study.open(path.parent.parent, only=path.name) if fold else Study.open(path)
    several = sorted(p.parent.name for p in path.glob(f"*/{FOLDER}"))
    if several and not (path / "recipe.yaml").is_file():  # a run may hold its studies
        raise UsageError(f"{path} holds several studies: give one of {', '.join(several)} in it.")
    return Run.open(path)
