"""One self-contained HTML page about a study of training with labels (`medcl.finetune`)."""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass
from pathlib import Path

from medcl import version
from medcl.audit.compare import Predictions
from medcl.finetune.explain import FOLDER
from medcl.finetune.result import FinetuneResult
from medcl.io.atomic import write_text
from medcl.labels.target import SURVIVAL
from medcl.metrics.kaplan_meier import kaplan_meier
from medcl.private import command_without_paths, read_recipe, recipe_without_paths
from medcl.report import audit_section, cards, model_card, plots, test_examples
from medcl.report.cards import Absent
from medcl.report.report import environment

PICTURES = 12
"""Maximum number of heat maps, of at most `LARGEST` bytes each: the page is one file."""
LARGEST = 2**21


@dataclass(frozen=True)
class Picture:
    """A drawing of a test bag."""

    name: str
    image: str


def write(study: Path, out: Path) -> Path:
    """Write the report of a study; returns ``out``.

    Raises:
        UsageError: if the folder holds no finished study.
    """
    result = FinetuneResult.load(study)
    recipe = read_recipe(study)
    opened = test_examples.opened(study)
    evaluated = audit_section.evaluation(study, result)
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
            survival=None if isinstance(opened, Absent) else survival(opened.predictions),
            pictures=pictures(study),
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
            or "medcl finetune IDX -r RECIPE.yaml --out OUT",
            version=version.__version__,
            written=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        )
    )
    write_text(out, page)
    return out


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


def pictures(study: Path) -> list[Picture]:
    """Heat maps written by `medcl finetune --explain`, if any."""
    shown: list[Picture] = []
    for path in sorted((study / FOLDER).glob("*/**/*.png")):
        if path.stat().st_size <= LARGEST and len(shown) < PICTURES:
            data = base64.b64encode(path.read_bytes()).decode("ascii")
            bag, *where = path.relative_to(study / FOLDER).with_suffix("").parts
            name = f"{bag}: {', '.join(where)}"
            shown.append(Picture(name, f"data:image/png;base64,{data}"))
    return shown
