"""SIGTERM, Ctrl-C and SLURM's SIGUSR1: what ran has ended, and left nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medcl.io import scratch, stopping

HANGS = """
import sys, time
from pathlib import Path
from medcl.io import scratch, stopping
from medcl.io.pmap import pmap

def hang(n):
    with scratch.temporary() as folder:
        (folder / "decoded").write_text("private")
        Path(sys.argv[1], f"up{n}").touch()
        time.sleep(100_000)

if __name__ == "__main__":
    with stopping.handled(), scratch.new(Path(sys.argv[1], "out")):
        list(pmap(hang, [0, 1], workers=2))
"""


def processes(text: str) -> list[int]:
    """Those that name ``text`` in their command line or working folder."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            held = folder.joinpath("cmdline").read_bytes().decode() + os.readlink(folder / "cwd")
        except OSError:
            continue
        if text in held:
            found.append(int(folder.name))
    return found


def hanging(tmp_path: Path) -> subprocess.Popen[str]:
    (tmp_path / "hangs.py").write_text(HANGS)
    process = subprocess.Popen(
        [sys.executable, "hangs.py", str(tmp_path)],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not all((tmp_path / f"up{n}").exists() for n in (0, 1)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_workers_that_hang_and_removes_their_files(
    tmp_path: Path, number: int
) -> None:
    process = hanging(tmp_path)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert "Stopped: stopped by" in said
    assert processes(str(tmp_path)) == []
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.slow
def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    process = hanging(tmp_path)
    left = list((tmp_path / "out").rglob("decoded"))
    assert len(left) == 2
    with scratch.new(tmp_path / "out"):
        pass
    assert all(path.exists() for path in left), "it is in use"
    process.kill()
    process.wait()
    scratch._sweep.cache_clear()
    with scratch.new(tmp_path / "out") as own:
        assert [path for path in (tmp_path / "out").iterdir() if path != own] == []
        assert own.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("moment", ["os.mkdir", "open", "os.rename", "shutil.rmtree"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_while_scratch_is_made_leaves_none(
    tmp_path: Path, moment: str, number: int
) -> None:
    """Before there is a lock; after a kill the next process removes it, at once."""
    out = tmp_path / "out"
    out.mkdir()
    made = "import sys; from medcl.io import scratch, stopping; from pathlib import Path\n"
    made += f"out = Path({str(out)!r})\n"
    hook = "import os\nonce = [1]\ndef hook(event, args):\n"
    hook += f"    if once and event == {moment!r} and '{scratch.PREFIX}' in str(args):\n"
    hook += f"        once.clear(); os.kill(os.getpid(), {int(number)})\nsys.addaudithook(hook)\n"
    use = "with stopping.handled(), scratch.new(out): pass\n"
    done = subprocess.run([sys.executable, "-c", made + hook + use], capture_output=True, text=True)
    assert done.returncode == (1 if number == signal.SIGTERM else -9), done.stderr
    if number == signal.SIGKILL:
        subprocess.run([sys.executable, "-c", made + use], check=True)
    assert list(out.iterdir()) == []


def within_two(seen: list[int | None]) -> None:
    with stopping.handled(), stopping.deferred() as outer:
        with stopping.deferred():
            os.kill(os.getpid(), signal.SIGTERM)
        seen.append(outer.number)


def test_a_signal_within_two_that_are_deferred_is_told_to_the_outer_one() -> None:
    seen: list[int | None] = []
    with pytest.raises(stopping.Stopped):
        within_two(seen)
    assert seen == [signal.SIGTERM]


def told_while_deferred(times: int, done: list[int | None]) -> None:
    with stopping.handled():
        with stopping.deferred() as notice:
            for _ in range(times):
                os.kill(os.getpid(), signal.SIGTERM)
            done.append(notice.number)
        done.append(None)


def test_a_deferred_signal_is_noted_and_raised_at_the_end() -> None:
    done: list[int | None] = []
    with pytest.raises(stopping.Stopped) as stop:
        told_while_deferred(1, done)
    assert done == [signal.SIGTERM]
    assert stop.value.code == 143


def test_a_second_signal_does_not_wait() -> None:
    done: list[int | None] = []
    with pytest.raises(stopping.Stopped):
        told_while_deferred(2, done)
    assert done == []


def taken_by_a_library() -> None:
    with stopping.handled():
        with stopping.kept():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_library_that_takes_the_signals_gives_them_back() -> None:
    """Ray ends the process at SIGTERM itself, with an exit code of its own."""
    with pytest.raises(stopping.Stopped):
        taken_by_a_library()


@pytest.mark.parametrize("ignored", [False, True])
def test_a_terminal_that_closes_ends_what_runs_unless_under_nohup(ignored: bool) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    ended: list[int] = []
    try:
        with stopping.handled():
            os.kill(os.getpid(), signal.SIGHUP)
    except stopping.Stopped as stop:
        ended.append(stop.code)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert ended == ([] if ignored else [129])


def test_handlers_are_given_back() -> None:
    before = [signal.getsignal(number) for number in stopping.SIGNALS]
    with stopping.handled():
        assert [signal.getsignal(number) for number in stopping.SIGNALS] != before
    assert [signal.getsignal(number) for number in stopping.SIGNALS] == before


def test_a_preempted_job_is_requeued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for SLURM's scontrol writes down how it was called."""
    command = tmp_path / "scontrol"
    command.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/called\n')
    command.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    preempted = stopping.Stopped(signal.SIGUSR1)
    for variable in ("SLURM_JOB_ID", "SLURM_PROCID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(variable, raising=False)
    assert stopping.requeue(preempted) is None
    monkeypatch.setenv("SLURM_JOB_ID", "41")
    assert stopping.requeue(stopping.Stopped(signal.SIGTERM)) is None
    assert stopping.requeue(preempted) == "Job 41 is in the queue again."
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "40")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    assert stopping.requeue(preempted) == "Job 40_3 is in the queue again."
    monkeypatch.setenv("SLURM_PROCID", "1")
    assert stopping.requeue(preempted) is None
    assert (tmp_path / "called").read_text().split() == ["requeue", "41", "requeue", "40_3"]
    command.write_text("#!/bin/sh\nexit 3\n")
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert stopping.requeue(preempted) == "Job 40_3 was not requeued: scontrol ended with 3."
