"""`pmap` on processes of this machine; it survives their crashes, and ends those that hang."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import resource
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any, TypeVar

from pebble import ProcessExpired, ProcessPool

from medcl.errors import MedclError
from medcl.io.chunks import Chunks, guarded_each
from medcl.io.failure import DIED, Failure, hung

_RESTARTS = 3  # of a pool that broke and did nothing in between
_UNGUARDED = (
    "Worker processes end as soon as they start. If {} has no 'if __name__ == \"__main__\":' "
    "guard, add it, or use one worker."
)
T = TypeVar("T")
R = TypeVar("R")


def run(
    fn: Callable[[T], R], items: Sequence[T], workers: int, seconds: float | None
) -> Iterator[tuple[T, R | Failure]]:
    """Feed a pool a few items at a time. What was with one that crashed or hung runs again, alone.

    Args:
        fn: to call.
        items: its arguments.
        workers: processes.
        seconds: after which a worker is ended and its item is a `Failure`; None: never.
    """
    packed: bytes | None = pack(fn)
    chunks = Chunks(items, workers)
    broken = 0
    while chunks:
        in_flight: dict[Future[Any], list[T]] = {}
        pool = ProcessPool(workers, context=_Context(), initializer=_start_worker)
        try:
            if packed is not None:
                _check_loads(pool, fn, packed)
                packed = None
            while chunks or in_flight:
                while chunks and len(in_flight) < 3 * workers:
                    chunk = chunks.take()
                    in_flight[_schedule(pool, seconds, guarded_each, fn, chunk)] = chunk
                for future in wait(in_flight, return_when=FIRST_COMPLETED).done:
                    error = future.exception()
                    if isinstance(error, BrokenProcessPool):
                        raise error
                    chunk = in_flight.pop(future)
                    if error is None:
                        results, took = future.result()
                        yield from zip(chunk, results, strict=True)
                        chunks.took(chunk, took)
                        broken = 0
                    elif len(chunk) > 1:
                        chunks.alone(chunk)
                    else:
                        yield chunk[0], _failure(error, seconds)
        except BrokenProcessPool:  # a worker died without an item, as when it starts
            broken += 1
            if broken > _RESTARTS:
                raise MedclError(_UNGUARDED.format(_main())) from None
            chunks.alone(item for chunk in in_flight.values() for item in chunk)
        finally:
            pool.stop()
            pool.join()


def _schedule(
    pool: ProcessPool, seconds: float | None, fn: Callable[..., R], *args: Any
) -> Future[Any]:
    try:
        return pool.schedule(fn, args=args, timeout=seconds)
    except RuntimeError as error:  # it has broken meanwhile
        raise BrokenProcessPool(str(error)) from None


def _failure(error: BaseException, seconds: float | None) -> Failure:
    if isinstance(error, ProcessExpired):
        return DIED
    if isinstance(error, TimeoutError) and seconds is not None:
        return hung(seconds)
    return Failure.of(error)  # the result cannot be pickled


def pack(fn: Callable[..., Any]) -> bytes:
    """The function pickled for workers.

    Raises:
        MedclError: if it cannot be pickled.
    """
    try:
        return pickle.dumps(fn)
    except Exception as error:
        raise MedclError(
            f"{fn!r} cannot be sent to worker processes ({error}). Define it at the top of a "
            "module, or use one worker."
        ) from None


def load_error(packed: bytes) -> str | None:
    """In a worker: the error of unpickling the function; None without one."""
    try:
        pickle.loads(packed)  # from `pack`, in the parent process
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def check_loads(fn: Callable[..., Any], error: str | None) -> None:
    """Fail early: a plugin that workers cannot import would reject every item.

    Raises:
        MedclError: if there was an error.
    """
    if error is not None:
        raise MedclError(
            f"Worker processes cannot load {fn!r} ({error}). Install its package where they run, "
            "or use one worker."
        )


def _check_loads(pool: ProcessPool, fn: Callable[..., Any], packed: bytes) -> None:
    check_loads(fn, _schedule(pool, None, load_error, packed).result())


def _main() -> str:
    return getattr(sys.modules.get("__main__"), "__file__", None) or "your script"


class _Worker(SpawnProcess):
    def terminate(self) -> None:
        """SIGKILL: a worker may ignore SIGTERM, or be writing its core."""
        self.kill()


class _Context(SpawnContext):
    """Spawned processes: forking is unsafe once torch or polars have started threads."""

    Process = _Worker


def _start_worker() -> None:
    """One thread per worker; it ends at Ctrl-C without a traceback, and with its parent.

    A crash leaves no core file, which could contain patient data.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = multiprocessing.parent_process()

    def leave_with_parent() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    # A worker holds both ends of its queue, so the death of a killed parent would go unnoticed.
    threading.Thread(target=leave_with_parent, daemon=True).start()
