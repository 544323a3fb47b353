"""Make the CT sample that travels with medcl from the public data that it is a part of.

    python benchmarks/ct_sample.py ../shared/data/ct plugins/medcl_ct/sample

Reads each file again and compares. The Siemens slices are copies, byte for byte. The NIfTI keeps
the values and places of `ABDOMEN`'s slices, as 16-bit integers (the original has 32).
"""

from __future__ import annotations

import copy
import io
import shutil
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, generate_uid

ABDOMEN = slice(10, 74)  # of 112, 3 mm each
AVERAGED = 4  # pixels of the chest, along each side
HEIGHTS = slice(5, 25)  # of 30: the thorax without its ends
BROKEN = 26  # a slice that is in the sample as if its transfer had broken off
BROKEN_AT = 20_000  # bytes


def main(source: Path, out: Path) -> None:
    abdomen(source / "abdomen_ct.nii.gz", out / "abdomen_ct.nii.gz")
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(source / "series_lung_a0002.tar.xz") as archive:
            archive.extractall(folder, filter="data")
        shutil.copy(next(Path(folder).rglob("LICENSE")), out / "LICENSE-chest.txt")
        files: list[bytes] = []
        for kernel in ("b40f", "b70f"):
            slices = [pydicom.dcmread(path) for path in Path(folder).rglob(f"{kernel}/*.dcm")]
            slices.sort(key=lambda one: float(one.ImagePositionPatient[2]))
            files += [packed(reduced(one)) for one in slices[HEIGHTS]]
            if kernel == "b40f":
                whole = io.BytesIO()
                reduced(slices[BROKEN]).save_as(whole)
                files.append(whole.getvalue()[:BROKEN_AT])
    order = np.random.default_rng(0).permutation(len(files))  # names tell nothing, as in exports
    with zipfile.ZipFile(out / "chest.zip", "w") as archive:
        for number, place in enumerate(order):
            info = zipfile.ZipInfo(f"DICOM/IM{number:04d}", (1980, 1, 1, 0, 0, 0))
            archive.writestr(info, files[place])


def abdomen(source: Path, out: Path) -> None:
    """Some slices of the volume at their places, values as they were."""
    whole = nib.load(source)
    part = whole.slicer[:, :, ABDOMEN]
    values = np.asanyarray(part.dataobj)
    nib.save(nib.Nifti1Image(values.astype(np.int16), part.affine), out)
    again = nib.load(out)
    assert np.array_equal(np.asanyarray(again.dataobj), values)
    assert np.allclose(
        again.affine[:3, 2] * ABDOMEN.start + whole.affine[:3, 3], again.affine[:3, 3]
    )


def reduced(original: pydicom.Dataset) -> pydicom.Dataset:
    """A slice at a quarter of its resolution: each pixel the mean of `AVERAGED` squared."""
    small = copy.deepcopy(original)
    small.remove_private_tags()
    side = 512 // AVERAGED
    mean = original.pixel_array.reshape(side, AVERAGED, side, AVERAGED).mean(axis=(1, 3))
    small.PixelData = np.rint(mean).astype(np.uint16).tobytes()
    small.Rows = small.Columns = side
    step = [float(v) for v in original.PixelSpacing]
    small.PixelSpacing = [AVERAGED * v for v in step]
    at = [float(v) for v in original.ImagePositionPatient]
    middle = (AVERAGED - 1) / 2  # of the first square, in pixels of the original
    small.ImagePositionPatient = [at[0] + middle * step[1], at[1] + middle * step[0], at[2]]
    small.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
    small.DerivationDescription = f"Averaged over {AVERAGED} x {AVERAGED} pixels"
    entropy = [original.SOPInstanceUID, f"{AVERAGED}x{AVERAGED}"]
    small.SOPInstanceUID = generate_uid(entropy_srcs=entropy)
    small.file_meta.MediaStorageSOPInstanceUID = small.SOPInstanceUID
    small.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for name in ("SourceImageSequence", "ReferencedImageSequence"):
        if name in small:
            del small[name]
    return small


def packed(one: pydicom.Dataset) -> bytes:
    """The slice as a file, in JPEG 2000 without loss."""
    pixels = one.pixel_array
    one.compress(JPEG2000Lossless, pixels, generate_instance_uid=False)
    file = io.BytesIO()
    one.save_as(file)
    again = pydicom.dcmread(io.BytesIO(file.getvalue()))
    assert np.array_equal(again.pixel_array, pixels)
    return file.getvalue()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
