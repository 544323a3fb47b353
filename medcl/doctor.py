"""Checks of this machine, each with advice where something does not work."""

from __future__ import annotations

import importlib
import os
import platform
import re
import shutil
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, packages_distributions, requires, version
from typing import Literal

EXTRAS = {
    "ray": "maps over an archive on a cluster",
    "object-storage": "archives at s3://, gs://, az:// and http(s)://",
    "jpeg": "JPEG and JPEG-LS in DICOM",
    "czi": "Zeiss CZI slides that OpenSlide does not read",
    "zarr": "OME-Zarr slides",
    "excel": "tables of labels in Excel workbooks",
    "signals": "Excel workbooks, Avro and FIT files of wearables",
    "seg": "masks as DICOM SEG",
    "hf": "encoders of Hugging Face transformers, medcl push and pull",
    "onnx": "encoders as ONNX graphs",
    "audit": "medcl audit-phi, which searches outputs for identifying values",
    "wandb": "metrics of pretraining in Weights & Biases",
    "mlflow": "metrics of pretraining in MLflow",
}
"""The purpose of medcl's extras; those for its development are not checked."""


@dataclass(frozen=True)
class Check:
    """One check. "absent" is an optional part that is not installed."""

    name: str
    status: Literal["ok", "absent", "broken", "note"]
    detail: str
    advice: str = ""


def examine() -> list[Check]:
    """Check Python, packages, devices, compiler, memory for data loaders, and plugins."""
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


def driver() -> bool:
    """Whether a driver for GPUs is installed. torch, slow to import, is not asked."""
    return shutil.which("nvidia-smi") is not None


def _packages() -> list[Check]:
    """The requirements of medcl's distribution, then those of its extras."""
    try:
        required = requires("medcl") or []
    except PackageNotFoundError:
        return [Check("medcl", "broken", "not installed", "pip install medcl")]
    needed, optional = [], []
    for line in required:
        requirement, _, condition = line.partition(";")
        name = re.split(r"[^\w.-]", requirement.strip(), maxsplit=1)[0]
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", condition)
        if extra is None:
            needed.append(_package(name, f"pip install '{requirement.strip()}'"))
        elif extra[1] in EXTRAS:
            advice = f"pip install 'medcl[{extra[1]}]'"
            optional.append(_package(name, advice, optional_for=EXTRAS[extra[1]]))
    compiled = ("comes with the CUDA build of torch", "torch.compile on CUDA")
    return [*needed, *optional, _package("triton", *compiled)]


def _package(name: str, advice: str, optional_for: str = "") -> Check:
    try:
        installed = version(name)
    except PackageNotFoundError:
        if optional_for:
            return Check(name, "absent", f"optional: {optional_for}", advice)
        return Check(name, "broken", "not installed", advice)
    try:
        importlib.import_module(import_name(name))
    except Exception as error:  # a broken binary may raise anything: report it
        return Check(name, "broken", f"{installed}: {type(error).__name__}: {error}", advice)
    return Check(name, "ok", installed)


def import_name(name: str) -> str:
    """The module of an installed distribution, which may have another name: pyyaml → yaml."""
    plain, owners = _plain(name), packages_distributions()
    modules = [module for module, owned in owners.items() if plain in map(_plain, owned)]
    alike = [m for m in modules if _plain(m).strip("-") in plain] or modules
    return min(alike, key=lambda m: (m.startswith("_"), _plain(m) != plain, m), default=name)


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _cpu() -> Check:
    import torch

    return Check("cpu", "ok", f"{cores()} cores, {torch.get_num_threads()} torch threads")


def _cuda() -> list[Check]:
    import torch

    if not torch.backends.cuda.is_built():
        if driver():
            advice = "a GPU driver is here, but torch is a CPU build: reinstall torch for CUDA"
            return [Check("cuda", "broken", f"torch {torch.__version__} is a CPU build", advice)]
        return [Check("cuda", "absent", "no GPU; everything runs on the CPU")]
    if not torch.cuda.is_available():
        advice = "check the driver with nvidia-smi" if driver() else ""
        return [Check("cuda", "absent", f"torch for CUDA {torch.version.cuda}, no device", advice)]
    checks = []
    for number in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(number)
        detail = f"{device.name}, {device.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
        bf16 = "" if torch.cuda.is_bf16_supported() else "no bf16: use trainer.precision=16"
        checks.append(Check(f"cuda:{number}", "note" if bf16 else "ok", detail, bf16))
    return checks


def _compiler() -> Check:
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler:
        return Check("c++ compiler", "ok", compiler)
    return Check("c++ compiler", "absent", "optional: torch.compile on CPU", "apt install g++")


def _shared_memory() -> Check:
    """Loader processes pass batches through /dev/shm, which is often 64 MB in containers."""
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
    except Exception as error:  # a dependency such as pydantic is broken, not the plugins
        return [Check("plugins", "broken", f"{type(error).__name__}: {error}", "see above")]
    return [
        Check(f"plugin {name}", "ok", plugin.summary)
        if isinstance(plugin, Plugin)
        else Check(f"plugin {name}", "broken", plugin.reason, "reinstall or remove it")
        for name, plugin in discover().items()
    ]
