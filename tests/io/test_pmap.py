from __future__ import annotations

import ctypes
import importlib.util
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from medcl.errors import MedclError, UsageError
from medcl.io import local_map
from medcl.io.failure import Failure
from medcl.io.pmap import pmap


def work(n: int) -> int:
    if n == 3:
        raise ValueError("Jane Doe is not a number")
    if n == 5:
        sys.exit(2)
    if n == 7:
        raise PermissionError(13, "Permission denied", "/archive/Jane Doe")
    return n * n


def deadly(n: int) -> int:
    if n in (3, 4):
        os._exit(9)
    if n == 11:
        ctypes.string_at(0)
    return work(n + 100)


def stubborn(n: int) -> int:
    if n == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        first = not Path("up").exists()
        Path("up").touch()
        time.sleep(100_000 if first else 0)
    if n == 1:
        while not Path("up").exists():
            time.sleep(0.01)
        os._exit(9)
    return n


def core_size(n: int) -> int:
    return resource.getrlimit(resource.RLIMIT_CORE)[0]


def unpicklable(n: int) -> object:
    return threading.Lock() if n == 1 else n


def spread(outcomes: object) -> tuple[dict[int, int], dict[int, Failure]]:
    pairs = list(outcomes)  # type: ignore[call-overload]
    assert len(pairs) == len({item for item, _ in pairs})
    failed = {item: result for item, result in pairs if isinstance(result, Failure)}
    return {item: result for item, result in pairs if item not in failed}, failed


@pytest.mark.parametrize("workers", [1, 2])
def test_an_exception_costs_its_own_item(workers: int) -> None:
    done, failed = spread(pmap(work, range(30), workers=workers))
    assert done == {n: n * n for n in range(30) if n not in (3, 5, 7)}
    assert {n: f.error for n, f in failed.items()} == {
        3: "ValueError",
        5: "SystemExit",
        7: "PermissionError",
    }
    assert not any("Jane" in f.reason for f in failed.values())
    assert "test_pmap line" in failed[3].reason
    assert "Jane Doe is not a number" in failed[3].detail
    assert "Permission denied" in failed[7].reason


@pytest.mark.slow
@pytest.mark.parametrize("count", [25, 150])
def test_a_dying_process_costs_its_own_item(count: int) -> None:
    done, failed = spread(pmap(deadly, range(count), workers=2))
    assert set(failed) == {3, 4, 11}
    assert all(f.died for f in failed.values())
    assert done == {n: (n + 100) ** 2 for n in range(count) if n not in failed}


def test_a_worker_that_ignores_sigterm_does_not_hold_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that writes its core does; the pool sends SIGTERM to all when one of them dies."""
    monkeypatch.chdir(tmp_path)
    done, failed = spread(pmap(stubborn, range(6), workers=2))
    assert set(failed) == {1}
    assert set(done) == {0, 2, 3, 4, 5}


def test_a_worker_started_as_the_pool_broke_is_ended_too() -> None:
    """Python's pool only ends those that it knew when it noticed; it joined this one for ever."""
    pool = local_map._Pool(1)
    assert pool.submit(work, 4).result() == 16
    late = pool.context.Process(target=time.sleep, args=(100_000,))
    late.start()
    pool.close(broken=True)
    late.join()
    assert late.exitcode == -signal.SIGKILL


@pytest.mark.slow
def test_submitting_as_the_pool_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its start may fail in many ways then. Without a dead worker it is another matter."""

    def submit(*_: object) -> None:
        raise OSError("handle is closed")

    pool = local_map._Pool(1)
    pool.submit(work, 4).result()
    monkeypatch.setattr(pool, "submit", submit)
    with pytest.raises(OSError, match="handle is closed"):
        local_map._submit(pool, work, [4])
    pool.close(broken=True)
    future = local_map._submit(pool, work, [4])
    assert isinstance(future.exception(), BrokenProcessPool)


def test_workers_leave_no_core() -> None:
    """It would hold patients' data, in whatever folder the run was started."""
    limits = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (limits[1], limits[1]))
    try:
        done, _ = spread(pmap(core_size, range(2), workers=2))
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, limits)
    assert done == {0: 0, 1: 0}


@pytest.mark.slow
@pytest.mark.parametrize("count", [4, 100])  # sent one by one, and several at a time
def test_a_result_that_cannot_travel_is_a_failure(count: int) -> None:
    done, failed = spread(pmap(unpicklable, range(count), workers=2))
    assert set(done) == set(range(count)) - {1}
    assert set(failed) == {1}
    assert not failed[1].died


def test_a_function_that_cannot_travel_is_named() -> None:
    with pytest.raises(MedclError, match="top of a module"):
        list(pmap(lambda n: n, range(4), workers=2))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", "ray"])
def test_a_function_that_workers_lack_makes_no_failures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    """A plugin that is here but not there: the run ends, instead of rejecting every item."""
    if engine == "ray":
        pytest.importorskip("ray", reason="needs Ray: pip install 'medcl[ray]'")
    (tmp_path / "only_here.py").write_text("def work(n):\n    return n\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import only_here  # type: ignore[import-not-found]

    monkeypatch.undo()
    with pytest.raises(MedclError, match="cannot load .*ModuleNotFoundError"):
        list(pmap(only_here.work, range(4), workers=2, engine=engine))  # type: ignore[arg-type]


def test_stopping_early_leaves_no_worker() -> None:
    outcomes = pmap(work, range(100), workers=2)
    next(outcomes)
    outcomes.close()  # type: ignore[attr-defined]
    import multiprocessing

    assert multiprocessing.active_children() == []


def test_a_script_without_guard_is_told_so(tmp_path: Path) -> None:
    script = tmp_path / "unguarded.py"
    script.write_text(
        "import math\nfrom medcl.io.pmap import pmap\n"
        "print(list(pmap(math.sqrt, [1, 4, 9], workers=2)))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert done.returncode != 0
    assert "guard, add it, or use one worker" in done.stderr


def test_workers_start_without_torch() -> None:
    assert [r for _, r in pmap(has_torch, [0, 1], workers=2)] == [False, False]


def has_torch(_: int) -> bool:
    return "torch" in sys.modules


def test_ray_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == "ray" else find(n))
    with pytest.raises(UsageError, match=r"pip install 'medcl\[ray\]'"):
        pmap(work, range(3), engine="ray")


@pytest.mark.slow
def test_ray_does_the_same() -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install 'medcl[ray]'")
    done, failed = spread(pmap(deadly, range(25), workers=2, engine="ray"))
    assert set(failed) == {3, 4, 11}
    assert all(f.died for f in failed.values())
    assert done == {n: (n + 100) ** 2 for n in range(25) if n not in failed}
    done, failed = spread(pmap(work, range(10), workers=2, engine="ray"))
    assert set(failed) == {3, 5, 7}
    assert "Jane" not in failed[3].reason
