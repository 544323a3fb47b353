"""Kill -9 at any moment, then the same command: the tables of an undisturbed run, to the byte."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from synthetic_plugin import archive_of, plugin

from medcl.archive.index import Index, build

TABLES = ("items.parquet", "rejects.parquet", "index.json", "private/paths.parquet")
UNITS = 44
INDEX, LAST = 16, 19
"""Of the files that a run puts in place, index.json, and how many they are."""
HERE = str(Path(__file__).parent)


def tables(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in TABLES}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return archive_of(tmp_path_factory.mktemp("synthetic") / "archive", UNITS)


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("key") / "key"
    path.write_text("0123456789abcdef" * 4)
    return path


@pytest.fixture(scope="module")
def undisturbed(
    archive: Path, key: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("undisturbed")
    build(archive, out, plugin, key_file=key)
    return tables(out)


def start(
    archive: Path, out: Path, key: Path, *arguments: str, **env: str
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", "import synthetic_plugin; synthetic_plugin.main()"]
        + [str(archive), str(out), *arguments],
        env={**os.environ, "PYTHONPATH": HERE, "MEDCL_KEY_FILE": str(key), **env},
    )


def finished(out: Path) -> int:
    journal = out / "private/scan/units.jsonl"
    return max(0, journal.read_bytes().count(b"\n") - 1) if journal.exists() else 0


def running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_while_scanning(
    archive: Path, key: Path, undisturbed: dict[str, bytes], tmp_path: Path, workers: str
) -> None:
    out, log, draw = tmp_path / "idx", tmp_path / "log", random.Random(int(workers))
    log.touch()
    kills = 0
    while finished(out) < UNITS - 10:
        enough = finished(out) + draw.randint(1, 12)
        run = start(archive, out, key, workers, SYNTHETIC_LOG=str(log), SYNTHETIC_SLEEP="0.02")
        while finished(out) < enough and run.poll() is None:
            time.sleep(0.002)
        time.sleep(draw.random() * 0.02)
        run.send_signal(signal.SIGKILL)
        run.wait()
        kills += 1
        assert not (out / "index.json").exists()
    assert kills >= 3

    pids = {int(line.split()[0]) for line in log.read_text().splitlines()}
    while any(running(pid) for pid in pids):  # workers leave with their parent, or this hangs
        time.sleep(0.05)

    run = start(archive, out, key, workers, SYNTHETIC_LOG=str(log))
    assert run.wait() == 0
    assert tables(out) == undisturbed
    # a kill costs what was in flight, at most three units a worker and one being written
    calls = len(log.read_text().splitlines())
    assert calls <= UNITS + kills * (3 * int(workers) + 1)


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(LAST))
def test_while_writing(
    archive: Path, key: Path, undisturbed: dict[str, bytes], tmp_path: Path, moment: int
) -> None:
    """At each of the files that a run puts in place: claim, what the archive was, journal, copies,
    tables, index.json, and a manifest before each but the journal and the copies, and what the
    index is made of; then by what the next run knows that nothing changed."""
    out = tmp_path / "idx"
    assert start(archive, out, key, "1", str(moment)).wait() == -signal.SIGKILL
    assert (out / "index.json").exists() == (moment > INDEX)
    build(archive, out, plugin, key_file=key)
    assert tables(out) == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("moment", [6, 9, 12])
def test_while_writing_again(archive: Path, key: Path, tmp_path: Path, moment: int) -> None:
    """Killed between two tables of an update, it does not pass for an index of either state."""
    out = tmp_path / "idx"
    small = tmp_path / "archive"
    archive_of(small, 5)
    build(small, out, plugin, key_file=key)
    archive_of(small, 9)
    # an update puts in place: claim, what the archive was, items, rejects, paths, index.json, and
    # manifests around them
    assert start(small, out, key, "1", str(moment)).wait() == -signal.SIGKILL
    with pytest.raises(Exception, match="unfinished"):
        Index.open(out)
    build(small, out, plugin, key_file=key)
    build(small, tmp_path / "fresh", plugin, key_file=key)
    assert tables(out) == tables(tmp_path / "fresh")


def test_the_last_moment_is_the_last(archive: Path, key: Path, tmp_path: Path) -> None:
    """So that `test_while_writing` covers them all."""
    assert start(archive, tmp_path / "idx", key, "1", str(LAST)).wait() == 0
