"""What a DICOM header says of one slice: what it is, where it lies, which stack it belongs to."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from medcl.plugin import Reject, Scalar
from medcl_ct import kinds, words
from medcl_ct.kinds import ENHANCED, PLAIN, Kind
from medcl_ct.stacking import is_frame, normal
from medcl_ct.tags import COMPRESSED_FROM, RLE, Tags

DIRECTORY = "1.2.840.10008.1.3.10"
_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"

_LOCALISER = {"LOCALIZER", "SCOUT", "TOPOGRAM", "SURVIEW", "TOP"}
_REFORMATTED = {"MPR", "REFORMATTED", "CSA MPR", "RESAMPLED", "CSA RESAMPLED", "CURVED", "CPR"}
_PROJECTION = {
    *("MIP", "MINIP", "MEAN IP", "PROJECTION IMAGE", "CSAMANIPULATED", "VRT", "VOLUME RENDERED"),
    *("SSD", "3D", "PASTED"),
}
_PICTURE = {
    *("SCREEN SAVE", "SCREENSAVE", "SCREENSHOT", "SCREEN SHOT", "SCREEN CAPTURE", "CAPTURE"),
    *("REPORT", "DOSE REPORT", "DOSE INFO", "DOSE", "PROTOCOL", "PATIENT PROTOCOL", "PROT"),
}
_MAP = {
    *(
        "PERFUSION",
        "PERFUSION MAP",
        "CBF",
        "CBV",
        "MTT",
        "TTP",
        "TTD",
        "TMAX",
        "PBV",
        "PERMEABILITY",
    ),
    *("IODINE", "IODINE MAP", "IODINE CONC", "CALCIUM", "URIC ACID", "FAT MAP", "RHO Z", "Z EFF"),
    *("EFFECTIVE Z", "ELECTRON DENSITY", "SEGMENTATION", "COLOR MAP"),
}
"""Of images of CT whose values are no HU."""
_PLANNED = re.compile(r"scout|topogram|locali[sz]er|surview|scanogram|scano", re.IGNORECASE)
_ENERGY = re.compile(r"\d+(?:\.\d+)? KEV")
_PHASE = ("TemporalPositionIdentifier", "NominalPercentageOfCardiacPhase", "TriggerTime")
_TOMOSYNTHESIS = {"TOMOSYNTHESIS", "TOMO", "TOMO 2D", "TOMO PROJ", "GENERATED 2D", "DIGITAL TOMO"}
_COMPLEX = {"P", "PHASE", "PHASE MAP", "R", "REAL", "I", "IMAGINARY"}
_OTHERS = """
    CR CT DX ECG EPS ES FUS GM HD IO IOL IVOCT IVUS KER KO LEN LP LS MG NM OAM OCT OP OPM OPT
    OPTBSV OPTENF OPV OSS OT PLAN PR PX REG RESP RF RG RTDOSE RTIMAGE RTINTENT RTPLAN RTRAD
    RTRECORD RTSEGANN SC SM SMR SR SRF STAIN TEXTUREMAP TG US VA XA XC
