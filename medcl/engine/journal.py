"""metrics.csv and loggers: loss, learning rate and monitors by step."""

from __future__ import annotations

import csv
import io
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

from medcl.engine import monitors
from medcl.engine.loggers import Logger, opened
from medcl.engine.module import Pretraining
from medcl.io import room
from medcl.io.atomic import write_text
from medcl.nn.distributed import ranks


class Table:
    """A CSV file of rows keyed by ``step``. `add` appends whole rows and flushes them."""

    def __init__(self, path: Path, last: int, state: Mapping[str, Any] | None = None) -> None:
        """Open the file and drop rows after step ``last``, which a killed run wrote.

        ``state``, a `state` of the checkpoint, replaces the content of the file.
        """
        self.path = path
        self.columns = ["step", "loss", "lr", "embedding_std"]
        self.rows: list[dict[str, str]] = []
        if state is not None and last >= 0:
            self.columns = list(state["columns"])
            self.rows = [dict(row) for row in state["rows"]]
        elif path.is_file() and last >= 0:
            with path.open(newline="", encoding="utf-8") as handle:
                header, *lines = csv.reader(handle)
            self.columns = header
            whole = [dict(zip(header, line, strict=True)) for line in lines if _whole(line, header)]
            self.rows = [row for row in whole if int(row["step"]) <= last]
        self._rewrite()

    def state(self) -> dict[str, Any]:
        """All rows until now, for the checkpoint: a resumed run does not rely on the file."""
        return {"columns": list(self.columns), "rows": [dict(row) for row in self.rows]}

    def add(self, row: dict[str, float | int]) -> None:
        """Append a row; unknown columns are added to the right."""
        text = {key: repr(value) for key, value in row.items()}
        self.rows.append(text)
        new = [key for key in row if key not in self.columns]
        if new:
            self.columns += new
            self._rewrite()
        else:
            with (
                room.told(self.path),
                self.path.open("a", newline="", encoding="utf-8") as handle,
            ):
                handle.write(self._lines([text]))

    def _rewrite(self) -> None:
        write_text(
            self.path, self._lines([{column: column for column in self.columns}, *self.rows])
        )

    def _lines(self, rows: list[dict[str, str]]) -> str:
        buffer = io.StringIO()
        csv.DictWriter(buffer, self.columns, restval="", lineterminator="\n").writerows(rows)
        return buffer.getvalue()


def _whole(line: list[str], header: list[str]) -> bool:
    return len(line) == len(header) and line[0].isdigit()


class Journal(Callback):
    """Writes rows at steps 0 and 1, every ``log_every`` steps, at evaluations and at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.last: dict[str, float] = {}  # the newest value of each column
        self.table: Table | None = None
        self.restored: dict[str, Any] | None = None
        self.name = uuid.uuid4().hex[:16]  # of this run for loggers, also where it is resumed
        self.loggers: list[Logger] = []

    def state_dict(self) -> dict[str, Any]:
        """Goes into the checkpoint."""
        return {} if self.table is None else {**self.table.state(), "name": self.name}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Comes from the checkpoint."""
        self.restored = state if "rows" in state else None
        self.name = state.get("name", self.name)

    def on_train_start(self, trainer: Trainer, module: Pretraining) -> None:  # type: ignore[override]
        """Continue the files from where the checkpoint was written."""
        if trainer.is_global_zero:
            step, recipe = trainer.global_step, module.recipe
            self.table = Table(self.folder / "metrics.csv", step if step else -1, self.restored)
            self.loggers = opened(
                recipe.monitor.loggers, self.folder, self.name, recipe.name, after=step
            )
        self._write(trainer, module, {})

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, module: Pretraining, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After the last micro-batch of a step that is due."""
        settings, step = module.recipe.trainer, trainer.global_step
        if (batch_idx + 1) % settings.accumulate:
            return
        due = step % settings.log_every == 0 or step in (1, settings.steps)
        if due or module.online_metrics:
            self._write(trainer, module, {"loss": 0.0, "lr": module.lr} | measure(module))

    def _write(self, trainer: Trainer, module: Pretraining, values: dict[str, float]) -> None:
        values = values | module.online_metrics
        module.online_metrics = {}
        if not values or self.table is None:  # only the first process writes
            return
        self.last |= values
        self.table.add({"step": trainer.global_step, **values})
        with room.told(self.folder):
            for logger in self.loggers:
                logger.log(trainer.global_step, values)

    def on_fit_end(self, trainer: Trainer, module: Pretraining) -> None:  # type: ignore[override]
        """End what is open."""
        self._close()

    def on_exception(  # type: ignore[override]
        self, trainer: Trainer, module: Pretraining, exception: BaseException
    ) -> None:
        """End what is open when training fails."""
        self._close()

    def _close(self) -> None:
        loggers, self.loggers = self.loggers, []
        with room.told(self.folder):
            for logger in loggers:
                logger.close()


def measure(module: Pretraining) -> dict[str, float]:
    """The scalars of the method at this step: mean over micro-batches and ranks."""
    names = list(module.scalars[0])
    values = torch.tensor(
        [[float(micro[name]) for name in names] for micro in module.scalars], device=module.device
    ).mean(dim=0)
    processes = ranks()
    embedding = processes.gather(module.embedding.detach().float())
    std = {"embedding_std": float(monitors.embedding_std(embedding))}
    return dict(zip(names, processes.mean(values).tolist(), strict=True)) | std
