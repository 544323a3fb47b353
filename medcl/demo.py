"""All steps from an archive to a report, on a plugin's bundled sample or on the user's archive."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medcl import plugin as plugins
from medcl import recipe as recipes
from medcl.errors import UsageError

PUBLIC_KEY = "the bundled samples are public: this key hides nothing"
"""Fixed, so that pseudonyms, and with them split and metrics, are the same everywhere."""

if TYPE_CHECKING:
    from medcl.benchmark.scoreboard import Scoreboard
    from medcl.probe.localisation import Localisation
    from medcl.probe.probe import ProbeResult
    from medcl.run import Run


@dataclass(frozen=True)
class Demo:
    """The result of the demo. Without labels, ``probe`` is the localisation probe.

    ``board`` holds a released encoder's figures on people whom it has not seen, if the plugin
    brings one with them.
    """

    run: Run
    probe: ProbeResult | Localisation
    report: Path
    seconds: dict[str, float]
    board: Scoreboard | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "run": str(self.run.path),
            "report": str(self.report),
            "seconds": self.seconds,
            "probe": self.probe.as_dict(),
            "released": None if self.board is None else self.board.as_dict(),
        }


def demo(
    name: str,
    out: Path,
    overrides: Sequence[str] = (),
    *,
    archive: Path | None = None,
    recipe_name: str | None = None,
    released: bool = True,
    command: str = "",
    quiet: bool = False,
) -> Demo:
    """Index, pretrain, embed, probe and report on the sample of plugin ``name``; then measure its
    released encoder on people whom that has not seen.

    Run again in the same folder, it skips finished steps.

    Args:
        name: the plugin; for the user's archive, the recipe's is used.
        out: the output folder.
        overrides: ``section.key=value``.
        archive: a folder to use instead of the sample, such as one with a benchmark's file.
        recipe_name: the recipe for it.
        released: measure the released encoder too.
        command: the command line, for the record.
        quiet: print no progress.

    Raises:
        UsageError: if the plugin has no sample, or an archive comes without a recipe.
    """
    if (archive is None) != (recipe_name is None):
        raise UsageError("An own archive and its recipe go together: give --data and --recipe.")
    if archive is None or recipe_name is None:
        plugin = plugins.get(name)
        if plugin.sample is None or plugin.demo is None:
            raise UsageError(f"Plugin '{name}' brings no sample to demonstrate.")
        recipe, source, public = recipes.load(plugin.demo, overrides), plugin.sample, True
    else:
        recipe, source, public = recipes.load(recipe_name, overrides), archive, False
        plugin = plugins.get(recipe.plugin)

    from medcl.archive.index import build
    from medcl.embeddings.embeddings import embed_run
    from medcl.engine.pretrain import pretrain
    from medcl.io.atomic import write_text
    from medcl.probe.localisation import localise
    from medcl.probe.probe import probe
    from medcl.report.report import write
    from medcl.run import Run

    clock = _Clock(quiet)
    with clock("index", f"the archive in {source.name}/"):
        key = out / "public.key" if public else None  # real patients need a secret key
        if key is not None:
            write_text(key, PUBLIC_KEY)
        summary = build(source, out / "index", plugin, key_file=key)
    clock.say(f"{summary.items} items of {summary.patients} patients, {summary.rejected} rejected")
    with clock("pretrain", f"{recipe.name}: {recipe.trainer.steps} steps without labels"):
        run = pretrain(recipe, out / "index", out / "run", command=command)
    with clock("embed", "every sample with the pretrained encoder"):
        embed_run(run, None, out / "embeddings")
    result: ProbeResult | Localisation
    if recipe.probe.task is None:
        with clock("probe", "is the same place found again? No labels are needed"):
            result = localise(run)
    else:
        with clock("probe", "frozen features against a random encoder and hand-crafted features"):
            result = probe([run], command=f"medcl probe {run.path}")
    with clock("report", "one HTML page"):
        page = write(Run.open(run.path), out / "report.html")
    board = None
    if released and public and (shown := plugin.showcase) is not None:
        from medcl.benchmark.benchmark import benchmark

        with clock("released", f"{shown.encoder} on {shown.about}"):
            board = benchmark(
                shown.benchmark,
                shown.data,
                out / "released",
                {shown.encoder: Run.open(Path(shown.encoder))},
                fractions=shown.fractions,
                command=command,
            )
    return Demo(run, result, page, clock.seconds, board)


class _Clock:
    """Prints each step and its duration in seconds."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.seconds: dict[str, float] = {}

    def say(self, text: str) -> None:
        if not self.quiet:
            print(f"            {text}", file=sys.stderr)

    def __call__(self, step: str, about: str) -> _Clock:
        if not self.quiet:
            print(f"{step:>10}: {about}", file=sys.stderr)
        self.step = step
        return self

    def __enter__(self) -> None:
        self.start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds[self.step] = round(time.perf_counter() - self.start, 1)
        self.say(f"{self.seconds[self.step]} s")
