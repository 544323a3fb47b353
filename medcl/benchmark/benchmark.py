"""``medcl benchmark``: a public set in its official folds, every row by the same code.

::

    OUT/archive/          links to the files of a set that is some of its folder's
    OUT/index/            of the set's recordings
    OUT/features/         of each encoder, and hand-crafted
    OUT/scores/           predictions of the test recordings, for each row, fraction and draw
    OUT/rows.csv          a line for each of them, as they come
    OUT/benchmark.json    all figures (`Scoreboard`), with intervals
    OUT/benchmark.html    the same as a page

The same command again continues: what is there is not made again. Other fractions, problems or
encoders are added.
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medcl import manifest
from medcl import plugin as plugins
from medcl.archive import index as indexing
from medcl.benchmark import fitting, page, scoreboard
from medcl.benchmark import supervised as supervised_row
from medcl.benchmark.contract import (
    BESIDE,
    ENSEMBLE,
    HANDCRAFTED,
    KEY,
    SUPERVISED,
    UNTRAINED,
    Benchmark,
    Problem,
)
from medcl.benchmark.fitting import Asked
from medcl.benchmark.scoreboard import Scoreboard
from medcl.benchmark.sources import Row, Sources, file_name, rows
from medcl.errors import MedclError, UsageError
from medcl.io.cells import safe
from medcl.metrics.measures import measure
from medcl.metrics.metrics import once
from medcl.nn.feature_groups import LEARNED
from medcl.private import command_without_paths
from medcl.provenance import commit, versions
from medcl.recipe import Recipe, given
from medcl.registry import did_you_mean, resolve
from medcl.run import Run

FRACTIONS = (0.01, 0.1, 1.0)
ROWS, JSON, HTML = "rows.csv", "benchmark.json", "benchmark.html"
FROZEN = "Linear classifiers on frozen features, fitted on shares of the training patients."
HEADS = (
    "Each head is trained whole, with labels, on the bags of the folds that it is not judged on."
)
_COLUMNS = ("problem", "row", "fraction", "draw", "patients", "auroc", "metric", "value")

Drawn = dict[float, list[tuple[int, NDArray[np.float32]]]]


def available() -> dict[str, tuple[str, str]]:
    """Set → its plugin, and the function that opens it."""
    found: dict[str, tuple[str, str]] = {}
    for plugin in plugins.discover().values():
        if isinstance(plugin, plugins.Plugin):
            found |= {name: (plugin.name, lazy) for name, lazy in plugin.benchmarks.items()}
    return dict(sorted(found.items()))


def opened(name: str, data: Path) -> tuple[str, Benchmark]:
    """A set in a folder: its plugin's name, and what it says.

    Raises:
        UsageError: for an unknown set, or a folder that does not hold it.
    """
    known = available()
    if name not in known:
        raise UsageError(f"Unknown benchmark '{name}'. {did_you_mean(name, known)}")
    if not data.is_dir():
        raise UsageError(f"{data} is no folder: give the one into which {name} was unpacked.")
    plugin, lazy = known[name]
    benchmark: Benchmark = resolve(lazy)(data)
    return plugin, benchmark


def benchmark(
    name: str,
    data: Path,
    out: Path,
    runs: Mapping[str, Run],
    *,
    problems: Sequence[str] = (),
    fractions: Sequence[float] = (),
    fit: Sequence[int] = (),
    judge: Sequence[int] = (),
    supervised: bool = False,
    heads: Sequence[str] = (),
    resamples: int = 1000,
    device: str = "auto",
    workers: int = 1,
    command: str = "",
) -> Scoreboard:
    """Measure encoders on a public set, beside untrained and hand-crafted features.

    A set of bags has heads in place of encoders: each is trained with labels, on all bags but those
    of the fold that it is judged on.

    Args:
        name: of the set.
        data: the folder into which it was unpacked.
        out: the scoreboard's folder; the same call resumes it.
        runs: encoders to measure, by the names that the rows get; none: the set's own untrained
            one.
        problems: of the set; none: the first.
        fractions: of labelled training patients, above 0 to 1; none: `FRACTIONS`, of heads all.
        fit, judge: folds, in place of the official ones.
        supervised: also train each network with labels alone; takes minutes each time.
        heads: of a set of bags; none: all that it names.
        resamples: of test patients.
        device: see `medcl.embeddings.embeddings.embed`.
        workers: processes that read and prepare.
        command: the command line, for the record.

    Raises:
        UsageError: for an unknown set, problem, head or fold, a folder that does not hold the set,
            heads of a set that has none, or encoders of one that has heads.
        MedclError: if recordings of the table cannot be read.
    """
    plugin_name, of_set = opened(name, data)
    chosen = _problems(of_set, problems)
    fractions = fractions or ((1.0,) if of_set.heads else FRACTIONS)
    if bad := [f for f in fractions if not 0 < f <= 1]:
        raise UsageError(f"A fraction of {bad[0]:g} of the patients: give shares above 0, to 1.")
    plugin = plugins.get(plugin_name)
    named_heads = _heads(of_set, heads, runs)
    for named, run in runs.items():
        if run.recipe.plugin != plugin_name:
            raise UsageError(
                f"{named} is an encoder of '{run.recipe.plugin}', not '{plugin_name}'."
            )
    index = out / "index"
    indexing.build(
        _archive(of_set, out),
        index,
        plugin,
        workers=workers,
        reader=of_set.reader or None,
        follow_links=bool(of_set.files),
    )
    _all_indexed(of_set, index)
    sources = Sources(of_set, index, out, runs, device=device, workers=workers)
    networks = [] if of_set.heads else _untrained(runs)
    table = rows(list(runs), networks, handcrafted=HANDCRAFTED in plugin.baselines)
    trained = {
        name: given(of_set.recipe, [*of_set.settings, *of_set.heads[name]]) for name in named_heads
    }
    if supervised:
        trained |= {
            f"{SUPERVISED} {name}": supervised_row.alone(sources.recipe(name)) for name in networks
        }
    figures = []
    for problem in chosen:
        asked = fitting.asked(of_set, problem, fit=fit, judge=judge)
        predictions: dict[str, Drawn] = {}
        for row in () if of_set.heads else table:
            made = _fitted(row, asked, sources, out, fractions)
            predictions[row.name] = _noted(made, out / ROWS, asked, row.name)
        for row_name, together in ensembles(list(runs), predictions).items():
            each = ((f, n, *pair) for f, drawn in together.items() for n, pair in enumerate(drawn))
            predictions[row_name] = _noted(each, out / ROWS, asked, row_name)
        for row_name, recipe in trained.items():
            made = _trained(row_name, recipe, asked, sources, out, fractions, device)
            predictions[row_name] = _noted(made, out / ROWS, asked, row_name)
        figures += scoreboard.figures(
            asked, predictions, references=references(list(predictions)), resamples=resamples
        )
    result = Scoreboard(
        benchmark=of_set.name,
        about=of_set.about,
        citation=of_set.citation,
        licence=of_set.licence,
        problems=[{"name": p.name, "metric": p.shown, "classes": list(p.classes)} for p in chosen],
        figures=figures,
        notes=[*of_set.notes, *_asked_for(fit, judge)],
        how=HEADS if of_set.heads else FROZEN,
        versions=versions(plugin_name) | {"commit": commit() or ""},
        command=command_without_paths(command),
    )
    text = json.dumps(result.as_dict(), indent=1, ensure_ascii=False, allow_nan=False)
    manifest.write_text(out / JSON, text + "\n")
    page.write(result, out / HTML)
    return result


def _asked_for(fit: Sequence[int], judge: Sequence[int]) -> list[str]:
    """That the folds are not the official ones."""
    named = (("fitted", fit), ("judged", judge))
    said = [f"{what} on {', '.join(map(str, folds))}" for what, folds in named if folds]
    return [f"Folds as asked for, in place of the set's own: {'; '.join(said)}."] if said else []


def _problems(of_set: Benchmark, names: Sequence[str]) -> list[Problem]:
    known = {problem.name: problem for problem in of_set.problems}
    if unknown := [name for name in names if name not in known]:
        raise UsageError(
            f"{of_set.name} has no problem '{unknown[0]}'. {did_you_mean(unknown[0], known)}"
        )
    return [known[name] for name in names] or [of_set.problems[0]]


def _heads(of_set: Benchmark, names: Sequence[str], runs: Mapping[str, Run]) -> list[str]:
    """The heads that are asked for.

    Raises:
        UsageError: for an unknown head, or what the set's rows are not.
    """
    if names and not of_set.heads:
        raise UsageError(f"{of_set.name} has no heads: its rows are encoders.")
    if runs and of_set.heads:
        raise UsageError(
            f"{of_set.name} holds bags of features, which no encoder sees: choose among its heads, "
            f"{', '.join(of_set.heads)}."
        )
    if unknown := [name for name in names if name not in of_set.heads]:
        raise UsageError(
            f"{of_set.name} has no head '{unknown[0]}'. {did_you_mean(unknown[0], of_set.heads)}"
        )
    return list(names) or list(of_set.heads)


def _archive(of_set: Benchmark, out: Path) -> Path:
    """The folder to index: the set's own, or one with links to the files of it that are wanted."""
    if not of_set.files:
        return of_set.archive
    folder = out / "archive"
    for name in of_set.files:
        link = folder / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to((of_set.archive / name).resolve())
    return folder


