"""Results of ``medcl evaluate`` for the study's page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from medcl import manifest
from medcl.audit.evaluate import FILE, FOLDER, Evaluation
from medcl.audit.leakage import Audit, Leak
from medcl.audit.robustness import Attacked, Corrupted
from medcl.audit.subgroups import Subgroup
from medcl.errors import MedclError
from medcl.finetune.result import FinetuneResult
from medcl.manifest import DamagedError
from medcl.metrics.bootstrap import Interval
from medcl.reading import read_json
from medcl.report.cards import Absent

_REMEDY = "medcl evaluate STUDY"


def evaluation(study: Path, result: FinetuneResult) -> Evaluation | Absent:
    """``STUDY/evaluation/evaluation.json``, if it exists and is of this study."""
    path = study / FOLDER / FILE
    if not path.is_file():
        return Absent("The study was not questioned yet: no audit, no groups.", _REMEDY)
    try:
        raw = read_json(path, _REMEDY)
        if raw["study"]["made_from"] != result.made_from:
            return Absent("The study was made anew since it was questioned.", _REMEDY)
        return _parsed(raw, result)
    except DamagedError:
        return Absent("What medcl evaluate wrote is damaged: its SHA-256 differs.", _REMEDY)
    except (MedclError, KeyError, TypeError, ValueError) as error:
        manifest.tell(error)
        return Absent("What medcl evaluate wrote cannot be read, or is another version's.", _REMEDY)


def with_site_names(evaluated: Evaluation, names: Mapping[str, str]) -> Evaluation:
    """The evaluation with groups of sites by their own names, where these are known."""
    groups = [
        replace(g, value=names.get(g.value, g.value)) if g.column == "site" else g
        for g in evaluated.subgroups
    ]
    return replace(evaluated, subgroups=groups)


def _parsed(raw: dict[str, Any], result: FinetuneResult) -> Evaluation:
    audit = {name: value for name, value in raw["audit"].items() if name != "passed"}
    leaks = [Leak(**leak | {"patients": tuple(leak["patients"])}) for leak in audit["leaks"]]
    samples, patients = raw["tested"]
    return Evaluation(
        study=result,
        audit=Audit(**audit | {"leaks": leaks}),
        subgroups=[
            Subgroup(
                **group
                | {"metrics": _all(group["metrics"]), "difference": _all(group["difference"])}
            )
            for group in raw["subgroups"]
        ],
        corruptions=[
            Corrupted(**c | {"metrics": _all(c["metrics"]), "loss": _all(c["loss"])})
            for c in raw["corruptions"]
        ],
        attacks=[Attacked(**a | {"success": Interval(**a["success"])}) for a in raw["attacks"]],
        tested=(samples, patients),
        notes=raw["notes"],
    )


def _all(raw: dict[str, dict[str, Any]]) -> dict[str, Interval]:
    return {name: Interval(**value) for name, value in raw.items()}
