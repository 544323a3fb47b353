"""Progress of pretraining: a bar on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import sys
from typing import Any

from lightning.pytorch import Callback, Trainer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from medcl.engine.journal import Journal
from medcl.engine.module import Pretraining
from medcl.io.progress import Lines


def say(text: str) -> None:
    """Print one line, if stderr is a terminal."""
    if sys.stderr.isatty():
        Console(stderr=True).print(text)


class Show(Callback):
    """A progress bar with the newest loss and metrics, on the first rank's terminal."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.bar: Progress | None = None
        self.lines: Lines | None = None

    def on_train_start(self, trainer: Trainer, module: Pretraining) -> None:  # type: ignore[override]
        """Start the bar."""
        if not trainer.is_global_zero:
            return
        if not sys.stderr.isatty():
            steps = module.recipe.trainer.steps
            self.lines = Lines("Pretraining", steps, trainer.global_step)
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        text = TextColumn("{task.fields[values]}")
        console = Console(stderr=True)
        self.bar = Progress(*columns, TimeRemainingColumn(), text, console=console)
        steps = module.recipe.trainer.steps
        done = trainer.global_step
        self.task = self.bar.add_task("pretrain", total=steps, completed=done, values="")
        self.bar.start()

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, module: Pretraining, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the bar."""
        values = [f"{k} {v:.3g}" for k, v in self.journal.last.items() if k in SHOWN]
        step = trainer.global_step
        if self.lines is not None and step > self.lines.done:
            self.lines.one_more(", ".join(values))
        if self.bar is not None:
            self.bar.update(self.task, completed=step, values="  ".join(values))

    def on_fit_end(self, trainer: Trainer, module: Pretraining) -> None:  # type: ignore[override]
        """Restore the terminal."""
        self._stop()

    def on_exception(  # type: ignore[override]
        self, trainer: Trainer, module: Pretraining, exception: BaseException
    ) -> None:
        """Restore the terminal when training fails."""
        self._stop()

    def _stop(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


SHOWN = ("loss", "spread", "knn")


def _patients(count: int | None) -> str:
    return "unknown patients" if count is None else f"{count:,} patients"


def summary(facts: dict[str, Any], metrics: dict[str, float], folder: str) -> None:
    """Print the result as a small table."""
    if not sys.stderr.isatty():
        return
    table = Table(title="Pretrained", show_header=False)
    table.add_column()
    table.add_column(overflow="fold")  # never truncate a path: users copy it
    rows = {
        "steps": f"{facts['steps']:,}",
        "training samples": f"{facts['samples']:,} of {_patients(facts['patients'])}",
        "time": f"{facts['seconds']:.0f} s, {facts['samples_per_second']:,.0f} samples/s",
    }
    rows |= {key: f"{value:.4g}" for key, value in metrics.items()}
    rows["encoder"] = f"{folder}/encoder.safetensors"
    for key, value in rows.items():
        table.add_row(key, value)
    Console(stderr=True).print(table)