def _all_indexed(of_set: Benchmark, index: Path) -> None:
    """Check that every recording of the table is in the index.

    Raises:
        MedclError: if some are not, with the commonest reason.
    """
    opened = indexing.Index.open(index)
    indexed = opened.paths.filter(pl.col("id").is_in(opened.items["id"].implode()))
    missing = set(of_set.table[KEY]) - set(indexed["key"])
    rejected = opened.rejects["reason"].to_list()
    if missing:
        why = f" The first reject: {rejected[0]}" if rejected else ""
        raise MedclError(
            f"{len(missing):,} of {len(of_set.table):,} recordings of {of_set.name} are not in "
            f"{of_set.archive.name}, or cannot be read.{why}"
        )


def ensembles(runs: Sequence[str], predictions: Mapping[str, Drawn]) -> dict[str, Drawn]:
    """Mean probabilities of all runs' classifiers, draw by draw; none of a single run."""
    if len(runs) < 2:
        return {}
    return {
        f"{ENSEMBLE}{beside}": {
            fraction: [
                (drawn[0][0], np.mean([scores for _, scores in drawn], axis=0))
                for drawn in zip(
                    *(predictions[f"{run}{beside}"][fraction] for run in runs), strict=True
                )
            ]
            for fraction in predictions[f"{runs[0]}{beside}"]
        }
        for beside in ("", BESIDE)
        if f"{runs[0]}{beside}" in predictions
    }