"""
_MODALITIES = frozenset(_OTHERS.split())
LARGEST = 2048
"""Pixels along a side; above, and in a single image above a metre, nobody reconstructs slices."""
_METRE = 1000.0
_PIXEL = (0.02, 60.0)
"""mm: pixels of a scan lie between; those of a header in another unit do not."""
_AXIAL = 0.7  # of the normal along the body, at least
LUNG, BONE = -900.0, 3000.0
"""HU between which tissue lies."""
_HU = re.compile(r"HU|houn|US$", re.IGNORECASE)  # also as it is misspelt; US: unspecified
_NOBODY = {"", "0", "anon", "anonymous", "anonymized", "anonymised", "unknown", "none", "na", "n/a"}
_NOBODY |= {"removed", "deleted", "no id", "noid", "patient", "xxx", "no name"}


@dataclass(frozen=True)
class Stack:
    """What all slices of one volume have in common. Holds identifiers: never leaves the journal.

    ``orientation`` and ``spacing`` are as the file has them: `medcl_ct.series` joins stacks in
    which they differ by less than matters.
    """

    patient: str
    patient_known: bool
    study: str
    series: str
    frame: str
    kind: str
    kernel: str
    orientation: tuple[float, ...]
    spacing: tuple[float, float]
    shape: tuple[int, int]
    folder: str = ""
    modality: Kind = "ct"
    contrast: str = ""  # of MR: echo time and diffusion weighting; of CT: energies


@dataclass(frozen=True)
class Slice:
    """One slice of a stack.

    Attributes:
        file: may name a member of an archive, see `medcl.plugin.MEMBER`.
        phase: TemporalPositionIdentifier, or else the percentage of the cardiac cycle, or the time
            since its trigger.
        time: AcquisitionTime, in seconds of the day.
        pixels: a checksum of some of its pixels; 0 if these are all alike.
        size: of its file in bytes.
    """

    file: str
    uid: str
    position: tuple[float, ...] | None
    instance: float | None
    acquisition: float | None
    location: float | None
    thickness: float | None
    frames: int = 1
    phase: float | None = None
    time: float | None = None
    pixels: int | None = None
    size: int = 0


@dataclass(frozen=True)
class Read:
    """A usable slice, its stack, and the tags that say more."""

    stack: Stack
    slice: Slice
    site: str | None
    tags: Tags
    findings: tuple[str, ...] = ()


def interpret(
    tags: Tags,
    file: str,
    folder: str,
    left: int | None,
    pixels: int | None = None,
    size: int = 0,
) -> Read | Reject:
    """Accept a file as a slice of CT, MR or PET, or say why not.

    Args:
        tags: of the file.
        file: its path (and member).
        folder: where it lies: stands for the series, and for the patient, where they have no name.
        left: bytes of the file behind the header, if the reader knows.
        pixels: see `Slice`.
        size: of the file in bytes.
    """
    refused = _refused(tags, left)
    if refused is not None:
        return Reject(file, *refused)
    frames = int(_number(tags, "NumberOfFrames") or 1)
    multi = frames > 1 or tags.get("SOPClassUID") in ENHANCED
    parts, modality = _kinds(tags), kinds.of(tags)
    assert modality is not None  # or else it was refused
    ct = modality == "ct"
    scaled = multi or not ct or _has(tags, "RescaleSlope", "RescaleIntercept")
    scaled = scaled and _number(tags, "RescaleSlope") != 0
    findings = [
        *(["multi-frame"] if multi else []),
        *([] if scaled else ["no-rescale"]),
        *(
            ["not-hu"]
            if ct and (parts & _MAP or not _HU.match(tags.get("RescaleType", "HU")))
            else []
        ),
        *(["not-magnitude"] if modality == "mr" and parts & _COMPLEX else []),
        *(["lossy"] if tags.get("LossyImageCompression") == "01" else []),
        *(["burned-in"] if tags.get("BurnedInAnnotation", "").upper() == "YES" else []),
        *_kind_findings(parts),
        *(["padding-like-tissue"] if ct and _padding_is_tissue(tags) else []),
        *(["missing-codec"] if _packed(tags) and _undecodable(tags) else []),
    ]
    position = _vector(tags, "ImagePositionPatient", 3)
    orientation = _vector(tags, "ImageOrientationPatient", 6)
    if not multi and (position is None or orientation is None):
        findings.append("no-position")
        position = None
    study, series = tags.get("StudyInstanceUID", ""), tags.get("SeriesInstanceUID", "")
    patient = tags.get("PatientID", "")
    known = patient.lower() not in _NOBODY
    if not known:
        findings.append("no-patient-id")
        patient = f"study {study}" if study else f"folder {folder}"
    if not series:
        findings.append("no-series-uid")
    spacing = _vector(tags, "PixelSpacing", 2) or (0.0, 0.0)
    if not multi and not all(_PIXEL[0] <= side <= _PIXEL[1] for side in spacing):
        findings.append("odd-spacing")
    stack = Stack(
        patient,
        known,
        study,
        series,
        tags.get("FrameOfReferenceUID", ""),
        "+".join(sorted(parts if modality == "mr" else parts & (_REFORMATTED | _PROJECTION))),
        tags.get("ConvolutionKernel", ""),
        tuple(orientation or ()),
        (spacing[0], spacing[1]),
        (tags["Rows"], tags["Columns"]),
        "" if series else folder,
        modality,
        _contrast(tags, modality),
    )
    this = Slice(
        file,
        tags.get("SOPInstanceUID", ""),
        position,
        _number(tags, "InstanceNumber"),
        _number(tags, "AcquisitionNumber"),
        _number(tags, "SliceLocation"),
        _number(tags, "SliceThickness"),
        frames,
        next((v for name in _PHASE if (v := _number(tags, name)) is not None), None),
        _time(tags),
        pixels,
        size,
    )
    return Read(stack, this, tags.get("InstitutionName"), tags, tuple(findings))


def _refused(tags: Tags, left: int | None) -> tuple[str, str] | None:
    """Why a file is of no use for any recipe: (code, reason)."""
    sop, modality = tags.get("SOPClassUID", ""), tags.get("Modality", "")
    rows, columns = tags.get("Rows", 0), tags.get("Columns", 0)
    samples = tags.get("SamplesPerPixel", 1)
    if sop == DIRECTORY:
        return "directory", "A DICOMDIR: the files it lists are indexed themselves."
    if sop.startswith(_CAPTURE):
        return "secondary-capture", "A secondary capture: a picture of something, not a scan."
    if kinds.of(tags) is None:
        shown = modality if modality in _MODALITIES else "not a known one"
        return "not-ct", f"The modality is {shown}, not CT, MR or PET."
    if sop and sop not in PLAIN and sop not in ENHANCED:
        return (
            "not-an-image",
            "It belongs to a study but is no image of its modality (report, dose, plan, …).",
        )
    if "MOSAIC" in _kinds(tags):
        return "mosaic", "A mosaic of slices in one picture: convert it to NIfTI (dcm2niix)."
    if _kinds(tags) & _PICTURE:
        return "screenshot", "A screenshot or a report, by its ImageType: it is no slice."
    if _kinds(tags) & _LOCALISER or _planned(tags):
        return "localiser", "A localiser: an overview to plan the scan on, not a slice."
    if _kinds(tags) & _TOMOSYNTHESIS:
        return "tomosynthesis", "Tomosynthesis by its ImageType: its values are no HU of a slice."
    if max(rows, columns) > LARGEST:
        return (
            "not-a-slice",
            f"It has {rows} × {columns} pixels: a radiograph or a drawing, no slice.",
        )
    if rows < 1 or columns < 1:
        return "no-pixels", "It says of no rows and columns: there is no image in it."
    if samples != 1:
        return "colour", f"It has {samples} colours a pixel: a screenshot or a rendering, no CT."
    if sop not in ENHANCED and _vector(tags, "PixelSpacing", 2) is None:
        return (
            "no-spacing",
            "PixelSpacing is missing: there is no telling how large its pixels are.",
        )
    if sop not in ENHANCED and kinds.of(tags) == "ct" and _extent(tags) > _METRE:
        return "not-a-slice", "It is over a metre wide or high: a radiograph of the body, no slice."
    if _number(tags, "NumberOfFrames") not in (None, 1) and sop not in ENHANCED:
        return "multi-frame-plain", "Several frames in a plain CT image: their places are not told."
    plain = not _packed(tags)
    frames = int(_number(tags, "NumberOfFrames") or 1)
    need = rows * columns * frames * (tags.get("BitsAllocated", 16) // 8)
    if left and plain and left < need:
        return "truncated", f"The file ends early: {need:,} bytes of pixels are due, {left:,} left."
    return None


def _padding_is_tissue(tags: Tags) -> bool:
    """Whether a value that marks what was not scanned is one that tissue has too."""
    padding = tags.get("PixelPaddingValue")
    if padding is None:
        return False
    values = [padding, tags.get("PixelPaddingRangeLimit", padding)]
    if tags.get("PixelRepresentation") == 1:
        values = [value - 0x10000 if value >= 0x8000 else value for value in values]
    slope, intercept = _number(tags, "RescaleSlope"), _number(tags, "RescaleIntercept")
    ends = [value * (1.0 if slope is None else slope) + (intercept or 0.0) for value in values]
    return max(ends) > LUNG and min(ends) < BONE


def _packed(tags: Tags) -> bool:
    return str(tags.get("TransferSyntaxUID", "")).startswith((COMPRESSED_FROM, RLE))


def _undecodable(tags: Tags) -> bool:
    from medcl_ct import codecs  # imports pydicom: most archives need none of it here

    return codecs.missing(tags["TransferSyntaxUID"])


def _extent(tags: Tags) -> float:
    """The longer side of an image, in mm."""
    spacing = _vector(tags, "PixelSpacing", 2) or (0.0, 0.0)
    return max(spacing[0] * tags.get("Rows", 0), spacing[1] * tags.get("Columns", 0))


def _kinds(tags: Tags) -> set[str]:
    """The values of ImageType, in capitals and with spaces; of Siemens' ``CT_SOM5 TOP`` the end."""
    parts = re.sub(r"[_-]", " ", tags.get("ImageType", "").upper()).split("\\")
    return {re.sub(r"^CT SOM\d+ ", "", part.strip()) for part in parts}


