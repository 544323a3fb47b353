"""One pretraining of the tiny modality in a process of its own, which may be stopped or killed.

``python engine_script.py INDEX OUT OVERRIDES`` runs it as a user's script; `started` forks it from
a process that has torch and Lightning loaded already: they take longer than all else.
"""

from __future__ import annotations

import ast
import multiprocessing
import os
import socket
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import tiny_engine

from medcl.errors import MedclError

SERVER = multiprocessing.get_context("forkserver")  # what it has loaded: tests/conftest.py


def started(
    index: Path, out: Path, overrides: dict[str, Any], *, stop: int | None = None, ranks: int = 1
) -> list[BaseProcess]:
    """Start the processes of a pretraining; of several ranks all, as a cluster's launcher would.

    With ``stop`` every one of them leaves after that step as if it had been killed. What ends one
    of several ranks is written to ``out/rankN.txt``.
    """
    environment = {"MEDCL_KEY_FILE": os.environ["MEDCL_KEY_FILE"]}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes = []
    for rank in range(ranks):
        if ranks > 1:
            environment |= {"LOCAL_RANK": str(rank), "MASTER_PORT": port}
        asked = (str(index), str(out), overrides, stop, environment)
        processes.append(SERVER.Process(target=train, args=asked))
        processes[-1].start()
    return processes


def train(
    index: str,
    out: str,
    overrides: dict[str, Any],
    stop: int | None = None,
    environment: dict[str, str] | None = None,
) -> None:
    os.environ.update(environment or {})
    tiny_engine.install()
    from medcl.engine.checkpointing import Checkpoints
    from medcl.engine.pretrain import pretrain

    once = Checkpoints.on_train_batch_end

    def stopping(self, trainer, module, outputs, batch, batch_idx):
        once(self, trainer, module, outputs, batch, batch_idx)
        if trainer.global_step == stop:
            os._exit(9)

    Checkpoints.on_train_batch_end = stopping
    try:
        pretrain(tiny_engine.recipe(overrides), Path(index), Path(out))
    except MedclError as error:
        if "LOCAL_RANK" in os.environ:
            Path(out, f"rank{os.environ['LOCAL_RANK']}.txt").write_text(str(error))
        raise


if __name__ == "__main__":
    train(sys.argv[1], sys.argv[2], ast.literal_eval(sys.argv[3]))
