"""``python engine_script.py INDEX OUT OVERRIDES [STOP]``: one pretraining of the tiny modality.

With STOP, every process of it leaves after that step as if it had been killed.
"""

import ast
import os
import sys
from pathlib import Path

import tiny_engine

if __name__ == "__main__":
    tiny_engine.install()
    from medcl.engine.checkpoints import Checkpoints
    from medcl.engine.pretrain import pretrain

    index, out, overrides, *stop = sys.argv[1:]
    once = Checkpoints.on_train_batch_end

    def stopping(self, trainer, module, outputs, batch, batch_idx):
        once(self, trainer, module, outputs, batch, batch_idx)
        if stop and trainer.global_step == int(stop[0]):
            os._exit(9)

    Checkpoints.on_train_batch_end = stopping
    pretrain(tiny_engine.recipe(ast.literal_eval(overrides)), Path(index), Path(out))
