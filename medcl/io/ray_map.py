"""`pmap` on Ray: the cluster at ``$RAY_ADDRESS``, or one on this machine, without a dashboard."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from medcl.errors import MedclError
from medcl.io import stopping
from medcl.io.chunks import Chunks, guarded_each
from medcl.io.failure import DIED, Failure, died_within
from medcl.io.local_map import check_loads, load_error, pack

T = TypeVar("T")
R = TypeVar("R")


def run(
    fn: Callable[[T], R], items: Sequence[T], workers: int, seconds: float | None
) -> Iterator[tuple[T, R | Failure]]:
    """A task for a few items; a task whose process dies is retried once, then its items alone.

    One that runs for longer than ``seconds`` is ended, process and all; None: never.
    """
    import ray

    started_here = not ray.is_initialized()
    if started_here:
        with stopping.kept():  # Ray ends the process at SIGTERM, with exit code 15
            _start(workers)
    try:
        _try_out(fn)
        task: Any = ray.remote(max_retries=1)(_within)
        shared = ray.put(fn)
        processors = max(1, int(ray.cluster_resources().get("CPU", workers)))
        chunks = Chunks(items, processors, seconds=1.0, largest=256)  # a task is dear
        in_flight: dict[Any, list[T]] = {}
        while chunks or in_flight:
            while chunks and len(in_flight) < 2 * processors:
                chunk = chunks.take()
                in_flight[task.remote(shared, chunk, seconds)] = chunk
            for reference in ray.wait(list(in_flight))[0]:
                chunk = in_flight.pop(reference)
                outcome = _outcome(reference, seconds)
                if not isinstance(outcome, Failure):
                    results, took = outcome
                    yield from zip(chunk, results, strict=True)
                    chunks.took(chunk, took)
                elif len(chunk) > 1:
                    chunks.alone(chunk)
                else:
                    yield chunk[0], outcome
    finally:
        if started_here:
            ray.shutdown()


def _start(workers: int) -> None:
    import ray

    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False)
        return
    path = os.pathsep.join(path for path in sys.path if path)  # this process's module path
    ray.init(
        "local",  # a Ray that runs here already may be somebody else's
        num_cpus=max(workers, 1),
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": path}},
    )


def _try_out(fn: Callable[..., Any]) -> None:
    """Check that a Ray worker has medcl and can load the function."""
    import ray

    try:
        error = ray.get(ray.remote(load_error).remote(pack(fn)))
    except ray.exceptions.RayError as broken:
        raise MedclError(
            f"Ray's workers cannot run medcl ({type(broken).__name__}). Install it where they run."
        ) from broken
    check_loads(fn, error)


def _within(
    fn: Callable[[T], R], chunk: Sequence[T], seconds: float | None
) -> tuple[list[R | Failure], float]:
    """`guarded_each`, in a process that ends itself after ``seconds``."""
    if seconds is None:
        return guarded_each(fn, chunk)
    limit = threading.Timer(seconds, os._exit, [1])
    limit.daemon = True
    limit.start()
    try:
        return guarded_each(fn, chunk)
    finally:
        limit.cancel()


def _outcome(reference: Any, seconds: float | None) -> Any:
    """What `_within` gave; a `Failure` if its process died."""
    import ray
    from ray import exceptions

    deaths = (
        exceptions.WorkerCrashedError,
        exceptions.OutOfMemoryError,
        exceptions.NodeDiedError,
    )
    try:
        return ray.get(reference)
    except deaths:
        return DIED if seconds is None else died_within(seconds)
    except exceptions.RayError as error:
        return Failure.of(error)
