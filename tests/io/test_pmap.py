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
from pathlib import Path

import pytest

from medcl.errors import MedclError, UsageError
from medcl.io import local_map
from medcl.io.failure import Failure
from medcl.io.pmap import ITEM_SECONDS, item_seconds, pmap


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


def hanging(n: int) -> int:
    if n == 1:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
        time.sleep(100_000)
    return n


@pytest.mark.slow
def test_an_item_that_hangs_is_given_up() -> None:
    """A decoder that never returns, and ignores signals; what was sent with it is not lost."""
    done, failed = spread(pmap(hanging, range(40), workers=2, seconds=1.5))
    assert set(failed) == {1}
    assert "within 1.5 s" in failed[1].reason
    assert failed[1].error == "TimeoutError"
    assert done == {n: n for n in range(40) if n != 1}


@pytest.mark.slow
def test_a_worker_that_dies_as_it_starts_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel may kill one for memory before its first work."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(local_map, "_start_worker", start_worker)
    done, failed = spread(pmap(work, range(100, 110), workers=2))
    assert done == {n: n * n for n in range(100, 110)}
    assert not failed
    assert Path("died").exists()


def start_worker() -> None:
    try:
        Path("died").touch(exist_ok=False)
    except FileExistsError:
        return
    os._exit(9)


def test_the_limit_of_an_item_is_a_number_of_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert item_seconds() == ITEM_SECONDS
    monkeypatch.setenv("MEDCL_ITEM_SECONDS", "2.5")
    assert item_seconds() == 2.5
    for wrong in ("-1", "nan", "soon", "0"):
        monkeypatch.setenv("MEDCL_ITEM_SECONDS", wrong)
        with pytest.raises(UsageError, match="above 0"):
            item_seconds()


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
        "import math\nfrom medcl.io.pmap import ITEM_SECONDS, item_seconds, pmap\n"
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
