"""Predicted masks on the grid of the files that a volume came from: NIfTI, or DICOM SEG."""

from __future__ import annotations

import gzip
import warnings
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medcl.errors import MedclError, UsageError
from medcl.io.atomic import replacing
from medcl.version import __version__
from medcl_ct import enhanced, nested
from medcl_ct.pixels import Source, open_each, open_source
from medcl_ct.quiet import quiet
from medcl_ct.units import VOLUMES

ROOT = Path("/")
"""Items come with absolute paths."""
Labels = NDArray[np.uint8]

_EVEN = 1e-2
"""mm: how far a slice may lie from an even step, as a NIfTI's affine has it."""
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_OUTSIDE = 0.5 + 1e-3  # voxels: how far beyond the outermost centres a volume reaches


def write_masks(
    files: Sequence[Path],
    arrays: Mapping[str, NDArray[Any]],
    masks: Mapping[str, Labels],
    classes: Sequence[str],
    out: Path,
    to: str,
) -> list[Path]:
    """Write the masks of an item, each voxel of its files by the nearest voxel of the mask.

    What was cut away around the body is background.

    Args:
        files: of the item, absolute.
        arrays: prepared, for their ``affine{n}``.
        masks: ``item:n`` → (Z, Y, X) classes of part n.
        classes: names, the background first.
        out: path of the result without a suffix.
        to: "nifti" (``.nii.gz``, which every volume can have), or "dicom-seg" (``.dcm``, of a
            DICOM series that names its study and frame of reference).

    Raises:
        UsageError: for another format, or without highdicom.
        MedclError: if the slices do not lie evenly (NIfTI), or the item is no DICOM series (SEG).
    """
    if to not in _WRITERS:
        raise UsageError(f"Masks of CT are written as {' or '.join(_WRITERS)}, not as '{to}'.")
    names = [str(file) for file in files]
    source = open_source(ROOT, names, int(arrays["volume"][0]) if "volume" in arrays else 0)
    parts = {int(key.rpartition(":")[2]): mask for key, mask in masks.items()}
    return [_WRITERS[to](names, source, on_source(source, arrays, parts), classes, out)]


def on_source(
    source: Source, arrays: Mapping[str, NDArray[Any]], parts: Mapping[int, Labels]
) -> Labels:
    """Classes (slices, rows, columns) of the source's pixels, from the parts of the volume."""
    across, down = source.orientation[:3], source.orientation[3:]
    rows, columns = source.shape
    plane = (np.arange(rows) * source.spacing[0])[:, None, None] * down + (
        np.arange(columns) * source.spacing[1]
    )[None, :, None] * across  # (rows, columns, 3) mm from a slice's first pixel
    out = np.zeros((len(source.positions), rows, columns), dtype=np.uint8)
    for number, mask in parts.items():
        affine = np.asarray(arrays[f"affine{number}"], dtype=np.float64)
        inverse = np.linalg.inv(affine[:3, :3])
        shift = plane @ inverse.T
        shape = np.array(mask.shape)
        for n, position in enumerate(source.positions):
            at = shift + inverse @ (position - affine[:3, 3])
            inside = ((at > -_OUTSIDE) & (at < shape - 1 + _OUTSIDE)).all(axis=-1)
            nearest = np.clip(np.rint(at), 0, shape - 1).astype(np.int64)
            read = mask[nearest[..., 0], nearest[..., 1], nearest[..., 2]]
            out[n] = np.where(inside, read, out[n])
    return out


def _nifti(
    files: Sequence[str], source: Source, labels: Labels, classes: Sequence[str], out: Path
) -> Path:
    import nibabel as nib

    path = out.with_name(f"{out.name}.nii.gz")
    if files[0].lower().endswith(VOLUMES):  # index for index as the file has them
        volume = nested.open_volume(ROOT, files[0])
        values, affine = np.zeros(volume.shape, dtype=np.uint8), volume.affine
        values[:, :, volume.order] = labels.T
    else:
        values, affine = np.ascontiguousarray(labels.T), _affine(source)
    image = nib.Nifti1Image(values, _LPS_TO_RAS @ affine)
    image.header.set_xyzt_units(xyz="mm")
    with replacing(path) as temporary:  # whose suffix is none that nibabel knows
        temporary.write_bytes(gzip.compress(image.to_bytes(), mtime=0))
    return path


