"""SIGTERM and Ctrl-C: what runs ends in order, removes its scratch files, and can be gone on with.

So does SIGHUP, which a terminal sends that closes (under ``nohup`` it stays ignored), and SIGUSR1,
by which SLURM announces the end of a job (``sbatch --signal=USR1@120``); the job is put back into
the queue (`requeue`).

A signal raises `Stopped` in the main thread, which no ``except Exception`` holds up. Where work
must not be broken off at any place, as within a training step, `deferred` notes it instead. A
second signal ends the process at once.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


class Stopped(BaseException):
    """The process was asked to end.

    Attributes:
        number: the signal's.
        code: the exit code, 128 + number: 130 after Ctrl-C, 143 after SIGTERM.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number
        self.code = 128 + number


@dataclass
class Notice:
    """Of a signal that came while work could not be broken off.

    Attributes:
        wanted: signals are handled (`handled`).
        number: the signal's; None before one.
    """

    wanted: bool
    number: int | None = None


_notice: Notice | None = None


@contextmanager
def handled() -> Iterator[None]:
    """Raise `Stopped` at the signals of `SIGNALS`. In a thread other than the main one: nothing."""
    with kept():
        if threading.current_thread() is threading.main_thread():
            take()
        yield


@contextmanager
def kept() -> Iterator[None]:
    """Put handlers back at the end, which a library may have taken."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


def take() -> None:
    """Handle the signals again, after a library has taken them. Only under `handled`."""
    for number in SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _stop)


@contextmanager
def deferred() -> Iterator[Notice]:
    """Note a signal instead of raising at once; `Stopped` is raised at the end if nobody did.

    Only under `handled` and in the main thread: elsewhere signals do what they did. Whoever sees a
    notice raises it where the work may be broken off. Within another one, that one is told.
    """
    global _notice
    if threading.current_thread() is not threading.main_thread():
        yield Notice(False)
        return
    before, _notice = _notice, Notice(signal.getsignal(signal.SIGTERM) is _stop)
    notice = _notice
    try:
        yield notice
    finally:
        _notice = before
    if notice.number is not None:
        _stop(notice.number, None)


def _stop(number: int, frame: FrameType | None) -> None:
    if _notice is not None and _notice.number is None:
        _notice.number = number
        return
    for each in SIGNALS:  # while this one is cleaned up after
        if signal.getsignal(each) is _stop:
            signal.signal(each, signal.SIG_DFL)
    raise Stopped(number)


def requeue(stopped: Stopped) -> str | None:
    """After SIGUSR1 in a SLURM job: put it back into the queue. What was done, in a sentence.

    Only the first of its processes does; None where nothing is to be done.
    """
    job, first = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_PROCID", "0") == "0"
    if stopped.number != signal.SIGUSR1 or not job or not first:
        return None
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    name = f"{array}_{task}" if array and task else job
    try:
        done = subprocess.run(["scontrol", "requeue", name], capture_output=True, check=False)
    except OSError as error:
        return f"Job {name} was not requeued: scontrol: {error.strerror}."
    if done.returncode:
        return f"Job {name} was not requeued: scontrol ended with {done.returncode}."
    return f"Job {name} is in the queue again."