def _planned(tags: Tags) -> bool:
    """Whether its description says that it is a localiser, and it lies as no axial slice does."""
    orientation = _vector(tags, "ImageOrientationPatient", 6)
    said = _PLANNED.search(tags.get("SeriesDescription", ""))
    return bool(said and orientation and abs(normal(np.array(orientation))[2]) < _AXIAL)


def _kind_findings(kinds: set[str]) -> list[str]:
    if kinds & _PROJECTION:
        return ["projection"]
    if kinds & _REFORMATTED:
        return ["reformatted"]
    return ["derived"] if "DERIVED" in kinds else []


def _contrast(tags: Tags, modality: Kind) -> str:
    """What tells images of one series apart that show the same place in another way."""
    names = {"mr": ("EchoTime", "DiffusionBValue"), "ct": ("KVP",), "pet": ()}[modality]
    energies = sorted(part for part in _kinds(tags) if _ENERGY.fullmatch(part))
    return " ".join([*(f"{_number(tags, name)}" for name in names), *energies])


def _has(tags: Tags, *names: str) -> bool:
    return all(_number(tags, name) is not None for name in names)


def _number(tags: Tags, name: str) -> float | None:
    values = tags.get(name)
    return values[0] if values else None


def _time(tags: Tags) -> float | None:
    """When a slice was scanned, in seconds of the day."""
    return seconds(tags.get("AcquisitionTime") or tags.get("AcquisitionDateTime", "")[8:])