def _affine(source: Source) -> NDArray[np.float64]:
    """Index (column, row, slice, 1) → LPS mm.

    Raises:
        MedclError: if no affine fits the slices.
    """
    count = len(source.positions)
    step = (source.positions[-1] - source.positions[0]) / max(count - 1, 1)
    even = source.positions[0] + np.arange(count)[:, None] * step
    if count < 2 or np.abs(even - source.positions).max() > _EVEN:
        raise MedclError(
            "uneven-slices: the slices do not lie at even steps, which a NIfTI cannot say. Write "
            "the masks of this series as dicom-seg."
        )
    affine = np.eye(4)
    affine[:3, 0] = source.orientation[:3] * source.spacing[1]
    affine[:3, 1] = source.orientation[3:] * source.spacing[0]
    affine[:3, 2], affine[:3, 3] = step, source.positions[0]
    return affine


def _dicom_seg(
    files: Sequence[str], source: Source, labels: Labels, classes: Sequence[str], out: Path
) -> Path:
    """One SEG object of the whole series; it carries the identity of the patient, as it must.

    Raises:
        UsageError: without highdicom.
        MedclError: if the item is no DICOM series, or does not say what a SEG refers to.
    """
    try:
        import highdicom as hd
        from highdicom.sr.coding import CodedConcept
        from pydicom.sr.codedict import codes
        from pydicom.uid import ExplicitVRLittleEndian, generate_uid
    except ImportError:
        raise UsageError(
            "To write DICOM SEG, highdicom is needed: pip install 'medcl[seg]'"
        ) from None
    if files[0].lower().endswith(VOLUMES):
        raise MedclError("no-series: only masks of a DICOM series are written as dicom-seg.")
    images, order = _images(files, source.volume)
    structure = CodedConcept("91723000", "SCT", "Anatomical structure")
    about = hd.AlgorithmIdentificationSequence(
        name="medcl", version=__version__, family=codes.cid7162.ArtificialIntelligence
    )
    segments = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=name[:64],
            segmented_property_category=structure,
            segmented_property_type=structure,
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=about,
        )
        for number, name in enumerate(classes[1:], start=1)
    ]
    pixels = np.zeros_like(labels)
    pixels[order] = labels
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an empty mask, and of what the source's header lacks
        seg = hd.seg.Segmentation(
            source_images=images,
            pixel_array=pixels,
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=segments,
            series_instance_uid=generate_uid(),
            series_number=1,
            sop_instance_uid=generate_uid(),
            instance_number=1,
            manufacturer="medcl",
            manufacturer_model_name="medcl",
            software_versions=__version__,
            device_serial_number="0",
            transfer_syntax_uid=ExplicitVRLittleEndian,
            series_description="Predicted by medcl; not for diagnosis",
        )
    path = out.with_name(f"{out.name}.dcm")
    with replacing(path) as temporary:
        seg.save_as(temporary)
    return path


def _images(files: Sequence[str], volume: int) -> tuple[list[Any], NDArray[np.int64]]:
    """The datasets of a series without pixels, and the frame that each slice of the source is.

    Raises:
        MedclError: if they do not name what a SEG refers to, or name all slices alike.
    """
    import pydicom

    found: dict[str, Any] = {}
    with quiet():
        for file, opener, _ in open_each(ROOT, files, {}):
            with opener() as handle:
                found[file] = pydicom.dcmread(
                    BytesIO(handle.read()), stop_before_pixels=True, force=True
                )
    images = [found[file] for file in files]
    for name in _IDENTITY:
        if not all(image.get(name) for image in images):
            raise MedclError(
                f"no-identity: the series has no {name}, by which a SEG would refer to it. Write "
                "its masks as nifti."
            )
    if len({image.SOPInstanceUID for image in images}) < len(images):
        raise MedclError(
            "no-identity: its slices share one SOPInstanceUID, by which a SEG would refer to "
            "them. Write its masks as nifti."
        )
    for image in images:
        for name in _MAY_BE_EMPTY:
            if name not in image:
                setattr(image, name, "")
    order = np.arange(len(images))
    if len(images) == 1:
        order = np.asarray(enhanced.frames(images[0])[volume].order, dtype=np.int64)
    return images, order


_IDENTITY = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")
_MAY_BE_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"),
    *("StudyID", "AccessionNumber", "ReferringPhysicianName"),
)
_WRITERS: dict[str, Callable[[Sequence[str], Source, Labels, Sequence[str], Path], Path]] = {
    "nifti": _nifti,
    "dicom-seg": _dicom_seg,
}