def _untrained(runs: Mapping[str, Run]) -> list[str]:
    """A name for each architecture among the runs; of the set's own, without runs."""
    seen: dict[str, str] = {}
    for name, run in runs.items():
        recipe = run.recipe
        key = manifest.digest(
            recipe.part("encoder").model_dump_json(), dict(recipe.prepare), dict(recipe.dataset)
        )
        seen.setdefault(key, name)
    return list(seen.values()) or ["encoder"]


def _fitted(
    row: Row, asked: Asked, sources: Sources, out: Path, fractions: Sequence[float]
) -> Iterator[tuple[float, int, int, NDArray[np.float32]]]:
    used: list[object] = [[sources.digest(source) for source in g] for g in row.variants]
    if len(used) > 1:
        used.append(LEARNED)  # how they are weighted
    digest = _digest(asked, used)
    folder = out / "scores" / file_name(asked.problem.name) / f"{file_name(row.name)}.{digest}"
    return fitting.predicted(
        lambda draw: tuple(sources(source) for source in row.sources(draw)),
        asked,
        fractions,
        folder,
        initialisations=max(len(group) for group in row.variants),
    )


def _trained(
    name: str,
    recipe: Recipe,
    asked: Asked,
    sources: Sources,
    out: Path,
    fractions: Sequence[float],
    device: str,
) -> Iterator[tuple[float, int, int, NDArray[np.float32]]]:
    digest = _digest(asked, supervised_row.digest(recipe))
    place = out / "scores" / file_name(asked.problem.name) / f"{file_name(name)}.{digest}"
    return supervised_row.predicted(asked, sources, recipe, fractions, place, device=device)


def _noted(
    made: Iterable[tuple[float, int, int, NDArray[np.float32]]], path: Path, asked: Asked, row: str
) -> Drawn:
    """All predictions of a row, each with its line in rows.csv as it comes."""
    found: Drawn = defaultdict(list)
    for fraction, draw, people, scores in made:
        found[fraction].append((people, scores))
        _note(path, asked, row, fraction, draw, people, scores)
    return found


def _digest(asked: Asked, used: object) -> str:
    """A hash of what determines predictions: features or recipe, labels and parts."""
    parts: list[object] = [(part.train, part.test) for part in asked.parts]
    if asked.most is not None:
        parts.append(asked.most)
    labels = np.nan_to_num(np.asarray(asked.target.y, np.float64), nan=-1)
    return manifest.digest(used, parts, labels)[:12]


def references(names: Sequence[str]) -> dict[str, list[str]]:
    """What each row is compared with: hand-crafted features, untrained encoders (beside
    hand-crafted features, where the row is), and supervised networks."""
    base = [name for name in names if name.startswith((UNTRAINED, SUPERVISED))]
    out: dict[str, list[str]] = {}
    for row in names:
        if row == HANDCRAFTED:
            continue
        beaten = [
            name
            for name in base
            if name.startswith(SUPERVISED) or name.endswith(BESIDE) == row.endswith(BESIDE)
        ]
        out[row] = [HANDCRAFTED, *([] if row in base else beaten)]
    return out


def _note(
    path: Path,
    asked: Asked,
    row: str,
    fraction: float,
    draw: int,
    people: int,
    scores: NDArray[np.float32],
) -> None:
    """Append a line to rows.csv, unless it is there."""
    problem = asked.problem
    target = asked.target.at(asked.tested)
    found = measure(problem.kind, target.y, scores, once(len(target)))
    cells = [
        safe(problem.name),
        safe(row),
        f"{fraction:g}",
        str(draw),
        str(people),
        f"{float(found['auroc'][0]):.4f}",
        problem.shown,
        f"{float(problem.value(found)[0]):.4f}",
    ]
    there = list(csv.reader(path.open(encoding="utf-8"))) if path.is_file() else []
    if cells in there:
        return
    with path.open("a", encoding="utf-8", newline="") as handle:
        csv.writer(handle).writerows([cells] if there else [_COLUMNS, cells])
