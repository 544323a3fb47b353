"""What works on this machine, and what to do about the rest."""

from __future__ import annotations

import importlib
import os
import platform
import re
import shutil
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Literal

IMPORT_NAMES = {
    "pylibjpeg-libjpeg": "libjpeg",
    "pylibjpeg-openjpeg": "openjpeg",
    "pylibjpeg-rle": "rle",
    "openslide-bin": "openslide_bin",
    "openslide-python": "openslide",
    "pynrrd": "nrrd",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
}
"""Of the packages that are imported under another name than they are installed under."""
EXTRAS = {
    "ray": "maps over an archive on a cluster",
    "jpeg": "JPEG and JPEG-LS in DICOM",
    "hf": "encoders of Hugging Face transformers",
    "onnx": "encoders as ONNX graphs",
}
"""What medcl's extras are for; those for developing it are not looked at."""


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
    packages = _packages()
    torch_works = any(check.name == "torch" and check.status == "ok" for check in packages)
    devices = [_cpu(), *_cuda()] if torch_works else []
    return [python, *packages, *devices, _compiler(), _shared_memory(), *_plugins()]


def cores() -> int:
    """The processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _packages() -> list[Check]:
    """All that medcl's distribution says it requires, then what its extras bring."""
    try:
        required = requires("medcl") or []
    except PackageNotFoundError:
        return [Check("medcl", "broken", "not installed", "pip install medcl")]
    needed, optional = [], []
    for line in required:
        requirement, _, condition = line.partition(";")
        name = re.split(r"[^\w.-]", requirement.strip(), maxsplit=1)[0]
        extra = re.search(r"extra == ['\"](\w+)['\"]", condition)
        if extra is None:
            needed.append(_package(name, f"pip install '{requirement.strip()}'"))
        elif extra[1] in EXTRAS:
            advice = f"pip install 'medcl[{extra[1]}]'"
            optional.append(_package(name, advice, optional_for=EXTRAS[extra[1]]))
    compiled = ("comes with the CUDA build of torch", "torch.compile on CUDA")
    return [*needed, *optional, _package("triton", *compiled)]


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

    return Check("cpu", "ok", f"{cores()} cores, {torch.get_num_threads()} torch threads")


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
    try:
        from medcl.plugin import Plugin, discover
    except Exception as error:  # pydantic, say: the plugins are not to blame
        return [Check("plugins", "broken", f"{type(error).__name__}: {error}", "see above")]
    return [
        Check(f"plugin {name}", "ok", found.summary)
        if isinstance(found, Plugin)
        else Check(f"plugin {name}", "broken", found.reason, "reinstall or remove it")
        for name, found in discover().items()
    ]
