"""medcl embed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medcl_cli import show


def embed(
    run: Annotated[Path, typer.Argument(help="A finished run.")],
    out: Annotated[Path, typer.Option(help="The folder for the embeddings.")],
    data: Annotated[
        Path | None, typer.Option(help="Another index than the run was trained on.")
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="Embed the samples of this task (beats, say).")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 512,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "auto",
    json: show.Json = False,
) -> None:
    """Embed every sample of an index with a run's encoder.

    Example: medcl embed run --out embeddings
    """
    from medcl.evaluate.embeddings import embed_run
    from medcl.run import Run

    made = embed_run(Run.open(run), data, out, task=task, batch_size=batch_size, device=device)
    result = {
        "out": out,
        "samples": len(made.ids),
        "patients": len(set(made.patients)),
        "width": made.x.shape[1],
    }
    if json:
        show.as_json(result)
    else:
        show.facts("Embeddings", result)
