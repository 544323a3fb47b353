"""Synthetic volumes with masks ("phantoms"), in the layouts of public data sets. Nobody's data.

python phantoms.py totalsegmentator|decathlon|nnunet|luna16 FOLDER COUNT
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

ORGANS = {"liver": (60.0, (0.5, 0.5, 0.35), 0.28), "aorta": (250.0, (0.5, 0.62, 0.62), 0.1)}
"""Name → HU, centre as shares of (z, y, x), radius as a share of the smallest side."""


def phantom(
    seed: int, shape: tuple[int, int, int] = (24, 32, 40)
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """A body in air with an ellipsoid of each organ, and noise: HU and labels (Z, Y, X).

    Places and sizes vary from one phantom to the next.
    """
    random = np.random.default_rng(seed)
    axes = np.meshgrid(*((np.arange(n) + 0.5) / n for n in shape), indexing="ij")
    inside = sum(((a - 0.5) / r) ** 2 for a, r in zip(axes, (9.0, 0.42, 0.45), strict=True)) < 1
    hu = np.where(inside, 0.0, -1000.0)
    labels = np.zeros(shape, dtype=np.uint8)
    for number, (value, centre, radius) in enumerate(ORGANS.values(), start=1):
        at = [c + random.uniform(-0.05, 0.05) for c in centre]
        size = [radius * random.uniform(0.85, 1.2) * min(shape) / n for n in shape]
        organ = sum(((a - c) / r) ** 2 for a, c, r in zip(axes, at, size, strict=True)) < 1
        hu[organ & inside] = value
        labels[organ & inside] = number
    hu += random.normal(0.0, 20.0, shape)
    return np.clip(hu, -1024, 3000).astype(np.int16), labels


def save(
    path: Path, values: NDArray, spacing: tuple[float, float, float] = (2.0, 2.0, 2.0)
) -> None:
    """Write (Z, Y, X), indices rising towards head, back and left, as NIfTI in RAS."""
    path.parent.mkdir(parents=True, exist_ok=True)
    z, y, x = spacing
    affine = np.diag([-x, -y, z, 1.0])  # x rises to the left, y to the back: both negative in RAS
    nib.save(nib.Nifti1Image(np.ascontiguousarray(values.T), affine), path)


def totalsegmentator(root: Path, count: int, **options: tuple[int, int, int]) -> Path:
    """``s0001/ct.nii.gz`` and a file for each organ in ``s0001/segmentations``."""
    for n in range(count):
        hu, labels = phantom(n, **options)
        folder = root / f"s{n + 1:04d}"
        save(folder / "ct.nii.gz", hu)
        for number, name in enumerate(ORGANS, start=1):
            mask = (labels == number).astype(np.uint8)
            save(folder / "segmentations" / f"{name}.nii.gz", mask)
    return root


def decathlon(root: Path, count: int, **options: tuple[int, int, int]) -> Path:
    """``imagesTr``, ``labelsTr`` and ``dataset.json`` of the Medical Segmentation Decathlon."""
    for n in range(count):
        hu, labels = phantom(n, **options)
        save(root / "imagesTr" / f"organ_{n + 1:03d}.nii.gz", hu)
        save(root / "labelsTr" / f"organ_{n + 1:03d}.nii.gz", labels)
    names = {"0": "background", **{str(k): name for k, name in enumerate(ORGANS, start=1)}}
    (root / "dataset.json").write_text(json.dumps({"labels": names}))
    return root


def nnunet(root: Path, count: int, **options: tuple[int, int, int]) -> Path:
    """``imagesTr/CASE_0000``, ``labelsTr/CASE`` and the ``dataset.json`` of nnU-Net, version 2."""
    for n in range(count):
        hu, labels = phantom(n, **options)
        save(root / "imagesTr" / f"organ_{n + 1:03d}_0000.nii.gz", hu)
        save(root / "labelsTr" / f"organ_{n + 1:03d}.nii.gz", labels)
    names = {"background": 0, **{name: k for k, name in enumerate(ORGANS, start=1)}}
    said = {"channel_names": {"0": "CT"}, "labels": names, "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(said | {"numTraining": count}))
    return root


def luna16(root: Path, count: int, **options: tuple[int, int, int]) -> Path:
    """``subset0/UID.mhd`` and ``seg-lungs-LUNA16/UID.mhd``, values apart in ``.raw``."""
    import SimpleITK as sitk

    for n in range(count):
        uid = f"1.3.6.1.4.1.14519.5.2.1.6279.6001.{n + 1}"
        for folder, values in zip(
            ("subset0", "seg-lungs-LUNA16"), phantom(n, **options), strict=True
        ):
            image = sitk.GetImageFromArray(values)
            image.SetSpacing([2.0, 2.0, 2.0])
            (root / folder).mkdir(parents=True, exist_ok=True)
            sitk.WriteImage(image, str(root / folder / f"{uid}.mhd"))
    return root


if __name__ == "__main__":
    LAYOUTS = {f.__name__: f for f in (totalsegmentator, decathlon, nnunet, luna16)}
    LAYOUTS[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))
