"""Synthetic DICOM slices, written by pydicom: what no real file at hand shows. Nobody's data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

STUDY, SERIES, FRAME = generate_uid(), generate_uid(), generate_uid()


def ct_slice(path: Path, z: float, shape: tuple[int, int] = (16, 16), **tags: Any) -> Path:
    """Write one slice at height z: air with a block of water. A tag set to None is left out."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = tags.pop("TransferSyntaxUID", ExplicitVRLittleEndian)
    dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    stored = np.full(shape, 24, dtype=np.uint16)  # −1000 HU
    stored[4:-4, 4:-4] = 1024
    values: dict[str, Any] = {
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": generate_uid(),
        "Modality": "CT",
        "PatientID": "SYNTHETIC-1",
        "PatientName": "Nobody^Synthetic",
        "SliceThickness": 2,
        "ConvolutionKernel": "B30f",
        "StudyInstanceUID": STUDY,
        "SeriesInstanceUID": SERIES,
        "FrameOfReferenceUID": FRAME,
        "InstanceNumber": 1,
        "ImagePositionPatient": [0, 0, z],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": shape[0],
        "Columns": shape[1],
        "PixelSpacing": [1.5, 1.5],
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
        "RescaleSlope": 1,
        "RescaleIntercept": -1024,
        "PixelData": stored.tobytes(),
    }
    for name, value in {**values, **tags}.items():
        if value is not None:
            setattr(dataset, name, value)
    dataset.file_meta.MediaStorageSOPInstanceUID = values["SOPInstanceUID"]
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    return path


def ct_series(folder: Path, places: list[float], **tags: Any) -> Path:
    """Write a series, one slice at each height; file names do not tell the order."""
    for n, z in enumerate(places):
        number = {"InstanceNumber": n + 1, **tags}
        ct_slice(folder / f"{(n * 7) % 101:03d}.dcm", z, **number)
    return folder
