"""Make the CT sample that travels with medcl from the public data that it is a part of.

    python benchmarks/ct_sample.py ../shared/data/ct plugins/medcl_ct/sample

Reads each file again and compares. The Siemens slices and the NIfTI are copies, byte for byte.
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

import numpy as np
import pydicom
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, generate_uid

HEIGHTS = slice(5, 25)  # of 30: the thorax without its ends
BROKEN = 26  # a slice that is in the sample as if its transfer had broken off


def main(source: Path, out: Path) -> None:
    shutil.copy(source / "abdomen_ct.nii.gz", out)
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
                files.append(whole.getvalue()[:40_000])
    order = np.random.default_rng(0).permutation(len(files))  # names tell nothing, as in exports
    with zipfile.ZipFile(out / "chest.zip", "w") as archive:
        for number, place in enumerate(order):
            info = zipfile.ZipInfo(f"DICOM/IM{number:04d}", (1980, 1, 1, 0, 0, 0))
            archive.writestr(info, files[place])


def reduced(original: pydicom.Dataset) -> pydicom.Dataset:
    """A slice at half its resolution: each pixel the mean of four."""
    small = copy.deepcopy(original)
    small.remove_private_tags()
    mean = original.pixel_array.reshape(256, 2, 256, 2).mean(axis=(1, 3))
    small.PixelData = np.rint(mean).astype(np.uint16).tobytes()
    small.Rows = small.Columns = 256
    step = [float(v) for v in original.PixelSpacing]
    small.PixelSpacing = [2 * v for v in step]
    at = [float(v) for v in original.ImagePositionPatient]
    small.ImagePositionPatient = [at[0] + step[1] / 2, at[1] + step[0] / 2, at[2]]
    small.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
    small.DerivationDescription = "Averaged over 2 x 2 pixels"
    small.SOPInstanceUID = generate_uid(entropy_srcs=[original.SOPInstanceUID, "2x2"])
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
