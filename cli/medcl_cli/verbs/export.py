"""medcl export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from medcl.errors import UsageError
from medcl_cli import options, show


def export(
    model: Annotated[
        Path, typer.Argument(help="A finished run; or a study of finetune, or one of its folds.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to create.")],
    to: Annotated[
        str,
        typer.Option(
            help="safetensors, onnx or torchscript; of an encoder, huggingface-folder or "
            "monai-bundle; or a format of the plugin (ct: nnunet); or released, with --card."
        ),
    ] = "safetensors",
    task: Annotated[
        str | None,
        typer.Option(help="Of a run: the encoder with the probe of this task or own label."),
    ] = None,
    card: Annotated[
        Path | None,
        typer.Option(help="Of released: YAML with about, data, licence and limits."),
    ] = None,
    board: Annotated[
        list[Path] | None,
        typer.Option(help="Of released: a folder of medcl benchmark, for the card's figures."),
    ] = None,
    data: show.Data = None,
    archive: show.Archive = None,
    dry_run: options.DryRun = False,
    json: show.Json = False,
) -> None:
    """Export an encoder, or what classifies, verified by loading it back.

    A study is one module: the mean of its folds' calibrated probabilities, and its threshold.

    Examples: medcl export run --to onnx --out encoder · medcl export study --to onnx --out af ·
    medcl export run --task aami-nsv --to torchscript --out probe ·
    medcl export run --to released --card card.yaml --board board --out released/ecg-small
    """
    import medcl
    from medcl.dense.kind import is_dense
    from medcl.dense.opened import DenseStudy
    from medcl.predict.opening import opened
    from medcl.run import Run

    if dry_run:
        options.dry({"run or study": model, "card": card, "format": to}, out, json=json)
        return
    if to == "released":
        if card is None:
            raise UsageError("An encoder is released with its card: --card CARD.yaml")
        made = medcl.release(model, out, card, board or ()).as_dict()
        if json:
            show.as_json(made)
        else:
            shown = ("name", "input", "width", "parameters", "bytes", "sha256")
            show.facts("Released", {"out": out, **{name: made[name] for name in shown}})
        return
    if card is not None or board:
        raise UsageError("--card and --board go with --to released.")
    source = DenseStudy.open(model) if is_dense(model) else opened(model)
    result: dict[str, Any]
    if isinstance(source, DenseStudy) or (isinstance(source, Run) and to in source.plugin.exports):
        result = {"out": medcl.export_as(source, out, to=to), "format": to}
    elif isinstance(source, Run) and task is None:
        exported = medcl.export_encoder(source, out, to=to)  # type: ignore[arg-type]
        result = {
            "out": exported.path,
            "format": exported.to,
            "sample": " × ".join(str(n) for n in exported.shape),
            "width": exported.width,
            "difference": f"{exported.difference:.1e}",
        }
    else:
        classified = medcl.export_classifier(source, out, to=to, task=task)  # type: ignore[arg-type]
        shapes = {
            name: " × ".join("any" if n is None else str(n) for n in shape)
            for name, shape in classified.inputs.items()
        }
        result = {
            "out": classified.path,
            "format": classified.to,
            "input": "; ".join(f"{name} {shape}" for name, shape in shapes.items()),
            "classes": ", ".join(classified.classes),
            "threshold": classified.threshold,
            "difference": f"{classified.difference:.1e}",
        }
    if json:
        show.as_json(result)
    else:
        show.facts("Exported", result)
