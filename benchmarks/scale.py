"""CPU seconds and memory of every step at growing sizes of an archive, with exponents.

    python benchmarks/scale.py                              # 10³ … 10⁵, about an hour
    python benchmarks/scale.py index dicom --sizes 1000 10000
    python benchmarks/scale.py search --sizes 10000 100000 1000000

All data are synthetic: recordings of ten seconds of a made-up ECG (EDF, ten of a person),
headers of CT slices whose pixels are holes of the file system (a hundred to a series), and random
embeddings of 256 numbers in clusters. A step runs in a process of its own: its CPU time (user and
system, children included) and the largest resident memory of it or a child. The exponent of a step
is the slope of log(CPU seconds less those at the smallest size) over the two largest sizes, so that
the start of the program does not hide it. What a step needs from an earlier one is not counted.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
DIM, EACH, SLICES, NEAR = 256, 10, 100, 0.05
SIZES = (1_000, 10_000, 100_000)


# --- made-up data ---------------------------------------------------------------------------------


def recordings(archive: Path, count: int) -> None:
    """EDF files of ten seconds, ten of each person."""
    from many_small_files import FS, SECONDS, edf

    rng = np.random.default_rng(0)
    t = np.arange(FS * SECONDS) / FS
    for n in range(count):
        folder = archive / f"site{n % 7}" / f"person{n // EACH:06d}"
        if n % EACH < 7:
            folder.mkdir(parents=True, exist_ok=True)
        beats = np.exp(-0.5 * (((t * (0.9 + 0.4 * rng.random())) % 1 - 0.5) / 0.02) ** 2)
        edf(folder / f"r{n:07d}", beats + 0.03 * rng.standard_normal(len(t)))


def slices(archive: Path, count: int) -> None:
    """CT slices by their headers alone: the pixels are a hole."""
    import io

    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    data = Dataset()
    data.SOPClassUID = CTImageStorage
    data.SOPInstanceUID, data.SeriesInstanceUID, data.StudyInstanceUID = (
        "1.2.1111111",
        "1.2.2222222",
        "1.2.3333333",
    )
    data.PatientID, data.Modality, data.Manufacturer = "P4444444", "CT", "SIEMENS"
    data.FrameOfReferenceUID, data.InstanceNumber = "1.2.5555555", "6666666"
    data.ImagePositionPatient, data.ImageOrientationPatient = ["0", "0", "7777777"], list("100010")
    data.PixelSpacing, data.SliceThickness, data.KVP = ["0.7", "0.7"], "1.0", "120"
    data.Rows = data.Columns = 512
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.RescaleIntercept, data.RescaleSlope, data.ImageType = (
        "-1024",
        "1",
        ["ORIGINAL", "PRIMARY", "AXIAL"],
    )
    data.PixelData = b"\0" * (512 * 512 * 2)
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = CTImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = "1.2.1111111"
    out = io.BytesIO()
    data.save_as(out, enforce_file_format=True)
    whole = out.getvalue()
    head = whole[: len(whole) - 512 * 512 * 2]
    for n in range(count):
        series = n // SLICES
        values = {
            "1" * 7: n,
            "2" * 7: series,
            "3" * 7: series,
            "4" * 7: series // 2,
            "5" * 7: series,
        }
        values |= {"6" * 7: n % SLICES + 1, "7" * 7: n % SLICES}
        own = head
        for mark, value in values.items():
            own = own.replace(mark.encode(), f"{value + 1_000_000:07d}".encode())
        path = archive / f"s{series:06d}" / f"{n:07d}.dcm"
        if n % SLICES == 0:
            path.parent.mkdir(parents=True)
        with path.open("wb") as handle:
            handle.write(own)
            handle.truncate(len(whole))


def embeddings(count: int) -> np.ndarray:
    """(N, 256) rows in clusters around a common mean; every tenth is a near copy of another."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((max(count // 100, 4), DIM), dtype=np.float32)
    x = rng.standard_normal((count, DIM), dtype=np.float32)
    x *= 0.7
    x += centres[rng.integers(0, len(centres), count)]
    x += 2
    copies = np.arange(9, count, 10)
    x[copies] = x[copies - 5] + 0.02 * rng.standard_normal((len(copies), DIM), dtype=np.float32)
    return x


# --- steps ----------------------------------------------------------------------------------------
