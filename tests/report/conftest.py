"""A study whose labels and columns hold HTML."""

from __future__ import annotations

from pathlib import Path

import pytest
import toy_run
from browser import EVIL

from medcl.plugin import Plugin


@pytest.fixture(scope="session")
def hostile_study(toy: Plugin, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits of synthetic writers: a study whose labels, columns and their values hold HTML.

    Questioned by medcl evaluate, with groups, a corruption and attacks.
    """
    from medcl.archive.index import build
    from medcl.audit.evaluate import evaluate
    from medcl.finetune.finetune import finetune, opened

    folder = tmp_path_factory.mktemp("hostile")
    index = toy_run.make_index(folder)
    quoted = EVIL.replace('"', '""')
    rows = [
        f'writer_{n:02d}.csv,"{quoted if n % 2 else "plain"}","{quoted if n % 3 else "town"}"'
        for n in range(toy_run.WRITERS)
    ]
    table = folder / "people.csv"
    table.write_text(
        "key,<u>hand</u>,<u>clinic</u>\n" + "\n".join(rows) + "\nblank.csv,plain,town\n"
    )
    build(folder / "archive", folder / "more", toy, key_file=folder / "key", table=table)
    run = toy_run.make_run(folder / "more", folder / "run")
    settings = ["classifier.name=full", "finetune.label=<u>hand</u>", "finetune.task=null"]
    settings += ["finetune.epochs=3", "finetune.folds=2", "finetune.bootstraps=100"]
    study = folder / "study"
    finetune(opened(run.path, None, settings), study, labels=table, command="medcl finetune run")
    evaluate(study, by=["<u>clinic</u>"], corruptions=("noise",), limit=60, resamples=50)
    assert index.is_dir()
    return study
