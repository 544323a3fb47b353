"""medcl benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medcl.errors import UsageError
from medcl_cli import options, show


def benchmark(
    name: Annotated[str | None, typer.Argument(help="The set; none: list all.")] = None,
    encoders: Annotated[
        list[Path] | None, typer.Argument(help="Runs, released encoders, or folders of them.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="The folder into which it unpacked.")] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The scoreboard's folder. The same again resumes it."),
    ] = None,
    problem: Annotated[
        list[str] | None, typer.Option(help="Of the set, by default its first. May be repeated.")
    ] = None,
    fractions: Annotated[
        str | None,
        typer.Option(help="Shares of the training patients that are labelled: 1,0.1,0.01."),
    ] = None,
    fit: Annotated[
        str | None, typer.Option(help="Folds to fit on, not the official ones: 1-6.")
    ] = None,
    judge: Annotated[
        str | None, typer.Option(help="Folds to test on, not the official ones: 7.")
    ] = None,
    supervised: Annotated[
        bool,
        typer.Option("--supervised", help="Also train the networks with labels alone: slow."),
    ] = False,
    head: Annotated[
        list[str] | None,
        typer.Option(help="Of a set of bags, by default all that it names. May be repeated."),
    ] = None,
    device: options.Device = "auto",
    workers: options.Workers = None,
    dry_run: options.DryRun = False,
    json: show.Json = False,
) -> None:
    """Measure encoders on a public set in its official folds, beside the features to beat.

    Examples: medcl benchmark · medcl benchmark ptbxl run --data ptb-xl --out board ·
    medcl benchmark ptbxl run --data ptb-xl --fit 1-6 --judge 7 --out choices ·
    medcl benchmark musk1 --head abmil --data mil --out bags
    """
    import medcl
    from medcl.benchmark.benchmark import available
    from medcl.doctor import cores

    if name is None:
        rows = [(known, plugin) for known, (plugin, _) in available().items()]
        if json:
            show.as_json([dict(zip(("name", "plugin"), row, strict=True)) for row in rows])
        else:
            show.table("Benchmarks", ("name", "plugin"), rows)
        return
    if data is None or out is None:
        raise UsageError(f"Give the set and a folder: medcl benchmark {name} --data SET --out DIR")
    if dry_run:
        options.dry({"set": name, "data": data, "encoders": encoders}, out, json=json)
        return
    result = medcl.benchmark(
        name,
        data,
        out,
        encoders or (),
        problems=problem or (),
        fractions=_numbers(fractions),
        fit=_folds(fit),
        judge=_folds(judge),
        supervised=supervised,
        heads=head or (),
        device=device,
        workers=workers or cores(),
        command=show.command(),
    )
    if json:
        show.as_json(result.as_dict())
        return
    for asked in result.problems:
        show.table(f"{asked['name']}: {asked['metric']}", *result.table(asked["name"]))
        if (ranked := result.ranked(asked)) is not None:
            show.table("Macro AUROC", *ranked)
        columns, gains = result.gains(asked["name"])
        if gains:
            show.table("Differences, paired", columns, gains)
        for sentence in result.verdict(asked["name"]):
            typer.echo(sentence)
    for note in result.notes:
        typer.echo(f"Note: {note}")
    typer.echo(f"Page: {out / 'benchmark.html'}")


def _numbers(text: str | None) -> list[float]:
    try:
        return [float(word) for word in text.split(",")] if text else []
    except ValueError:
        raise UsageError(f"--fractions {text}: give shares such as 1,0.1,0.01.") from None


def _folds(text: str | None) -> list[int]:
    """``"1-6,8"`` as numbers."""
    out: list[int] = []
    try:
        for word in text.split(",") if text else ():
            first, _, last = word.partition("-")
            out += range(int(first), int(last or first) + 1)
    except ValueError:
        raise UsageError(f"{text}: give folds such as 1-6,8.") from None
    return out
