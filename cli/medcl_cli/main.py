"""The `medcl` command: a Typer app that turns arguments into calls, and errors into one line.

Nothing here imports torch, lightning or monai; each verb imports what it needs when it runs.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from medcl.errors import MedclError, MedclWarning, UsageError
from medcl.io import log, room, stopping, storage
from medcl_cli.verbs import (
    anomaly,
    audit_phi,
    beats,
    benchmark,
    compare,
    curate,
    demo,
    doctor,
    embed,
    encoders,
    evaluate,
    export,
    finetune,
    hub,
    index,
    match,
    plugins,
    predict,
    prepare,
    pretrain,
    probe,
    recipes,
    report,
    runs,
    schema,
    search,
    store,
    views,
    watch,
)

app = typer.Typer(
    name="medcl",
    help="From an archive of medical or sensor data to an evaluated, pretrained encoder.",
    epilog="Start with: medcl demo",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,  # its dump of local variables could show patient data
)

# In the order of use.
app.command()(demo.demo)
app.command()(doctor.doctor)
app.add_typer(plugins.app, name="plugins")
app.command()(recipes.recipes)
app.command()(views.views)
app.command()(index.index)
app.command()(match.match)
app.command()(curate.curate)
app.command()(prepare.prepare)
app.command()(store.store)
app.command()(pretrain.pretrain)
app.command()(watch.watch)
app.command()(encoders.encoders)
app.command()(embed.embed)
app.command()(probe.probe)
app.command()(finetune.finetune)
app.command()(evaluate.evaluate)
app.command()(compare.compare)
app.command()(audit_phi.audit_phi)
app.command()(benchmark.benchmark)
app.command()(report.report)
app.command()(runs.runs)
app.command()(predict.predict)
app.command()(beats.beats)
app.command()(search.search)
app.command()(anomaly.anomaly)
app.command()(export.export)
app.command()(hub.push)
app.command()(hub.pull)
app.command()(schema.schema)


def _version(requested: bool) -> None:
    if requested:
        import medcl

        typer.echo(f"medcl {medcl.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    log_format: Annotated[
        Literal["text", "json"],
        typer.Option(envvar=log.FORMAT, help="Of warnings, errors and progress on standard error."),
    ] = "text",
) -> None:
    os.environ[log.FORMAT] = log_format  # worker processes see it too


def _say(message: Warning | str, category: type[Warning], *location: Any, **more: Any) -> None:
    """Print medcl's own warnings as one line."""
    if issubclass(category, MedclWarning):
        log.say("warning", str(message))
    else:
        _show(message, category, *location, **more)


_show = warnings.showwarning


def main() -> None:
    """Run the command line.

    Exit codes: 0; 1 for failed work; 2 for wrong usage; 130 after Ctrl-C, 143 after SIGTERM,
    129 after SIGHUP, 138 after SIGUSR1.
    """
    warnings.showwarning = _say
    try:
        with stopping.handled():
            _refuse_outputs_elsewhere(sys.argv)
            app()
    except UsageError as error:
        _fail(_sentence(error), 2)
    except MedclError as error:
        _fail(_sentence(error), 1)
    except OSError as error:  # a folder that may not be written, a full disk
        if room.is_full(error):
            _fail(room.sentence(Path(error.filename or tempfile.gettempdir())), 1)
        file = f"{error.filename}: " if error.filename is not None else ""
        _fail(f"{file}{error.strerror or error}", 1)
    except stopping.Stopped as stop:
        queued = stopping.requeue(stop)
        again = queued or "The same command again goes on from here."
        log.say("stopped", f"Stopped. {again}", exit_code=stop.code)
        sys.exit(stop.code)


def _refuse_outputs_elsewhere(words: list[str]) -> None:
    """An address as --out would make a folder named ``s3:`` here, whatever the verb."""
    for option, value in pairwise(words):
        name, _, joined = option.partition("=")
        if name in ("--out", "-o"):
            storage.refuse_output(joined or value)


def _sentence(error: MedclError) -> str:
    """The message of an error, without the traceback that a loader process wraps around it."""
    text = str(error)
    if text.startswith("Caught ") and "Original Traceback" in text:
        return text.rstrip().rpartition("\n")[2].partition(": ")[2]
    return text


def _fail(message: object, code: int) -> None:
    log.say("error", str(message), exit_code=code)
    sys.exit(code)


if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]  # python -m puts the current folder first: a plugin there is data, not code
    main()
