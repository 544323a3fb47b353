"""Synthetic slides, for what no real sample shows. None of them is histology."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile

SIDE = 2304  # more than a plain tile may have


def painted(side: int = SIDE, seed: int = 0) -> np.ndarray:
    """White glass with a pink and purple textured square in it: (side, side, 3)."""
    random = np.random.default_rng(seed)
    image = np.full((side, side, 3), 244, dtype=np.uint8)
    part = slice(side // 4, 3 * side // 4)
    shape = (side // 2, side // 2)
    purple = random.random(shape)[..., None] < 0.4
    colour = np.where(purple, (120, 70, 150), (220, 130, 175)).astype(np.int16)
    image[part, part] = (colour + random.integers(-12, 13, (*shape, 1))).clip(0, 255)
    return image


def tiff(path: Path, image: np.ndarray, *, mpp: float | None = 0.5, tile: int = 0) -> Path:
    """A TIFF of one level, in strips or tiles, with or without a resolution."""
    extra = {} if mpp is None else {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": 3}
    if tile:
        extra["tile"] = (tile, tile)
    tifffile.imwrite(path, image, photometric="rgb", compression="jpeg", **extra)
    return path


def ome(path: Path, image: np.ndarray, mpp: float) -> Path:
    """A pyramidal OME-TIFF of two levels."""
    meta = {"axes": "YXS", "PhysicalSizeX": mpp, "PhysicalSizeXUnit": "µm"}
    meta |= {"PhysicalSizeY": mpp, "PhysicalSizeYUnit": "µm"}
    options = {"photometric": "rgb", "tile": (256, 256), "compression": "jpeg"}
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(image, subifds=1, metadata=meta, **options)
        writer.write(image[::2, ::2], subfiletype=1, **options)
    return path


def dicom(folder: Path, image: np.ndarray, *, mpp: float = 0.5, patient: str = "synthetic") -> Path:
    """A DICOM whole-slide image of one uncompressed level, in tiles of 256."""
    import pydicom
    from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
    from pydicom.sequence import Sequence
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    side, tile = image.shape[0], 256
    count = -(-side // tile)
    frames = []
    for y in range(count):
        for x in range(count):
            frame = np.full((tile, tile, 3), 255, dtype=np.uint8)
            part = image[y * tile : (y + 1) * tile, x * tile : (x + 1) * tile]
            frame[: part.shape[0], : part.shape[1]] = part
            frames.append(frame.tobytes())
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.77.1.6"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID = meta.MediaStorageSOPClassUID
    data.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    data.SeriesInstanceUID, data.StudyInstanceUID = generate_uid(), generate_uid()
    data.FrameOfReferenceUID = generate_uid()
    data.PatientID, data.PatientName, data.Modality = patient, "Nobody", "SM"
    data.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    data.DimensionOrganizationType = "TILED_FULL"
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PlanarConfiguration = 3, "RGB", 0
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 8, 8, 7, 0
    data.Rows = data.Columns = tile
    data.NumberOfFrames = len(frames)
    data.TotalPixelMatrixColumns = data.TotalPixelMatrixRows = side
    data.TotalPixelMatrixFocalPlanes, data.NumberOfOpticalPaths = 1, 1
    measures = Dataset()
    measures.PixelSpacing = [mpp / 1000, mpp / 1000]
    measures.SliceThickness = 0.001
    shared = Dataset()
    shared.PixelMeasuresSequence = Sequence([measures])
    data.SharedFunctionalGroupsSequence = Sequence([shared])
    optical = Dataset()
    optical.OpticalPathIdentifier = "0"
    optical.ObjectiveLensPower = 20
    data.OpticalPathSequence = Sequence([optical])
    data.PixelData = b"".join(frames)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "level0.dcm"
    pydicom.dcmwrite(path, data, enforce_file_format=True)
    return path
