"""One page with several runs or studies side by side: the same figures in one table."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from medcl import version
from medcl.audit import compare
from medcl.audit.compare import Comparison
from medcl.audit.evaluate import Evaluation
from medcl.errors import MedclError, UsageError
from medcl.finetune.result import FILE, FinetuneResult
from medcl.io.atomic import write_text
from medcl.metrics.table import show
from medcl.probe.result import PRETRAINED, ProbeResult
from medcl.report import audit_section, cards, plots
from medcl.report.cards import Absent
from medcl.report.finish import finished
from medcl.report.report import environment
from medcl.run import Run


@dataclass(frozen=True)
class Column:
    """One run or study, as the table shows it.

    Attributes:
        name: of its folder.
        facts: its properties, in the order of the page's rows.
        figures: measure → figure with interval.
        reliability: a plot, for a study with probabilities.
    """

    name: str
    facts: dict[str, str]
    figures: dict[str, str]
    reliability: str | None = None


@dataclass(frozen=True)
class Pair:
    """A run against the one before it; or why they cannot be compared."""

    names: tuple[str, str]
    found: Comparison | Absent


def write(paths: Sequence[Path], out: Path) -> Path:
    """Write the page; returns ``out``.

    Args:
        paths: two or more runs of ``medcl pretrain`` or studies of ``medcl finetune``.
        out: the HTML file.

    Raises:
        UsageError: if one of them is neither.
    """
    columns = [column(path) for path in paths]
    facts = list(dict.fromkeys(name for c in columns for name in c.facts))
    measures = list(dict.fromkeys(name for c in columns for name in c.figures))
    heads = ["", *(c.name for c in columns)]
    page = (
        environment()
        .get_template("several.html.j2")
        .render(
            columns=columns,
            facts=(heads, [[f, *(c.facts.get(f, "–") for c in columns)] for f in facts]),
            figures=(heads, [[m, *(c.figures.get(m, "–") for c in columns)] for m in measures]),
            pairs=[pair(a, b) for a, b in pairwise(paths)],
            version=version.__version__,
            written=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        )
    )
    write_text(out, finished(page))
    return out


def column(path: Path) -> Column:
    """The column of a run or study.

    Raises:
        UsageError: if the folder is neither.
    """
    if (path / FILE).is_file():
        return _study(path)
    if (path / "recipe.yaml").is_file():
        return _run(path)
    raise UsageError(
        f"{path} is neither a run nor a study. Make one: medcl pretrain, medcl finetune"
    )


def _study(path: Path) -> Column:
    result = FinetuneResult.load(path)
    evaluated = audit_section.evaluation(path, result)
    facts = {
        "is": "training with labels",
        "recipe": result.recipe,
        "trained": result.classifier,
        "predicts": result.label,
        "test patients": f"{result.test.patients:,}",
        "test samples": f"{result.test.samples:,}",
        "seed": str(result.seed),
        "audit": evaluated.audit.sentence()
        if isinstance(evaluated, Evaluation)
        else evaluated.reason,
    }
    figures = {result.metric_names[n]: show(i) for n, i in result.figures.metrics.items()}
    error = result.figures.calibration.get("ece_scaled")
    if error is not None:
        figures["calibration error after scaling"] = show(error)
    return Column(path.name, facts, figures, plots.reliability(result.figures.reliability))


def _run(path: Path) -> Column:
    run = Run.open(path)
    probe, method = cards.probe_result(path / "probe"), cards.method_card(run)
    facts = {
        "is": "pretraining",
        "recipe": method.name,
        "trained": f"{method.method}, {method.encoder}",
        "seed": str(run.recipe.seed),
    }
    if not isinstance(probe, ProbeResult):
        return Column(path.name, {**facts, "predicts": probe.reason}, {})
    facts |= {
        "predicts": f"{probe.task}, by a linear probe",
        "test patients": f"{probe.test.patients:,}",
        "test samples": f"{probe.test.samples:,}",
    }
    best = next(
        s for s in probe.scores if s.classifier == "linear" and s.representation == PRETRAINED
    )
    return Column(
        path.name, facts, {probe.metric_names[n]: show(i) for n, i in best.metrics.items()}
    )


def pair(a: Path, b: Path) -> Pair:
    """Compare two neighbours of the table on the samples that both predicted."""
    try:
        return Pair((a.name, b.name), compare.compare(a, b))
    except MedclError as error:
        reason = str(error).replace(str(a), a.name).replace(str(b), b.name)
        return Pair((a.name, b.name), Absent(reason))
