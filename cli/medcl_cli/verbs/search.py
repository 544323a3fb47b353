"""medcl search."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medcl_cli import options, show


def search(
    run: Annotated[Path, typer.Argument(help="A finished run.")],
    query: Annotated[
        str,
        typer.Argument(
            help="An item's or sample's id, a path in the archive, or a file elsewhere."
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(callback=show.lies_data, help="Another index than that of training."),
    ] = None,
    k: Annotated[int, typer.Option("--k", min=1, help="Number of cases.")] = 10,
    where: Annotated[
        list[str] | None,
        typer.Option(help="A condition on a column of the index: kvp>=100. May be repeated."),
    ] = None,
    level: Annotated[
        str | None, typer.Option(help="item or sample; by default that of the query.")
    ] = None,
    every: Annotated[
        bool, typer.Option("--every", help="Allow several cases of one patient.")
    ] = False,
    own: Annotated[bool, typer.Option("--own", help="Include the query's own patient.")] = False,
    task: Annotated[str | None, typer.Option(help="Search the samples of this task.")] = None,
    pull: Annotated[
        float, typer.Option(min=0, max=1, help="From the pretrained space (0) to the labels' (1).")
    ] = 0.0,
    source: Annotated[
        str | None,
        typer.Option("--from", help="Modality of the query, for a two-tower run: ecg."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option("--to", help="Modality of the cases; by default the other one."),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="A page with the cases' pictures.")] = None,
    key_file: Annotated[
        Path | None, typer.Option(help="Secret for pseudonyms, if the run's index had one.")
    ] = None,
    device: options.Device = "auto",
    archive: show.Archive = None,
    json: show.Json = False,
) -> None:
    """Find the cases most similar to a query, at most one per patient.

    Examples: medcl search run i_0f3a… --where "kvp>=100" --html cases.html ·
    medcl search run new_ecg.hea --from ecg --to ppg
    """
    from medcl.retrieval.search import search as find
    from medcl.run import Run, load_samples

    opened = Run.open(run)
    result = find(
        opened,
        query,
        data=data,
        k=k,
        where=where or (),
        level=level,  # type: ignore[arg-type]  # checked there
        per_patient=not every,
        own_patient=own,
        task=task,
        pull=pull,
        source=source,
        target=target,
        key_file=key_file,
        device=device,
    )
    if html is not None:
        from medcl.report.retrieval_page import write

        write(result, load_samples(opened.recipe, data or opened.data, task=task), html)
    if json:
        show.as_json(result.as_dict())
        return
    rows = [
        [
            *(h.rank, f"{h.similarity:.3f}", h.item, h.sample, h.patient),
            *("missing" if value is None else str(value) for value in h.labels.values()),
        ]
        for h in result.hits
    ]
    labels = list(result.hits[0].labels) if result.hits else []
    columns = ["rank", "similarity", "item", "sample", "patient", *labels]
    across = f" (from {result.sides[0]} to {result.sides[1]})" if result.sides else ""
    show.table(f"Like {result.query}{across}, of {result.patients} patients", columns, rows)
    if result.random is not None:
        low, middle, high = result.random
        typer.echo(
            f"Random pairs of different patients: {middle:.3f} (5th to 95th percentile "
            f"{low:.3f} to {high:.3f})."
        )
    for note in result.notes:
        typer.echo(note)
