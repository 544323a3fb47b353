"""medcl export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medcl.errors import UsageError
from medcl_cli import show


def export(
    run: Annotated[Path, typer.Argument(help="A finished run; or a study of masks.")],
    out: Annotated[Path, typer.Option(help="The folder to create.")],
    to: Annotated[
        str,
        typer.Option(
            help="safetensors, onnx, torchscript or huggingface-folder; or a format of the plugin "
            "(ct: nnunet)."
        ),
    ] = "safetensors",
    json: show.Json = False,
) -> None:
    """Export a run's encoder with a model card, verified by loading it back.

    Example: medcl export run --to onnx --out encoder
    """
    from medcl.dense.opened import DenseStudy, is_dense
    from medcl.export import export as write
    from medcl.registry import lookup
    from medcl.run import Run, Trained

    trained: Trained = DenseStudy.open(run) if is_dense(run) else Run.open(run)
    if to in trained.plugin.exports:
        path = lookup(trained.plugin.exports, to, "format")(trained, out)
        show.as_json({"out": path}) if json else show.facts("Exported", {"out": path})
        return
    if not isinstance(trained, Run):
        known = ", ".join(trained.plugin.exports) or "none"
        raise UsageError(f"A study of masks is written in formats of its plugin: {known}.")
    exported = write(trained, out, to=to)  # type: ignore[arg-type]  # checked there
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
