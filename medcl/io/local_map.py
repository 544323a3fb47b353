"""`pmap` on processes of this machine; it survives their crashes."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import resource
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any, TypeVar

from medcl.errors import MedclError
from medcl.io.failure import DIED, Failure, guarded

_LARGEST_CHUNK = 16  # items sent at a time: reading a header takes less time than sending it alone
T = TypeVar("T")
R = TypeVar("R")


def run(fn: Callable[[T], R], items: Sequence[T], workers: int) -> Iterator[tuple[T, R | Failure]]:
    """Feed a pool. When it breaks, run the items in flight one by one to find the cause; go on."""
    packed: bytes | None = pack(fn)
    waiting = deque(items)
    size = max(1, min(_LARGEST_CHUNK, len(items) // (16 * workers)))
    while waiting:
        suspects: list[T] = []
        broken = False
        in_flight: dict[Future[list[R | Failure]], list[T]] = {}
        pool = _Pool(workers)
        try:
            if packed is not None:
                _try_out(pool, fn, packed)
                packed = None
            while in_flight or (waiting and not suspects):
                while waiting and not suspects and len(in_flight) < 3 * workers:
                    chunk = [waiting.popleft() for _ in range(min(size, len(waiting)))]
                    in_flight[_submit(pool, fn, chunk)] = chunk
                for future in wait(in_flight, return_when=FIRST_COMPLETED).done:
                    chunk = in_flight.pop(future)
                    if future.exception() is None:
                        yield from zip(chunk, future.result(), strict=True)
                    else:  # a worker died, or a result is stuck
                        suspects += chunk
                        broken |= isinstance(future.exception(), BrokenProcessPool)
                if broken:  # all workers end; items submitted meanwhile may never return
                    suspects += [item for chunk in in_flight.values() for item in chunk]
                    in_flight.clear()
        finally:
            pool.close(broken)
        yield from _alone(fn, suspects)


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


def _try_out(pool: _Pool, fn: Callable[..., Any], packed: bytes) -> None:
    """Check that a worker starts and can load the function."""
    future = pool.submit(load_error, packed)
    if isinstance(future.exception(), BrokenProcessPool):
        main = getattr(sys.modules.get("__main__"), "__file__", None) or "your script"
        raise MedclError(
            f"Worker processes end as soon as they start. If {main} has no "
            "'if __name__ == \"__main__\":' guard, add it, or use one worker."
        )
    check_loads(fn, future.result())


def _alone(fn: Callable[[T], R], suspects: Sequence[T]) -> Iterator[tuple[T, R | Failure]]:
    """One item at a time, so that a crash identifies its item."""
    pool: _Pool | None = None
    try:
        for item in suspects:
            pool = pool or _Pool(1)
            future = _submit(pool, fn, [item])
            error = future.exception()
            if isinstance(error, BrokenProcessPool):
                pool.close(broken=True)
                pool = None
                yield item, DIED
            else:  # any other error: the result cannot be pickled
                yield item, future.result()[0] if error is None else Failure.of(error)
    finally:
        if pool is not None:
            pool.close(broken=False)


class _Worker(SpawnProcess):
    def terminate(self) -> None:
        """SIGKILL: a worker of a broken pool may ignore SIGTERM, or be writing its core."""
        self.kill()


class _Context(SpawnContext):
    """Spawned processes: forking is unsafe once torch or polars have started threads."""

    def __init__(self) -> None:
        self.workers: list[_Worker] = []

    def Process(self, *args: Any, **kwargs: Any) -> _Worker:  # type: ignore[override]
        self.workers.append(_Worker(*args, **kwargs))
        return self.workers[-1]


class _Pool(ProcessPoolExecutor):
    """A pool that ends all its workers when it breaks.

    Python's pool starts workers as work is submitted. When one dies, it ends and awaits the others,
    but it awaits a worker that starts at that moment without ending it.
    """

    def __init__(self, workers: int) -> None:
        self.context = _Context()
        super().__init__(workers, mp_context=self.context, initializer=_start_worker)

    def lost_one(self) -> bool:
        """True if a worker has ended, or is about to.

        The exit code cannot tell: it is unknown while another thread waits for the worker.
        """
        started = [worker.sentinel for worker in self.context.workers if worker.pid]
        return bool(connection.wait(started, timeout=5))

    def close(self, broken: bool) -> None:
        """End the workers. A broken pool is not awaited: a worker may hang in the kernel."""
        self.shutdown(wait=not broken, cancel_futures=True)
        if broken:
            for worker in self.context.workers:
                if worker.pid:
                    worker.kill()


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


def _submit(pool: _Pool, fn: Callable[[T], R], chunk: list[T]) -> Future[list[R | Failure]]:
    try:
        return pool.submit(_guarded_each, fn, chunk)
    except (RuntimeError, OSError) as error:
        if not (isinstance(error, BrokenProcessPool) or pool.lost_one()):
            raise
        future: Future[list[R | Failure]] = Future()  # the pool has broken meanwhile
        future.set_exception(BrokenProcessPool(str(error)))
        return future


def _guarded_each(fn: Callable[[T], R], chunk: list[T]) -> list[R | Failure]:
    return [guarded(fn, item) for item in chunk]
