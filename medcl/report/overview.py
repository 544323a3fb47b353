"""The runs and studies below a folder, a row each: recipe, data, steps and main figure."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medcl.metrics.table import headline, show

DEPTH = 5
"""Folders below the given one that are searched."""


@dataclass(frozen=True)
class Row:
    """One run or study.

    Attributes:
        folder: relative to the searched one.
        kind: "run", "study" or "masks".
        recipe: its name.
        patients: of training.
        steps: of a run; None of a study.
        result: the headline measure with its interval; of a run, of the linear probe on pretrained
            features; empty if there is none yet.
        state: "finished", or "unfinished".
        started: UTC.
    """

    folder: str
    kind: str
    recipe: str
    patients: int | None
    steps: int | None
    result: str
    state: str
    started: str

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def overview(root: Path) -> list[Row]:
    """Every run and study below ``root``, in the order of their folders; damaged ones by name."""
    return [row for folder in sorted(_folders(root)) if (row := _row(root, folder)) is not None]


def _folders(root: Path) -> Iterator[Path]:
    for place, inner, files in os.walk(root):
        path = Path(place)
        if {"run.json", "finetune.json", "dense.json"} & set(files):
            yield path
            inner.clear()  # the folds of a study are no studies of their own
        elif len(path.relative_to(root).parts) >= DEPTH:
            inner.clear()
        inner[:] = [name for name in inner if name != "private" and not name.startswith(".")]


def _row(root: Path, folder: Path) -> Row | None:
    name = str(folder.relative_to(root))
    try:
        if (folder / "finetune.json").is_file():
            from medcl.finetune.result import FinetuneResult

            study = FinetuneResult.load(folder)
            measure = study.headline
            text = f"{study.metric_names[measure]} {show(study.figures.metrics[measure])}"
            return _study(name, "study", study, study.train.patients, text)
        if (folder / "dense.json").is_file():
            from medcl.dense.result import DenseResult

            masks = DenseResult.load(folder)
            heads, rows = masks.table()
            text = " ".join(str(cell) for cell in rows[0][:2]) if rows else ""
            return _study(name, "masks", masks, masks.train_patients, text or heads[0])
        facts = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        return Row(
            name,
            "run",
            str(facts.get("recipe", "")),
            facts.get("patients"),
            facts.get("steps"),
            _probed(folder),
            "finished" if facts.get("finished") else "unfinished",
            str(facts.get("started", "")),
        )
    except Exception as error:  # a damaged run costs its own row
        return Row(name, "damaged", "", None, None, type(error).__name__, "damaged", "")


def _study(name: str, kind: str, study: Any, patients: int, text: str) -> Row:
    created = str(getattr(study, "created", ""))
    return Row(name, kind, study.recipe, patients, None, text, "finished", created)


def _probed(folder: Path) -> str:
    from medcl.probe.result import PRETRAINED, ProbeResult

    if not (folder / "probe" / "probe.json").is_file():
        return _localised(folder)
    result = ProbeResult.load(folder / "probe")
    measure = headline(result.kind)
    score = next(
        s for s in result.scores if s.representation == PRETRAINED and s.classifier == "linear"
    )
    return f"{result.task}: {result.metric_names[measure]} {show(score.metrics[measure])}"


def _localised(folder: Path) -> str:
    from medcl.probe.localisation import FILE, Localisation

    if not (folder / FILE).is_file():
        return ""
    result = Localisation.load(folder / FILE)
    (heads, rows), patients = result.table(), result.patients
    return f"localisation: {rows[0][1]} {heads[1]}, {patients} test patients"
