from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from medcl import manifest
from medcl.archive.walk import walk
from medcl.errors import UsageError


def touch(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def names(root: Path, skip: Path | None = None) -> list[str]:
    return [file.path for file in walk(root, skip).files]


def test_order_sizes_and_what_is_left_out(tmp_path: Path) -> None:
    for name in ("b/2.dat", "b/10.dat", "a.hea", "b.hea", "ü \n'x'.hea", "c d/e/f.dat"):
        touch(tmp_path / name, name)
    for name in (".hidden", "b/.git/x", "~$x.doc", "x.tmp", "y.part", "z~", "Thumbs.db"):
        touch(tmp_path / name)
    os.mkfifo(tmp_path / "pipe.dat")
    found = walk(tmp_path)
    assert [f.path for f in found.files] == sorted(
        ["a.hea", "b.hea", "b/10.dat", "b/2.dat", "c d/e/f.dat", "ü \n'x'.hea"]
    )
    assert found.rejects == []
    first = found.files[0]
    status = (tmp_path / "a.hea").stat()
    assert (first.size, first.mtime_ns) == (5, status.st_mtime_ns)


def test_links(tmp_path: Path) -> None:
    archive, elsewhere = tmp_path / "archive", tmp_path / "elsewhere"
    touch(archive / "z/real.dat")
    touch(elsewhere / "far.dat")
    (archive / "a_loop").symlink_to(archive)
    (archive / "a_twin").symlink_to(archive / "z")
    (archive / "z/up").symlink_to("..")
    (archive / "far").symlink_to(elsewhere)
    (archive / "file.dat").symlink_to(elsewhere / "far.dat")
    (archive / "gone.dat").symlink_to(tmp_path / "nothing")
    (archive / "self.dat").symlink_to("self.dat")
    (archive / "procs").symlink_to("/proc")
    found = walk(archive)
    assert [f.path for f in found.files] == ["z/real.dat"]
    assert {(r.key, r.code) for r in found.rejects} == {
        ("far", "link-outside"),
        ("file.dat", "link-outside"),
        ("procs", "link-outside"),
        ("gone.dat", "broken-link"),
        ("self.dat", "unreadable"),
    }
    found = walk(archive, follow=True)
    assert [f.path for f in found.files] == ["far/far.dat", "file.dat", "z/real.dat"]
    assert {(r.key, r.code) for r in found.rejects} == {
        ("procs", "link-outside"),  # of the system, never
        ("gone.dat", "broken-link"),
        ("self.dat", "unreadable"),
    }


def test_an_unreadable_folder_is_a_reject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "open/1.dat")
    touch(tmp_path / "shut/2.dat")
    scandir = os.scandir

    def refusing(path: Path) -> object:  # root, whom the tests may run as, is refused nothing
        if Path(path).name == "shut":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    found = walk(tmp_path)
    assert [f.path for f in found.files] == ["open/1.dat"]
    (reject,) = found.rejects
    assert (reject.key, reject.code) == ("shut/", "unreadable-folder")
    assert "Permission denied" in reject.reason
    assert str(tmp_path) not in reject.reason


def test_a_name_that_is_no_text_is_listed(tmp_path: Path) -> None:
    touch(tmp_path / "good.dat")
    try:
        with open(os.fsencode(tmp_path) + b"/bad\xff.dat", "w"):
            pass
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    found = walk(tmp_path)
    assert [f.path for f in found.files] == ["bad\udcff.dat", "good.dat"]
    assert not found.rejects


def test_the_index_inside_the_archive_is_skipped(tmp_path: Path) -> None:
    touch(tmp_path / "1.dat")
    touch(tmp_path / "idx/items.parquet")
    assert names(tmp_path, skip=tmp_path / "idx") == ["1.dat"]
    assert names(tmp_path, skip=tmp_path / "not_yet") == ["1.dat", "idx/items.parquet"]


@pytest.mark.parametrize("what", ["missing", "file", "empty", "hidden"])
def test_no_archive(tmp_path: Path, what: str) -> None:
    root = tmp_path / "archive"
    if what == "file":
        touch(root)
    elif what != "missing":
        root.mkdir()
        if what == "hidden":
            touch(root / ".DS_Store")
    with pytest.raises(UsageError, match=str(root)):
        walk(root)


def test_deep_folders(tmp_path: Path) -> None:
    folder = tmp_path
    for _ in range(300):
        folder = folder / "d"
    touch(folder / "1.dat")
    assert names(tmp_path) == ["d/" * 300 + "1.dat"]
    shutil.rmtree(tmp_path / "d")


def test_what_medcl_wrote_into_an_archive_is_no_data(tmp_path: Path) -> None:
    """Its private tables name patients, and were scanned as signals."""
    touch(tmp_path / "1.dat")
    touch(tmp_path / "idx/private/paths.csv")
    manifest.write_text(tmp_path / "idx/index.json", "{}")
    touch(tmp_path / "site/private/2.dat")
    touch(tmp_path / "site/manifest.json", '{"name": "of a web site"}')
    found = walk(tmp_path)
    assert [f.path for f in found.files] == ["1.dat", "site/manifest.json", "site/private/2.dat"]
    assert [(r.key, r.code) for r in found.rejects] == [("idx/", "medcl-output")]
