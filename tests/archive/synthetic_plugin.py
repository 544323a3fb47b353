"""A synthetic archive, a plugin for it, and a script to be killed while it indexes.

A recording is ``NAME.rec`` (``patient site behaviour`` on one line, then numbers) with, sometimes,
a ``NAME.sig`` beside it. The behaviour says what reading it does to the process. All persons are
invented.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medcl.plugin import CONTRACT, FileStat, Plugin, Record, Reject, Unit


def units(files: Sequence[FileStat]) -> Iterator[Unit]:
    """A header, with its signal file if there is one."""
    by_path = {file.path: file for file in files}
    for file in files:
        if file.path.endswith(".rec"):
            signals = by_path.get(file.path.removesuffix(".rec") + ".sig")
            yield Unit(file.path, (file, signals) if signals else (file,))


def scan(root: Path, unit: Unit) -> Iterator[Record | Reject]:
    """Read the first line, note the call where SYNTHETIC_LOG says, and behave as told."""
    log = os.environ.get("SYNTHETIC_LOG")
    if log:
        with open(log, "a") as handle:
            handle.write(f"{os.getpid()} {unit.key!r}\n")
    if "SYNTHETIC_SLEEP" in os.environ:
        time.sleep(float(os.environ["SYNTHETIC_SLEEP"]))
    words = (root / unit.key).read_text().splitlines()[0].split(" ")
    patient, site, behaviour = words
    files = tuple(file.path for file in unit.files)
    if behaviour == "reject":
        yield Reject(unit.key, "empty", f"{root / unit.key} holds nothing; export it again.")
        return
    if behaviour == "twice":
        yield Record("the same key", files, patient)
        return
    yield Record(
        unit.key,
        files,
        patient,
        None if site == "-" else site,
        fields={"files": len(files), **({"rate": 250.0} if behaviour == "rate" else {})},
        labels={"rhythm": "sinus" if len(patient) % 2 else "other"},
        findings=("no signal",) if len(files) == 1 else (),
    )
    if behaviour == "raise":
        raise ValueError(f"cannot parse the name of {patient}")
    if behaviour == "sys.exit":
        sys.exit(3)
    if behaviour == "exit":
        os._exit(1)
    if behaviour == "segv":
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)
        ctypes.string_at(0)


def prepare(
    root: Path,
    files: Sequence[str],
    fields: Mapping[str, Any],
    *,
    scale: float = 1.0,
    names: tuple[str, ...] = ("x",),
) -> dict[str, np.ndarray]:
    """The numbers after the first line, scaled."""
    log = os.environ.get("SYNTHETIC_LOG")
    if log:
        with open(log, "a") as handle:
            handle.write(f"{os.getpid()} {files[0]!r}\n")
    lines = (root / files[0]).read_text().splitlines()[1:]
    if lines == ["exit"]:
        os._exit(1)
    if lines == ["objects"]:
        return {"x": np.array([object()])}
    return {name: scale * np.array(lines, dtype=np.float32) for name in names}


plugin = Plugin(
    name="synthetic",
    summary="invented recordings",
    contract=CONTRACT,
    units=units,
    scan=scan,
    prepare="synthetic_plugin:prepare",
    dataset="synthetic_plugin:prepare",
    views="synthetic_plugin:prepare",
    encoders={},
)


def recording(
    archive: Path,
    name: str,
    patient: str,
    site: str = "-",
    behaviour: str = "ok",
    numbers: Sequence[object] = (1, 2, 3),
    signals: bool = False,
) -> Path:
    """Write one recording."""
    path = archive / f"{name}.rec"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{patient} {site} {behaviour}", *map(str, numbers)]
    path.write_text("\n".join(lines) + "\n")
    if signals:
        path.with_suffix(".sig").write_bytes(b"\0" * 10)
    return path


def archive_of(folder: Path, count: int) -> Path:
    """A folder tree of many recordings, some of them rejects."""
    for n in range(count):
        behaviour = {5: "raise", 6: "reject", 7: "twice", 8: "rate"}.get(n % 11, "ok")
        name = f"site_{n % 3}/person_{n // 3:03d}/rec_{n:04d}"
        recording(folder, name, f"person_{n // 3:03d}", f"s{n % 3}", behaviour, signals=n % 2 == 0)
    return folder


def main() -> None:
    """ARCHIVE OUT WORKERS [DIE]: index; be killed (-9) at the DIE-th file that gets its name."""
    archive, out, workers, *die = sys.argv[1:]
    if die:
        rename, left = os.replace, [int(die[0])]

        def replace(source: Path, target: Path) -> None:
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            rename(source, target)

        os.replace = replace  # type: ignore[assignment]
    from medcl.archive.index import build

    build(Path(archive), Path(out), plugin, workers=int(workers))
