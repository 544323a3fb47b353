from __future__ import annotations

import pytest
import tiny_engine


@pytest.fixture(autouse=True, scope="session")
def _tiny(tmp_path_factory):
    """The tiny modality; one key for its patients, so that splits are the same at every run."""
    key = tmp_path_factory.mktemp("key") / "key"
    key.write_text("synthetic patients have no secrets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDCL_KEY_FILE", str(key))
        tiny_engine.install(patch.setattr)
        yield


@pytest.fixture(scope="session")
def index(tmp_path_factory):
    """The index of the tiny modality's archive."""
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