def seconds(text: str) -> float | None:
    """The seconds of a day that ``HHMMSS.FFFFFF`` says, or as much of it as there is."""
    match = re.match(r"(\d\d)(?:(\d\d)(?:(\d\d(?:\.\d+)?))?)?", text.replace(":", "").strip())
    if match is None:
        return None
    hours, minutes, rest = (float(part or 0) for part in match.groups())
    return 3600 * hours + 60 * minutes + rest


def _vector(tags: Tags, name: str, length: int) -> tuple[float, ...] | None:
    values = tags.get(name)
    if values is None or len(values) != length:
        return None
    if name == "PixelSpacing" and min(values) <= 0:
        return None
    if name == "ImageOrientationPatient" and not is_frame(values):
        return None
    return tuple(values)


def fields(tags: Tags) -> dict[str, Scalar]:
    """Technical columns: numbers, and words of fixed lists or of strict shape."""
    maker = words.vendor(tags.get("Manufacturer"))
    return {
        "source": "dicom",
        "modality": kinds.of(tags),
        "manufacturer": maker,
        "model": words.model(tags.get("ManufacturerModelName"), maker),
        "kernel": words.kernel(tags.get("ConvolutionKernel")),
        "kvp": _number(tags, "KVP"),
        "thickness": _number(tags, "SliceThickness"),
        "body_part": words.regions(tags.get("BodyPartExamined")),
        "contrast": words.contrast(tags.get("ContrastBolusAgent")),
    }


def labels(tags: Tags) -> dict[str, Scalar]:
    """Weak labels: what the free texts hint at, and who was scanned."""
    texts = ("BodyPartExamined", "StudyDescription", "SeriesDescription", "ProtocolName")
    sex = tags.get("PatientSex", "")
    return {
        "weak_region": words.regions(*(tags.get(name) for name in texts)),
        "sex": sex if sex in ("F", "M", "O") else None,
        "age": words.age(tags.get("PatientAge")),
    }


def to_json(stack: Stack, slices: list[Slice]) -> dict[str, str]:
    """A stack and some of its slices as `medcl.plugin.Record.private` holds them."""
    rows = [list(vars(s).values()) for s in slices]
    return {"stack": json.dumps(asdict(stack)), "slices": json.dumps(rows, separators=(",", ":"))}


def from_json(private: Any) -> tuple[Stack, list[Slice]]:
    """The inverse of `to_json`."""
    raw = json.loads(private["stack"])
    for name in ("orientation", "spacing", "shape"):
        raw[name] = tuple(raw[name])
    slices = [
        Slice(row[0], row[1], None if row[2] is None else tuple(row[2]), *row[3:])
        for row in json.loads(private["slices"])
    ]
    return Stack(**raw), slices
