from __future__ import annotations

from contextlib import contextmanager

import pytest
import tiny_engine


@pytest.fixture(scope="session")
def key(tmp_path_factory):
    """One key for the patients, so that splits are the same at every run."""
    path = tmp_path_factory.mktemp("key") / "key"
    path.write_text("synthetic patients have no secrets")
    return path


@contextmanager
def tiny(key):
    """The tiny modality is installed, and only for as long as this lasts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDCL_KEY_FILE", str(key))
        tiny_engine.install(patch.setattr)
        yield


@pytest.fixture(autouse=True, scope="module")
def _tiny(key):
    with tiny(key):
        yield


@pytest.fixture(scope="session")
def index(key, tmp_path_factory):
    """The index of the tiny modality's archive."""
    with tiny(key):
        return tiny_engine.index(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def undisturbed(index, tmp_path_factory):
    """partner → the folder of a run that nobody stopped."""
    from medcl.engine.pretrain import pretrain

    runs = {}

    def run(partner):
        if partner not in runs:
            runs[partner] = tmp_path_factory.mktemp("undisturbed")
            pretrain(tiny_engine.broken_off(partner), index, runs[partner])
        return runs[partner]

    return run
