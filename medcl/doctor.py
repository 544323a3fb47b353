"""What works on this machine, and what to do about the rest."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from medcl.plugin import Plugin, discover

NEEDED = ("torch", "lightning", "monai", "polars", "scikit-learn", "pydantic", "safetensors")
IMPORT_NAMES = {"scikit-learn": "sklearn"}
OPTIONAL = {
    "ray": ("maps over an archive on a cluster", "pip install 'medcl[ray]'"),
    "triton": ("torch.compile on CUDA", "comes with the CUDA build of torch"),
}


@dataclass(frozen=True)
class Check:
    """One thing looked at. "absent" is an optional part that is not installed."""

    name: str
    status: Literal["ok", "absent", "broken", "note"]
    detail: str
    advice: str = ""


def examine() -> list[Check]:
    """Look at Python, packages, devices, compiler, memory for data loaders, and plugins."""
    python = Check("python", "ok", f"{platform.python_version()} on {platform.platform()}")
    needed = [_package(name, f"pip install '{name}'") for name in NEEDED]
    optional = [
        _package(name, advice, optional_for=purpose) for name, (purpose, advice) in OPTIONAL.items()
    ]
    return [
        python,
        *needed,
        *optional,
        _cpu(),
        *_cuda(),
        _compiler(),
        _shared_memory(),
        *_plugins(),
    ]


def _package(name: str, advice: str, optional_for: str = "") -> Check:
    try:
        found = version(name)
    except PackageNotFoundError:
        if optional_for:
            return Check(name, "absent", f"optional: {optional_for}", advice)
        return Check(name, "broken", "not installed", advice)
    try:
        importlib.import_module(IMPORT_NAMES.get(name, name))
    except Exception as error:  # whatever a broken binary raises is what we are here to report
        return Check(name, "broken", f"{found}: {type(error).__name__}: {error}", advice)
    return Check(name, "ok", found)


def _cpu() -> Check:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Check("cpu", "ok", f"{cores} cores, {torch.get_num_threads()} torch threads")


def _cuda() -> list[Check]:
    import torch

    if not torch.backends.cuda.is_built():
        if shutil.which("nvidia-smi"):
            advice = "a GPU driver is here, but torch is a CPU build: reinstall torch for CUDA"
            return [Check("cuda", "broken", f"torch {torch.__version__} is a CPU build", advice)]
        return [Check("cuda", "absent", "no GPU; everything runs on the CPU")]
    if not torch.cuda.is_available():
        advice = "check the driver with nvidia-smi" if shutil.which("nvidia-smi") else ""
        return [Check("cuda", "absent", f"torch for CUDA {torch.version.cuda}, no device", advice)]
    checks = []
    for number in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(number)
        detail = f"{found.name}, {found.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
        bf16 = "" if torch.cuda.is_bf16_supported() else "no bf16: use trainer.precision=16"
        checks.append(Check(f"cuda:{number}", "note" if bf16 else "ok", detail, bf16))
    return checks


def _compiler() -> Check:
    found = shutil.which("g++") or shutil.which("clang++")
    if found:
        return Check("c++ compiler", "ok", found)
    return Check("c++ compiler", "absent", "optional: torch.compile on CPU", "apt install g++")


def _shared_memory() -> Check:
    """Loader processes hand batches over through /dev/shm; containers often give it 64 MB."""
    if not os.path.isdir("/dev/shm"):
        return Check("/dev/shm", "note", "not there", "keep trainer.workers=0")
    free = shutil.disk_usage("/dev/shm").free / 2**20
    if free < 512:
        advice = "start the container with --shm-size=8g, or keep trainer.workers=0"
        return Check("/dev/shm", "note", f"{free:.0f} MiB free", advice)
    return Check("/dev/shm", "ok", f"{free:.0f} MiB free")


def _plugins() -> list[Check]:
    return [
        Check(f"plugin {name}", "ok", found.summary)
        if isinstance(found, Plugin)
        else Check(f"plugin {name}", "broken", found.reason, "reinstall or remove it")
        for name, found in discover().items()
    ]
