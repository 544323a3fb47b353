"""One self-contained HTML page about a study of training with labels (`medcl.finetune`)."""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medcl import version
from medcl.audit import compare
from medcl.audit.compare import Predictions
from medcl.finetune import fold_training
from medcl.finetune.explain import FOLDER
from medcl.finetune.opened import Study
from medcl.finetune.result import FinetuneResult
from medcl.io.atomic import write_text
from medcl.labels.target import ONE_CLASS, SURVIVAL
from medcl.metrics.kaplan_meier import kaplan_meier
from medcl.private import command_without_paths, read_recipe, recipe_without_paths, site_names
from medcl.reading import read_json
from medcl.report import audit_section, cards, model_card, plots, test_examples
from medcl.report.cards import Absent
from medcl.report.example_selection import predicted_classes
from medcl.report.finish import finished
from medcl.report.report import environment

PICTURES = 18
"""Maximum number of heat maps, of at most `LARGEST` bytes each: the page is one file."""
LARGEST = 2**21


SHOWN = {
    "heatmap": "ranks within it: red counted most",
    "raw": "raw scores, with their scale",
    "top": "the tiles that counted most",
}
"""What a drawing shows, by its name."""


@dataclass(frozen=True)
class Picture:
    """A drawing of a test bag, and a caption: class, truth, prediction and probability."""

    name: str
    image: str


def write(study: Path, out: Path, *, private: bool = False) -> Path:
    """Write the report of a study; returns ``out``.

    With ``private``, sites have their own names: such a page is not for others.

    Raises:
        UsageError: if the folder holds no finished study.
    """
    result = FinetuneResult.load(study)
    recipe = read_recipe(study)
    opened = test_examples.opened(study)
    evaluated = audit_section.evaluation(study, result)
    if private and not isinstance(evaluated, Absent):
        evaluated = audit_section.with_site_names(evaluated, site_names(study))
    data = cards.data_card(
        cards.place(study), recipe.plugin, {}, prepare=recipe.prepare, became=result.outcomes
    )
    page = (
        environment()
        .get_template("finetuned.html.j2")
        .render(
            r=result,
            table=result.table(),
            classes=result.by_class(),
            reliability=plots.reliability(result.figures.reliability),
            curves=curves(study),
            validated=threshold_of(study),
            private=private,
            survival=None if isinstance(opened, Absent) else survival(opened.predictions),
            pictures=pictures(study, opened),
            examples=opened if isinstance(opened, Absent) else test_examples.of_study(opened),
            map=opened if isinstance(opened, Absent) else test_examples.embedding_map(opened),
            evaluation=evaluated,
            data=data,
            model=model_card.of_study(result, evaluated, data),
            about=recipe.about,
            paper=recipe.paper,
            encoder=recipe.encoder.name if recipe.encoder else "",
            recipe=recipe_without_paths(recipe),
            command=command_without_paths(result.command)
            or "medcl finetune RECIPE.yaml --data IDX --out OUT",
            version=version.__version__,
            written=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        )
    )
    write_text(out, finished(page))
    return out


def curves(study: Path) -> str | None:
    """ROC and precision-recall curves; None for other kinds of problem. No sample is read."""
    predictions = compare.read(study)
    return plots.roc_and_pr(predictions, test_examples.thresholds(Study.open(study), predictions))


def threshold_of(study: Path) -> str:
    """The thresholds of two classes' trainings, "0.31" or "0.21 to 0.43"; "" without validation."""
    facts = [
        read_json(path, "Run the same medcl finetune again.")
        for path in sorted((study / fold_training.FOLDER).glob(f"*/{fold_training.FACTS}"))
    ]
    if not facts or not all(one["samples"].get("validation") for one in facts):
        return ""
    low, high = (f"{limit(one['threshold'] for one in facts):.2f}" for limit in (min, max))
    return low if low == high else f"{low} to {high}"


@dataclass(frozen=True)
class Survival:
    """Kaplan-Meier curves of test patients: a picture, and p of the log-rank test."""

    image: str
    p: float


def survival(predictions: Predictions) -> Survival | None:
    """Survival of test patients of low and high predicted risk; None for other kinds of label."""
    target = predictions.target
    if target.kind not in SURVIVAL:
        return None
    time, event = target.y[:, 0], target.y[:, 1] > 0
    risk = predictions.probability[:, 0]
    found = kaplan_meier(time, event, risk, predictions.patients, predictions.fold)
    return None if found is None else Survival(plots.survival(found, target.classes[0]), found.p)


def pictures(study: Path, opened: test_examples.Opened | Absent) -> list[Picture]:
    """Heat maps written by `medcl finetune --explain`, if any, each with what was predicted."""
    shown: list[Picture] = []
    for path in sorted((study / FOLDER).glob("*/**/*.png")):
        if path.stat().st_size <= LARGEST and len(shown) < PICTURES:
            data = base64.b64encode(path.read_bytes()).decode("ascii")
            bag, *where = path.relative_to(study / FOLDER).with_suffix("").parts
            *named, what = where
            words = [SHOWN.get(what, what), *(f"for {name}" for name in named if name != "0")]
            told = "" if isinstance(opened, Absent) else _predicted(opened, bag)
            name = f"{bag}: {', '.join(words)}{told}"
            shown.append(Picture(name, f"data:image/png;base64,{data}"))
    return shown


def _predicted(opened: test_examples.Opened, key: str) -> str:
    """``; predicted tumor (0.93), is normal``; "" where it is not of the predictions."""
    predictions = opened.predictions
    row = np.flatnonzero(predictions.ids == key)
    if len(row) != 1:
        return ""
    target, probability = predictions.target, predictions.probability[row[0]]
    if target.kind not in ONE_CLASS:
        values = ", ".join(f"{value:.2f}" for value in probability)
        return f"; predicted {values}"
    code = int(predicted_classes(predictions, opened.threshold)[row[0]])
    truth = target.classes[int(target.y[row[0]])]
    return f"; predicted {target.classes[code]} ({probability[code]:.2f}), is {truth}"
