"""3D views per second: ours against MONAI, batchgeneratorsv2 and TorchIO, each as it is quickest.

Eight volumes of 128³ become eight views of 96³: random resized crop, flip, rotation about three
axes, anisotropic scale, noise, smoothing, intensity. Crop, rotation and scale are one resampling in
ours, in MONAI's ``RandAffine`` ("monai, affine"), in MONAI's lazy steps and in batchgeneratorsv2's
``SpatialTransform``; "monai" is a Compose of steps that resample one after the other. Measured in
turns in one process, so that what else the machine does hits all alike; each figure is the median
over rounds, by the clock and by the processor time of all threads. The volumes are synthetic noise,
which costs what real ones cost. Peak memory, beyond what was held before, is measured in a process
each. On a CUDA device ours and MONAI work there; the others are not run there.

    python benchmarks/ct_views.py            # ours and MONAI
    python benchmarks/ct_views.py --device cuda
    PYTHONPATH=… python benchmarks/ct_views.py   # TorchIO and batchgeneratorsv2, where installed
    python benchmarks/ct_views.py --geometry plain --peers ours "monai, affine" batchgeneratorsv2
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

BATCH, BEFORE, AFTER = 8, 128, 96
TURN = 10.0  # degrees
# The same probabilities for all: geometry always, noise and smoothing in three of ten.
SOMETIMES = 0.3


def ours(elastic: bool, device: str) -> Callable[[torch.Tensor], object]:
    from medcl_ct.views import views

    module = views(
        size=(AFTER,),
        crop_share=(0.42, 0.8),  # sides of 0.75 to 0.93, as the crops and zooms below
        rotate=1.0,
        rotate_degrees=TURN,
        tilt_degrees=TURN,
        elastic=1.0 if elastic else 0.0,
        window=1.0,
        gamma=0.0,
        noise=SOMETIMES,
        blur=SOMETIMES,
        sharpen=0.0,
        kernel=0.0,
    )
    generator = torch.Generator(device).manual_seed(0)
    return lambda batch: module(batch, generator)


def _elastic(device: str) -> object:
    from monai import transforms as mt

    return mt.Rand3DElastic((5, 7), (50, 150), prob=1.0, padding_mode="border", device=device)


def _greys() -> list[object]:
    from monai import transforms as mt

    return [
        mt.RandGaussianNoise(prob=SOMETIMES, std=40.0),
        mt.RandGaussianSmooth((0.3, 1.0), (0.3, 1.0), (0.3, 1.0), prob=SOMETIMES),
        mt.ScaleIntensityRange(-160.0, 240.0, -1000.0, 1000.0, clip=True),
    ]


def monai(elastic: bool, device: str) -> Callable[[torch.Tensor], object]:
    from monai import transforms as mt

    turn = TURN * torch.pi / 180
    steps = [
        mt.RandSpatialCrop([AFTER] * 3, max_roi_size=[120] * 3, random_size=True),
        mt.Resize([AFTER] * 3, mode="trilinear"),
        mt.RandFlip(prob=0.5, spatial_axis=2),
        mt.RandRotate(turn, turn, turn, prob=1.0, padding_mode="border"),
        mt.RandZoom(prob=1.0, min_zoom=[0.9] * 3, max_zoom=[1.1] * 3, mode="trilinear"),
        *_greys(),
    ]
    if elastic:
        steps.insert(5, _elastic(device))
    compose = mt.Compose(steps).set_random_state(0)
    return lambda batch: [compose(sample) for sample in batch]


def monai_fused(elastic: bool, device: str) -> Callable[[torch.Tensor], object]:
    """MONAI's own best: lazy resampling fuses the affine steps of a sample into one."""
    from monai import transforms as mt

    turn = TURN * torch.pi / 180
    steps = [
        mt.RandSpatialCrop([AFTER] * 3, max_roi_size=[120] * 3, random_size=True, lazy=True),
        mt.Resize([AFTER] * 3, mode="trilinear", lazy=True),
        mt.RandFlip(prob=0.5, spatial_axis=2, lazy=True),
        mt.RandRotate(turn, turn, turn, prob=1.0, padding_mode="border", lazy=True),
        mt.RandZoom(prob=1.0, min_zoom=[0.9] * 3, max_zoom=[1.1] * 3, mode="trilinear", lazy=True),
        *_greys(),
    ]
    if elastic:
        steps.insert(5, _elastic(device))
    compose = mt.Compose(steps, lazy=None).set_random_state(0)
    return lambda batch: [compose(sample) for sample in batch]


