"""Map a function over many items in processes; whatever one item does, the others get done.

A worker may raise, be killed for its memory or crash in a C library: each costs its own item only.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar

from medcl.errors import MedclError, UsageError
from medcl.progress import track

Engine = Literal["local", "ray"]
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Failure:
    """Why an item has no result.

    Attributes:
        reason: one sentence free of the message's text, which may quote file names or headers.
        detail: the whole traceback, for a private place.
        died: the process ended without a word (crash, or killed for its memory).
        error: the exception, by class name.
    """

    reason: str
    detail: str = ""
    died: bool = False
    error: str = ""

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Describe an exception. A `MedclError` is meant to be read, so its message is kept."""
        detail = "".join(traceback.format_exception(error))
        name = type(error).__name__
        if isinstance(error, MedclError):
            return cls(str(error), detail, error=name)
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        lines = [line for _, line in traceback.walk_tb(error.__traceback__)]
        place = f", {frames[-1].f_globals.get('__name__')} line {lines[-1]}" if frames else ""
        known = f": {error.strerror}" if isinstance(error, OSError) and error.strerror else ""
        return cls(f"It could not be read ({name}{known}{place}).", detail, error=name)


DIED = Failure(
    "The process reading it died (a crash, or out of memory).",
    detail="No message: the worker process ended.",
    died=True,
)


def pmap(
    fn: Callable[[T], R],
    items: Iterable[T],
    *,
    workers: int = 1,
    engine: Engine = "local",
    label: str = "Working",
) -> Iterator[tuple[T, R | Failure]]:
    """Yield ``(item, fn(item))`` as each is done, in no fixed order; a `Failure` where it failed.

    Args:
        fn: a module-level function, or a `functools.partial` of one.
        items: what to map over; few are in flight at a time, so that many cost no memory.
        workers: processes; with one, the work is done in this process.
        engine: ``"ray"`` maps on a Ray cluster (``RAY_ADDRESS``), or on a local Ray.
        label: what the progress bar says.

    Raises:
        UsageError: if Ray is asked for and not installed.
        MedclError: if worker processes cannot run at all.
    """
    items = list(items)
    if engine == "ray":
        if importlib.util.find_spec("ray") is None:
            raise UsageError("Ray is not installed. Install it: pip install 'medcl[ray]'")
        outcomes = _ray(fn, items, workers)
    elif workers <= 1 or len(items) <= 1:
        outcomes = ((item, _guarded(fn, item)) for item in items)
    else:
        _check_picklable(fn)
        outcomes = _pool(fn, items, min(workers, len(items)))
    return track(outcomes, label, total=len(items))


def _guarded(fn: Callable[[T], R], item: T) -> R | Failure:
    """Call ``fn``; an exception (``sys.exit`` too) becomes a Failure where it was raised."""
    try:
        return fn(item)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return Failure.of(error)


def _check_picklable(fn: Callable[..., Any]) -> None:
    try:
        pickle.dumps(fn)
    except Exception as error:
        raise MedclError(
            f"{fn!r} cannot be sent to worker processes ({error}). Define it at the top of a "
            "module, or use one worker."
        ) from None


# --- local processes -----------------------------------------------------------------------------


def _pool(
    fn: Callable[[T], R], items: Sequence[T], workers: int
) -> Iterator[tuple[T, R | Failure]]:
    """Feed a pool; when it breaks, run what was in flight alone to find the culprit, and go on."""
    waiting = deque(items)
    while waiting:
        suspects: list[T] = []
        pool = _executor(workers)
        in_flight: dict[Future[R | Failure], T] = {}
        try:
            while (waiting or in_flight) and not suspects:
                while waiting and len(in_flight) < 3 * workers:
                    item = waiting.popleft()
                    in_flight[_submit(pool, fn, item)] = item
                done, _ = wait(in_flight, return_when=FIRST_COMPLETED)
                if any(_broken(future) for future in done):
                    done, _ = wait(in_flight)  # a broken pool ends them all
                for future in done:
                    item = in_flight.pop(future)
                    if _broken(future):
                        suspects.append(item)
                    else:
                        yield item, _result(future)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        yield from _alone(fn, suspects)


def _alone(fn: Callable[[T], R], suspects: Sequence[T]) -> Iterator[tuple[T, R | Failure]]:
    """One item at a time, so that a process that dies names its item."""
    pool: ProcessPoolExecutor | None = None
    try:
        for item in suspects:
            pool = pool or _executor(1)
            future = _submit(pool, fn, item)
            wait([future])
            if _broken(future):
                pool = None
                _check_workers_run()
                yield item, DIED
            else:
                yield item, _result(future)
    finally:
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)


def _executor(workers: int) -> ProcessPoolExecutor:
    """Fresh processes: forking this one is unsafe once torch or polars have started threads."""
    return ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker
    )


def _start_worker() -> None:
    """One thread per worker; end at Ctrl-C without a traceback, and when the parent is gone."""
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


def _submit(pool: ProcessPoolExecutor, fn: Callable[[T], R], item: T) -> Future[R | Failure]:
    try:
        return pool.submit(_guarded, fn, item)
    except BrokenProcessPool as error:  # it broke since we last looked
        future: Future[R | Failure] = Future()
        future.set_exception(error)
        return future


def _broken(future: Future[Any]) -> bool:
    return future.done() and isinstance(future.exception(), BrokenProcessPool)


def _result(future: Future[R | Failure]) -> R | Failure:
    error = future.exception()  # only what cannot be pickled ends here
    return future.result() if error is None else Failure.of(error)


def _check_workers_run() -> None:
    with _executor(1) as pool:
        if _broken_after(pool.submit(os.getpid)):
            main = getattr(sys.modules.get("__main__"), "__file__", None) or "your script"
            raise MedclError(
                f"Worker processes end as soon as they start. If {main} has no "
                "'if __name__ == \"__main__\":' guard, add it, or use one worker."
            )


def _broken_after(future: Future[Any]) -> bool:
    wait([future])
    return _broken(future)


# --- Ray -----------------------------------------------------------------------------------------


def _ray(fn: Callable[[T], R], items: Sequence[T], workers: int) -> Iterator[tuple[T, R | Failure]]:
    """The same on Ray: a task that dies is tried once more, then given up."""
    import ray

    ours = not ray.is_initialized()
    if ours and os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False)
    elif ours:
        ray.init(num_cpus=max(workers, 1), include_dashboard=False, log_to_driver=False)
    try:
        task = ray.remote(max_retries=1)(partial(_guarded, fn))
        slots = 2 * max(workers, int(ray.cluster_resources().get("CPU", 1)))
        waiting = deque(items)
        in_flight: dict[Any, T] = {}
        while waiting or in_flight:
            while waiting and len(in_flight) < slots:
                item = waiting.popleft()
                in_flight[task.remote(item)] = item
            for reference in ray.wait(list(in_flight))[0]:
                item = in_flight.pop(reference)
                try:
                    outcome = ray.get(reference)
                except ray.exceptions.RayError as error:
                    outcome = DIED if isinstance(error, _ray_deaths()) else Failure.of(error)
                yield item, outcome
    finally:
        if ours:
            ray.shutdown()


def _ray_deaths() -> tuple[type[Exception], ...]:
    from ray import exceptions

    return exceptions.WorkerCrashedError, exceptions.OutOfMemoryError, exceptions.NodeDiedError
