"""medcl export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medcl_cli import show


def export(
    run: Annotated[Path, typer.Argument(help="A finished run.")],
    out: Annotated[Path, typer.Option(help="The folder to create.")],
    to: Annotated[
        str, typer.Option(help="safetensors, onnx, torchscript or huggingface-folder.")
    ] = "safetensors",
    json: show.Json = False,
) -> None:
    """Export a run's encoder with a model card, verified by loading it back.

    Example: medcl export run --to onnx --out encoder
    """
    from medcl.export import export as write
    from medcl.run import Run

    exported = write(Run.open(run), out, to=to)  # type: ignore[arg-type]  # checked there
    result = {
        "out": exported.path,
        "format": exported.to,
        "sample": " × ".join(str(n) for n in exported.shape),
        "width": exported.width,
        "difference": f"{exported.difference:.1e}",
    }
    if json:
        show.as_json(result)
    else:
        show.facts("Exported", result)
