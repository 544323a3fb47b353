"""Where a run's metrics are sent while it trains: TensorBoard, Weights & Biases, MLflow.

Loggers get numbers, their names and the recipe's name; no path, setting, host, command or code.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from medcl.errors import UsageError

NEEDS = {"wandb": "wandb", "mlflow": "mlflow"}
"""Logger → the package that it needs, which is the name of its extra too."""


class Logger(Protocol):
    """One place that metrics are sent to."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Send the values of one step."""
        ...

    def close(self) -> None:
        """Send what is left."""
        ...


def check(names: Sequence[str]) -> None:
    """Refuse loggers that are not installed.

    Raises:
        UsageError: naming the first.
    """
    for name in names:
        if name in NEEDS and find_spec(NEEDS[name]) is None:
            raise UsageError(
                f"monitor.loggers: {name} is not installed: pip install 'medcl[{name}]'."
            )


def opened(
    names: Sequence[str], folder: Path, run: str, recipe: str, *, after: int
) -> list[Logger]:
    """Loggers of a run.

    Args:
        names: of loggers.
        folder: the run's, where TensorBoard and an offline W&B write.
        run: an identifier that the run keeps when it is resumed.
        recipe: the recipe's name.
        after: the step that a resumed run begins at; 0 of a new one.

    Raises:
        UsageError: see `check`.
    """
    check(names)
    return [LOGGERS[name](folder, run, recipe, after) for name in names]


class TensorBoard:
    """Event files in ``RUN/tensorboard``."""

    def __init__(self, folder: Path, run: str, recipe: str, after: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        purge = after + 1 if after else None
        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=purge)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """See `Logger`."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        """See `Logger`."""
        self.writer.close()


class WandB:
    """Weights & Biases; ``WANDB_MODE=offline`` writes to ``RUN/wandb`` alone.

    Its own monitoring of the machine, command and code is off: they may name a patient.
    """

    def __init__(self, folder: Path, run: str, recipe: str, after: int) -> None:
        import wandb

        private = wandb.Settings(
            disable_code=True,
            disable_git=True,
            save_code=False,
            console="off",
            silent=True,
            x_disable_meta=True,
            x_disable_stats=True,
        )
        self.run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "medcl"),
            id=run,
            name=recipe,
            resume="allow",
            dir=str(folder),
            settings=private,
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """See `Logger`. Steps that were sent before an interruption are not sent twice."""
        self.run.log(dict(values), step=step)

    def close(self) -> None:
        """See `Logger`."""
        self.run.finish()


class MLflow:
    """MLflow, at ``MLFLOW_TRACKING_URI``; experiment ``MLFLOW_EXPERIMENT_NAME`` or "medcl"."""

    def __init__(self, folder: Path, run: str, recipe: str, after: int) -> None:
        from mlflow.tracking import MlflowClient

        self.client: Any = MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "medcl")
        experiment = self.client.get_experiment_by_name(name)
        where = (
            self.client.create_experiment(name)
            if experiment is None
            else (experiment.experiment_id)
        )
        known = self.client.search_runs([where], filter_string=f"tags.medcl_run = '{run}'")
        self.run = (
            known[0].info.run_id
            if known
            else self.client.create_run(where, run_name=recipe, tags={"medcl_run": run}).info.run_id
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """See `Logger`."""
        for name, value in values.items():
            self.client.log_metric(self.run, name, value, step=step)

    def close(self) -> None:
        """See `Logger`."""
        self.client.set_terminated(self.run)


LOGGERS: dict[str, Callable[[Path, str, str, int], Logger]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "mlflow": MLflow,
}