def monai_affine(elastic: bool, device: str) -> Callable[[torch.Tensor], object]:
    """MONAI with one resampling: sides of 96 to 120 shown as 96, and the zoom of its other rows."""
    from monai import transforms as mt

    turn = TURN * torch.pi / 180
    steps = [
        mt.RandFlip(prob=0.5, spatial_axis=2),
        mt.RandAffine(
            prob=1.0,
            rotate_range=(turn,) * 3,
            scale_range=((-0.1, 0.38),) * 3,
            translate_range=(8.0,) * 3,
            spatial_size=(AFTER,) * 3,
            mode="bilinear",
            padding_mode="border",
            device=device,
        ),
        *_greys(),
    ]
    if elastic:
        steps.insert(2, _elastic(device))
    compose = mt.Compose(steps).set_random_state(0)
    return lambda batch: [compose(sample) for sample in batch]


def batchgenerators(elastic: bool, device: str) -> Callable[[torch.Tensor], object]:
    """batchgeneratorsv2, the views of nnU-Net: one ``grid_sample``, elastic offsets within it."""
    import numpy as np
    from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
    from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
    from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
    from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
    from batchgeneratorsv2.transforms.utils.random import RandomTransform

    turn = TURN * np.pi / 180
    compose = ComposeTransforms(
        [
            SpatialTransform(
                (AFTER,) * 3,
                AFTER // 2,
                True,
                p_elastic_deform=1.0 if elastic else 0.0,
                p_rotation=1.0,
                rotation=(-turn, turn),
                p_scaling=1.0,
                scaling=(0.9, 1.38),
                padding_mode_image="border",
            ),
            MirrorTransform((2,)),
            RandomTransform(
                GaussianNoiseTransform(noise_variance=(0, 1600), p_per_channel=1.0), SOMETIMES
            ),
            RandomTransform(
                GaussianBlurTransform(blur_sigma=(0.3, 1.0), p_per_channel=1.0), SOMETIMES
            ),
        ]
    )

    def run(batch: torch.Tensor) -> object:
        out = []
        for sample in batch:
            view = compose(image=sample.clone())["image"]
            out.append(view.clamp(-160, 240).add(160).mul(5.0).sub(1000))
        return out

    return run


def torchio(elastic: bool, device: str) -> Callable[[torch.Tensor], object]:
    import torchio as tio

    steps = [
        tio.RandomFlip(axes=(2,), flip_probability=0.5),
        tio.RandomAffine(scales=0.1, degrees=TURN, default_pad_value="minimum"),
        *([tio.RandomElasticDeformation(num_control_points=7)] if elastic else []),
        tio.RandomNoise(std=(5, 40), p=SOMETIMES),
        tio.RandomBlur(std=(0.3, 1.0), p=SOMETIMES),
        tio.RescaleIntensity((-1000, 1000), in_min_max=(-160, 240)),
    ]
    compose = tio.Compose(steps)

    def run(batch: torch.Tensor) -> object:
        random = torch.Generator().manual_seed(0)
        out = []
        for sample in batch:
            side = int(torch.randint(AFTER, 121, (1,), generator=random))
            at = torch.randint(0, BEFORE - side + 1, (3,), generator=random).tolist()
            z, y, x = (slice(start, start + side) for start in at)
            out.append(compose(tio.Resize(AFTER)(tio.ScalarImage(tensor=sample[:, z, y, x]))))
        return out

    return run


