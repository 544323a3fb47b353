"""medcl watch."""

from __future__ import annotations

import csv
import json as parser
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from medcl_cli import show

BLOCKS = "▁▂▃▄▅▆▇█"
WIDTH = 48


def watch(
    run: Annotated[Path, typer.Argument(help="A run, finished or in training.")],
    every: Annotated[float, typer.Option(min=0.2, help="Seconds between looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Draw the curves once, and stop.")] = False,
    json: show.Json = False,
) -> None:
    """Draw the training curves of a run in the terminal, until it has finished.

    Example: medcl watch run
    """
    from medcl.errors import UsageError

    if not run.is_dir():
        raise UsageError(f"{run} is no run: give the folder of medcl pretrain --out.")
    if json:
        show.as_json(curves(run))
        return
    drawn = 0
    while True:
        lines = picture(run)
        if drawn and sys.stdout.isatty():
            typer.echo(f"\033[{drawn}F\033[J", nl=False)  # back over the last picture
        typer.echo("\n".join(lines))
        drawn = len(lines)
        if once or finished(run):
            return
        time.sleep(every)


def curves(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Column of metrics.csv → its (step, value) pairs; empty before the first."""
    path = run / "metrics.csv"
    out: dict[str, list[tuple[int, float]]] = {}
    if not path.is_file():
        return out
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            for name, text in row.items():
                if name == "step" or not text:
                    continue
                try:
                    out.setdefault(name, []).append((int(row["step"]), float(text)))
                except (TypeError, ValueError):  # a line that is being written
                    continue
    return out


def picture(run: Path) -> list[str]:
    """A line for each column: its name, its curve, the range and the last value."""
    series = curves(run)
    if not series:
        return [f"{run}: no metrics yet"]
    step = max(points[-1][0] for points in series.values())
    wide = max(len(name) for name in series)
    head = f"{run}: step {step:,}{', finished' if finished(run) else ''}"
    return [head, *(_line(name.ljust(wide), points) for name, points in series.items())]


def _line(name: str, points: list[tuple[int, float]]) -> str:
    values = [value for _, value in points if value == value]
    if not values:
        return f"{name}  NaN"
    parts = min(WIDTH, len(values))
    means = []
    for n in range(parts):
        piece = values[n * len(values) // parts : (n + 1) * len(values) // parts]
        means.append(sum(piece) / len(piece))
    low, high = min(means), max(means)
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    curve = "".join(BLOCKS[round((mean - low) * scale)] for mean in means)
    return f"{name}  {curve.ljust(WIDTH)}  {low:.4g} to {high:.4g}, now {values[-1]:.4g}"


def finished(run: Path) -> bool:
    """Whether run.json says so."""
    path = run / "run.json"
    try:
        return bool(parser.loads(path.read_text(encoding="utf-8")).get("finished"))
    except (OSError, ValueError):
        return False
