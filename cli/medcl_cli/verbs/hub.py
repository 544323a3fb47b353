"""medcl push and medcl pull."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medcl_cli import options, show

Name = Annotated[str, typer.Argument(help="Of the repository: OWNER/NAME.")]


def push(
    folder: Annotated[Path, typer.Argument(help="An encoder of medcl export.")],
    name: Name,
    public: Annotated[
        bool, typer.Option("--public", help="A new repository that everybody can read.")
    ] = False,
    dry_run: options.DryRun = False,
    json: show.Json = False,
) -> None:
    """Upload an exported encoder to the Hugging Face Hub; private unless --public.

    Examples: medcl export run --to huggingface-folder --out encoder · medcl push encoder me/ecg
    """
    import medcl

    if dry_run:
        options.dry({"encoder": folder, "repository": name}, None, json=json)
        return
    result = {"repository": name, "commit": medcl.push(folder, name, public=public)}
    if json:
        show.as_json(result)
    else:
        show.facts("Pushed", result)


def pull(
    name: Name,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to create.")],
    revision: Annotated[
        str | None, typer.Option(help="A branch, tag or commit; the default branch without it.")
    ] = None,
    dry_run: options.DryRun = False,
    json: show.Json = False,
) -> None:
    """Download an encoder of medcl push, checked by SHA-256; none of its code is run.

    Example: medcl pull me/ecg --out encoder
    """
    import medcl

    if dry_run:
        options.dry({"repository": name, "revision": revision}, out, json=json)
        return
    result = {"repository": name, "out": medcl.pull(name, out, revision=revision)}
    if json:
        show.as_json(result)
    else:
        show.facts("Pulled", result)