PEERS = {
    "ours": ours,
    "monai": monai,
    "monai, lazy": monai_fused,
    "monai, affine": monai_affine,
    "batchgeneratorsv2": batchgenerators,
    "torchio": torchio,
}
GEOMETRY = {"plain": False, "elastic": True}
ON_CPU = ("batchgeneratorsv2", "torchio")  # and not everywhere installed


def volumes(device: str) -> torch.Tensor:
    made = torch.randn(BATCH, 1, *[BEFORE] * 3, generator=torch.Generator().manual_seed(0)) * 300
    return made.to(device)


def seconds(run: Callable[[], object], device: str) -> tuple[float, float]:
    """By the clock, and of processor time."""
    start, worked = time.perf_counter(), time.process_time()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, time.process_time() - worked


def measure(
    names: list[str], rounds: int, elastic: bool, device: str
) -> dict[str, tuple[float, float]]:
    """Views per second, by the clock and of processor time."""
    batch = volumes(device)
    runs = {name: partial(PEERS[name](elastic, device), batch) for name in names}
    for run in runs.values():
        seconds(run, device)  # imports, caches
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for _ in range(rounds):
        for name, run in runs.items():
            taken[name].append(seconds(run, device))
    return {
        name: (
            BATCH / statistics.median(clock for clock, _ in times),
            BATCH / statistics.median(worked for _, worked in times),
        )
        for name, times in taken.items()
    }


def held(what: str) -> float:
    """Resident memory of this process in MB: now ("VmRSS") or at its peak ("VmHWM")."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(what):
            return int(line.split()[1]) / 1024
    raise RuntimeError("peak memory is read from /proc, which only Linux has")


def peak(name: str, elastic: bool, threads: int, device: str) -> float:
    """Peak memory of a batch beyond what was held before, in MB: resident, or the device's."""
    code = [sys.executable, __file__, "--peak", name, "--threads", str(threads), "--device", device]
    out = subprocess.run(
        [*code, *(["--elastic"] if elastic else [])], capture_output=True, text=True
    )
    return float(json.loads(out.stdout.splitlines()[-1]))


def _peak_here(run: Callable[[torch.Tensor], object], device: str) -> float:
    batch = volumes(device)
    run(batch)  # imports
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        held_before = torch.cuda.memory_allocated()
        run(batch)
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - held_before) / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = held("VmRSS")
    run(batch)
    return held("VmHWM") - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--elastic", action="store_true")
    parser.add_argument("--peers", nargs="*", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--geometry", nargs="*", choices=list(GEOMETRY), default=list(GEOMETRY))
    parser.add_argument("--peak", choices=list(PEERS))
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    if asked.peak:
        print(_peak_here(PEERS[asked.peak](asked.elastic, asked.device), asked.device))
        return
    names = [
        name
        for name in asked.peers
        if name not in ON_CPU or (importlib.util.find_spec(name) and asked.device == "cpu")
    ]
    load = os.getloadavg()[0]
    print(f"{asked.device}, {os.cpu_count()} cores with a load of {load:.1f} before this began")
    for elastic in (GEOMETRY[name] for name in asked.geometry):
        speed = measure(names, asked.rounds, elastic, asked.device)
        print(f"{'with' if elastic else 'without'} elastic deformation, {asked.threads} threads")
        print("                     views/s   ours is   by processor time   peak memory")
        for name in names:
            clock, worked = (speed["ours"][n] / speed[name][n] for n in (0, 1))
            memory = peak(name, elastic, asked.threads, asked.device)
            print(
                f"  {name:18} {speed[name][0]:6.1f}    {clock:5.1f}×   {worked:12.1f}×"
                f"   {memory:12.0f} MB",
                flush=True,
            )


if __name__ == "__main__":
    main()
