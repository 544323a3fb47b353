"""One self-contained HTML page about a study of masks (`medcl.dense`)."""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass
from pathlib import Path

from medcl import version
from medcl.dense.opened import DenseStudy
from medcl.io.atomic import write_text
from medcl.private import command_without_paths, recipe_without_paths
from medcl.report import cards
from medcl.report.finish import finished
from medcl.report.report import environment

PICTURES = 12
"""Maximum number of overlays: the page is one file."""


@dataclass(frozen=True)
class Overlay:
    """Masks and predictions of a test image, with what the network began with."""

    start: str
    image: str
    caption: str


def write(path: Path, out: Path) -> Path:
    """Write the report of a study of masks; returns ``out``.

    Raises:
        UsageError: if the folder holds no finished study of masks.
    """
    study = DenseStudy.open(path)
    recipe = study.recipe
    page = (
        environment()
        .get_template("dense.html.j2")
        .render(
            r=study.result,
            table=study.result.table(),
            overlays=overlays(study),
            data=cards.data_card(cards.place(path), recipe.plugin, {}, prepare=recipe.prepare),
            about=recipe.about,
            paper=recipe.paper,
            encoder=recipe.encoder.name if recipe.encoder else "",
            recipe=recipe_without_paths(recipe),
            command=command_without_paths(study.result.command)
            or "medcl finetune RECIPE.yaml --data IDX --out OUT",
            version=version.__version__,
            written=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        )
    )
    write_text(out, finished(page))
    return out


def overlays(study: DenseStudy) -> list[Overlay]:
    """Overlays of test images, some of each network, as far as the page holds them."""
    shown: list[Overlay] = []
    for network in study.networks:
        facts = study.facts(network)
        for drawn in facts["overlays"]:
            path = network / Path(drawn["file"]).name
            try:
                data = base64.b64encode(path.read_bytes()).decode("ascii")
            except OSError:
                continue
            shown.append(Overlay(facts["start"], f"data:image/png;base64,{data}", drawn["caption"]))
    return shown[:PICTURES]
