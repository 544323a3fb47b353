"""The digits of synthetic writers and a run on them, as the tests of `medcl.evaluate` have them."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path

import pytest
from browser import EVIL

from medcl.plugin import Plugin

_PATH = Path(__file__).parent.parent / "evaluate" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("evaluate_conftest", _PATH)
assert _SPEC is not None
assert _SPEC.loader is not None
_MODULE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_MODULE)

toy, digits_index, digits_run = _MODULE.toy, _MODULE.digits_index, _MODULE.digits_run
_RUN = importlib.import_module("toy_run")  # its folder is on the path by now


@pytest.fixture(scope="session")
def hostile_study(toy: Plugin, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits of synthetic writers: a study whose labels, columns and their values hold HTML.

    Questioned by medcl evaluate, with groups, a corruption and attacks.
    """
    from medcl.archive.index import build
    from medcl.audit.evaluate import evaluate
    from medcl.finetune.finetune import finetune, opened

    folder = tmp_path_factory.mktemp("hostile")
    index = _RUN.make_index(folder)
    quoted = EVIL.replace('"', '""')
    rows = [
        f'writer_{n:02d}.csv,"{quoted if n % 2 else "plain"}","{quoted if n % 3 else "town"}"'
        for n in range(_RUN.WRITERS)
    ]
    table = folder / "people.csv"
    table.write_text(
        "key,<u>hand</u>,<u>clinic</u>\n" + "\n".join(rows) + "\nblank.csv,plain,town\n"
    )
    build(folder / "archive", folder / "more", toy, key_file=folder / "key", table=table)
    run = _RUN.make_run(folder / "more", folder / "run")
    settings = ["classifier.name=full", "finetune.label=<u>hand</u>", "finetune.task=null"]
    settings += ["finetune.epochs=3", "finetune.folds=2", "finetune.bootstraps=100"]
    study = folder / "study"
    finetune(opened(run.path, None, settings), study, labels=table, command="medcl finetune run")
    evaluate(study, by=["<u>clinic</u>"], corruptions=("noise",), limit=60, resamples=50)
    assert index.is_dir()
    return study
