"""A run, its index or its archive moves, or is not there: what works, and what is said."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import save_file
from toy_run import make_index, make_run

import medcl
from medcl.archive.index import Index
from medcl.engine.run_manifest import _same_index
from medcl.errors import MedclError
from medcl.io import atomic, roots
from medcl.private import remember
from medcl.run import Run, load_samples


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("house") / "old"
    home.mkdir()
    make_run(make_index(home), home / "run")
    return home


@pytest.fixture
def moved(made: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy elsewhere; the old place is no more."""
    shutil.copytree(made, tmp_path / "new")
    gone = made.rename(made.with_name("gone"))
    yield tmp_path / "new"
    gone.rename(made)


def test_a_tree_that_moved_as_a_whole_works(moved: Path) -> None:
    run = Run.open(moved / "run")
    assert run.data == moved / "index"
    assert Index.open(run.data).archive == moved / "archive"
    shutil.rmtree(run.data / "store", ignore_errors=True)  # so that the archive is read
    assert len(load_samples(run.recipe, run.data)) > 100


@pytest.mark.parametrize("how", ["roots", "option"])
def test_parts_that_moved_apart_are_found_as_told(
    moved: Path, made: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = (moved / "index").rename(moved / "renamed")
    archive = (moved / "archive").rename(moved / "recordings")
    run = Run.open(moved / "run")
    assert not run.data.is_dir()
    if how == "roots":
        pairs = {made / "index": index, made / "archive": archive}
        monkeypatch.setenv(roots.ROOTS, ":".join(f"{old}={new}" for old, new in pairs.items()))
    else:
        monkeypatch.setenv(roots.DATA, str(index))
        monkeypatch.setenv(roots.ARCHIVE, str(archive))
    assert run.data == index
    assert Index.open(run.data).archive == archive
    shutil.rmtree(index / "store", ignore_errors=True)
    assert len(load_samples(run.recipe, run.data)) > 100


def test_the_place_that_was_recorded_counts_first(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(roots.DATA, str(tmp_path))
    assert Run.open(made / "run").data == made / "index"


def test_a_moved_index_is_the_same_to_a_run_that_resumes(moved: Path, made: Path) -> None:
    from medcl import manifest

    run = Run.open(moved / "run")
    items = manifest.of_file(moved / "index" / "items.parquet")
    manifest.bind(run.path, "run", {"index": items})
    assert _same_index(run, moved / "index")
    manifest.bind(run.path, "run", {"index": "another"})
    assert not _same_index(run, moved / "index")
    assert not _same_index(run, moved / "nothing")


def test_predict_needs_no_index(moved: Path, tmp_path: Path) -> None:
    new = shutil.copy(moved / "archive" / "writer_03.csv", tmp_path / "writer_99.csv")
    with_index = medcl.predict(moved / "run", new, tmp_path / "with.parquet", task="digit")
    shutil.rmtree(moved / "index")
    shutil.rmtree(moved / "run" / "predict")
    without = medcl.predict(moved / "run", new, tmp_path / "without.parquet", task="digit")
    a, b = (pl.read_parquet(tmp_path / f"{n}.parquet") for n in ("with", "without"))
    shared = [name for name in a.columns if name.startswith("p.") or name == "embedding"]
    assert len(shared) == 11
    assert a.select(shared).equals(b.select(shared))
    assert "anomaly" in a.columns
    assert "anomaly" not in b.columns
    assert any("No anomaly scores" in note for note in without.notes)
    assert not any("No anomaly scores" in note for note in with_index.notes)


def test_a_run_without_its_private_folder_says_so(moved: Path) -> None:
    shutil.rmtree(moved / "run" / "private")
    with pytest.raises(MedclError, match="came without its private folder"):
        _ = Run.open(moved / "run").data


def test_private_files_are_their_owners_alone(made: Path, tmp_path: Path) -> None:
    """0700 and 0600 in private folders; everything else as the umask has it."""
    remember(tmp_path / "run", data=made / "index")
    found = 0
    with atomic.replacing(tmp_path / "run" / "weights.safetensors") as temporary:
        save_file({"x": torch.zeros(1)}, temporary)  # a library that makes it 0600
    for top in (made / "index", tmp_path / "run"):
        for path in top.rglob("*"):
            mode = path.stat().st_mode & 0o777
            private = "private" in path.relative_to(top).parts
            if path.is_file():
                found += private
                assert mode == (0o600 if private else 0o644), f"{path}: {mode:o}"
            else:
                assert mode == (0o700 if private else 0o755), f"{path}: {mode:o}"
    assert found >= 8
