"""``python engine_script.py INDEX OUT OVERRIDES``: one pretraining of the tiny modality."""

import ast
import sys
from pathlib import Path

import tiny_engine

if __name__ == "__main__":
    tiny_engine.install()
    from medcl.engine.pretrain import pretrain

    index, out, overrides = sys.argv[1:]
    pretrain(tiny_engine.recipe(ast.literal_eval(overrides)), Path(index), Path(out))
