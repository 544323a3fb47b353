"""The files of one unit → slides, tiles and bags, by their headers; or the reason why not.

Names of slides, and the barcodes in them, are identifiers: they become the patient (which the index
hashes) and nothing else. Label and macro images are noticed and never read.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from medcl.archive import labtable
from medcl.errors import MedclError
from medcl.plugin import MEMBER, NO_PATIENT, Record, Reject, Scalar, Unit
from medcl_pathology import bagfiles, layouts, medmnist
from medcl_pathology.reader import About, BadSlide, open_slide, plausible
from medcl_pathology.units import BAGS, DICOM, MIRAX, PICTURES, TIFF, ZARR

LARGEST_TILE = 2048  # pixels; a plain image that is larger along both sides is a slide

_TCGA = re.compile(r"(tcga)[-_]([a-z0-9]{2})[-_]([a-z0-9]{4})", re.IGNORECASE)
# How other public sets name the patient of a slide: CPTAC (two generations), GTEx, CAMELYON17.
_NAMED = tuple(
    re.compile(rf"(?<![a-z0-9])(?:{pattern})(?![a-z0-9])", re.IGNORECASE)
    for pattern in (
        r"C3[LN]-\d{5}",
        r"\d{2}(?:BR|CO|LU|OV|UC|GB|HN|PD)\d{3}",
        r"GTEX-[A-Z0-9]{4,5}",
        r"patient_\d{2,4}(?=_node_\d|_|$)",
    )
)
_CENTRE = re.compile(r"cent(?:er|re)_\d", re.IGNORECASE)  # folders of CAMELYON17
_CRC = re.compile(r"CRC-Prim-HE-\d+")
# The classes of two public sets of colorectal tiles; a folder of another name may be a person.
_CLASSES = {
    **{f"0{n + 1}_{name}": name for n, name in enumerate(
        ("TUMOR", "STROMA", "COMPLEX", "LYMPHO", "DEBRIS", "MUCOSA", "ADIPOSE", "EMPTY")
    )},
    **{name: name for name in ("ADI", "BACK", "DEB", "LYM", "MUC", "MUS", "NORM", "STR", "TUM")},
}  # fmt: skip
_WSI = "1.2.840.10008.5.1.4.1.1.77.1.6"  # VL Whole Slide Microscopy Image Storage


def scan(
    root: Path,
    unit: Unit,
    *,
    mpp: float | None = None,
    mpp_table: Path | None = None,
    features: str | None = None,
) -> Iterable[Record | Reject]:
    """Read the headers of a unit; pixels are not decoded.

    Args:
        root: the archive.
        unit: files that belong together.
        mpp: µm per full-size pixel of slides and tiles that do not say it.
        mpp_table: a CSV with columns ``key`` (path, name or stem) and ``mpp``, which goes before
            what a file says and before ``mpp``.
        features: the folder whose bags are taken, such as ``features_uni_v1``, where an archive
            holds those of several encoders; the others are left out.

    Raises:
        MedclError: for an mpp that no microscope has, or a table that is none.
    """
    if mpp is not None and plausible(mpp, mpp) is None:
        raise MedclError(f"reader.mpp = {mpp:g} is no size of a pixel: it is in µm, such as 0.25.")
    path = unit.files[0].path
    store = unit.key.lower().endswith(ZARR)
    told = _table(mpp_table, unit.key if store else path) if mpp_table else None
    if store:
        files = tuple(file.path for file in unit.files)
        return [_slide(root, unit.key, files, told, mpp)]
    name = path.lower()
    if name.endswith(DICOM):
        return _dicom(root, unit, told, mpp)
    if medmnist.task(path) is not None:
        return medmnist.scan(root, path)
    if name.endswith(BAGS):
        if features is not None and not layouts.within(path, features):
            return []
        return _bags(root, path, tuple(file.path for file in unit.files[1:]), told, mpp)
    if name.endswith(".vsi"):
        reason = "Olympus VSI keeps its pixels in a format of its own: export it as OME-TIFF."
        return [Reject(path, "unsupported", reason)]
    if name.endswith(PICTURES):
        return [_picture(root, path, told or mpp)]
    files = tuple(file.path for file in unit.files)
    if name.endswith(MIRAX) and len(files) == 1:
        reason = "The folder of this MRXS, of the same name, is missing beside it: copy it too."
        return [Reject(path, "incomplete", reason)]
    return [_slide(root, path, files, told, mpp)]


def _table(table: Path, path: str) -> float | None:
    """What a table says of a file."""
    rows = _rows(table, table.stat().st_mtime_ns if table.exists() else 0)
    file = PurePosixPath(path)
    names = (path, str(file.with_suffix("")), file.name, file.stem)
    return next((rows[name] for name in names if name in rows), None)


@lru_cache(maxsize=1)
def _rows(table: Path, changed: int) -> dict[str, float]:
    """A table's key → mpp; ``changed`` makes the cache notice another file of the same name."""
    try:
        (head, *lines), _ = labtable.cells(table)
        names = [name.strip().lower() for name in head]
        mpp = names.index("mpp")
        key = next(names.index(name) for name in ("key", "wsi", "slide_id") if name in names)
        rows = {line[key].strip(): float(line[mpp].replace(",", ".")) for line in lines}
    except (OSError, ValueError, IndexError, StopIteration):
        raise MedclError(
            "The file reader.mpp_table cannot be read: a CSV with columns key and mpp, in µm."
        ) from None
    if any(plausible(value, value) is None for value in rows.values()):
        raise MedclError("The file reader.mpp_table holds an mpp that is no size of a pixel in µm.")
    return rows


def _slide(
    root: Path, path: str, files: tuple[str, ...], told: float | None, default: float | None
) -> Record | Reject:
    try:
        about = open_slide(root / files[0]).about
        if not path.lower().endswith((MIRAX, ZARR)):
            from medcl_pathology.tiff import check_whole

            check_whole(str(root / path))
    except BadSlide as error:
        return Reject(path, error.code, str(error))
    width, height = about.levels[0]
    small = max(width, height) <= LARGEST_TILE and about.vendor in ("tiff", "ome")
    given = told or (default if about.mpp is None else None)
    if given is not None:
        about = replace(about, mpp=(given, given))
    plain = len(about.levels) == 1 and not about.channels
    if small and path.lower().endswith(TIFF) and plain:
        return _tile(path, width, height, about.mpp)
    patient, site, findings = _who(path)
    found = (*_problems(about), *(("given-mpp",) if given else ()), *findings)
    return Record(path, files, patient, site, _fields(about), findings=found)


def _fields(about: About) -> dict[str, Scalar]:
    width, height = about.levels[0]
    mpp_x, mpp_y = about.mpp or (None, None)
    return {
        "kind": "multiplex" if about.channels else "slide",
        "channels": "|".join(about.channels) or None,
        "vendor": about.vendor,
        "width": width,
        "height": height,
        "levels": len(about.levels),
        "mpp_x": mpp_x,
        "mpp_y": mpp_y,
        "objective": about.objective,
        "has_label_image": about.has_label,
        "has_macro_image": about.has_macro,
        "stain": "none" if about.channels else "unknown",
    }


def _problems(about: About) -> Iterator[str]:
    if about.mpp is None:
        yield "missing-mpp"
    else:
        if abs(about.mpp[0] / about.mpp[1] - 1) > 0.02:
            yield "anisotropic-mpp"
        if (odd := doubtful(about.mpp[0], about.objective)) is not None:
            yield odd
    if about.objective is None:
        yield "no-magnification"
    if len(about.levels) == 1:
        yield "single-level"


_FACTOR = 1.6  # by which a pixel may be larger or smaller than 10 µm / magnification
_USUAL = ((0.22, 0.28), (0.44, 0.55))  # µm, of full-size pixels at 40 × and 20 ×


def doubtful(mpp: float, objective: float | None) -> str | None:
    """A finding where a pixel's size does not go with the magnification, or with any scanner's.

    A pixel at magnification M is about 10 / M µm wide. Without a magnification, sizes that no
    scanner has are doubted, and those that are usual ones if inches were taken for centimetres.
    """
    if objective is not None:
        wrong = not 1 / _FACTOR <= mpp * objective / 10 <= _FACTOR
        return "mpp-against-magnification" if wrong else None
    swapped = mpp / 2.54 if mpp > _USUAL[1][1] else mpp * 2.54 if mpp < _USUAL[0][0] else 0.0
    if any(low <= swapped <= high for low, high in _USUAL) or not 0.1 <= mpp <= 1.1:
        return "unusual-mpp"
    return None


def _who(path: str) -> tuple[str, str | None, tuple[str, ...]]:
    """Patient, site and findings, from the name, or a folder's; a table may say better."""
    file = PurePosixPath(path)
    names = (file.stem, *(folder.name for folder in file.parents))
    for name in names:
        if barcode := _TCGA.search(name):
            return "-".join(barcode.groups()).upper(), barcode[2].upper(), ()
        for pattern in _NAMED:
            if named := pattern.search(name):
                centre = next((n.lower() for n in names[1:] if _CENTRE.fullmatch(n)), None)
                return named[0].upper(), centre, ()
    return str(file.with_suffix("")), None, ("no-patient-id",)


def _picture(root: Path, path: str, mpp: float | None) -> Record | Reject:
    from PIL import Image

    try:
        with Image.open(root / path) as image:
            width, height = image.size
    except (OSError, ValueError, Image.DecompressionBombError):
        return Reject(path, "unreadable", "It is no picture that can be read, or damaged.")
    if max(width, height) > LARGEST_TILE:
        reason = (
            f"A plain picture of {width}×{height} pixels is no tile (at most {LARGEST_TILE}) "
            "and says nothing of its scale: convert the slide to a pyramidal TIFF."
        )
        return Reject(path, "too-large", reason)
    return _tile(path, width, height, None if mpp is None else (mpp, mpp))


def _tile(path: str, width: int, height: int, mpp: tuple[float, float] | None) -> Record:
    source = _CRC.search(PurePosixPath(path).name)
    patient, site, findings = (source[0], None, ()) if source else _who(path)
    mpp_x, mpp_y = mpp or (None, None)
    fields: dict[str, Scalar] = {
        "kind": "tile",
        "width": width,
        "height": height,
        "mpp_x": mpp_x,
        "mpp_y": mpp_y,
    }
    tissue = _CLASSES.get(PurePosixPath(path).parent.name)
    return Record(
        path,
        (path,),
        patient,
        site,
        {**fields, "levels": 1, "stain": "unknown"},
        {"tissue": tissue} if tissue else {},
        (*findings, *(() if mpp else ("unscaled-tile",))),
    )


def _bags(
    root: Path, path: str, beside: tuple[str, ...], told: float | None, mpp: float | None
) -> Iterable[Record | Reject]:
    labels = {}
    try:
        found = bagfiles.headings(root / path)
        if (file := layouts.labels(beside)) is not None and len(found) == 1:
            labels = {"y": bagfiles.label(root / file)}
        if (places := layouts.coordinates(beside)) is not None:
            found = [replace(bag, unit=bagfiles.unit(root / places)) for bag in found]
    except bagfiles.NoBag as error:
        return [Reject(path, error.code, str(error))]
    return [_bag(path, beside, bag, told or bag.mpp or mpp, labels) for bag in found]


def _bag(
    path: str,
    beside: tuple[str, ...],
    bag: bagfiles.Heading,
    scale: float | None,
    labels: dict[str, Scalar],
) -> Record:
    patient, site, findings = _who(path)
    patient = bag.patient or patient  # a stand-in where the slide's index knew none, as here
    fields: dict[str, Scalar] = {
        "kind": "bag",
        "instances": bag.instances,
        "features": bag.features,
        "tile": bag.tile,
        "unit": bag.unit,
        "mpp_x": scale,
        "mpp_y": scale,
        "encoder": bag.encoder or layouts.encoder(path),
        "untrained": bag.untrained,
    }
    if bag.part is None:
        places = layouts.coordinates(beside)
        files = (path,) if places is None else (path, places)
        return Record(path, files, patient, site, fields, {**bag.labels, **labels}, findings)
    return Record(
        f"{path}#{bag.part}",
        (f"{path}{MEMBER}{bag.part}",),
        f"{patient}#{bag.part}",  # bags of a benchmark are taken to be independent
        None,
        fields,
        bag.labels,
        ("no-patient-id",),
    )


def assemble(records: Sequence[Record]) -> Iterator[Record]:
    """Bags beside the slides they were made of: they know the slide's scale, files and patient.

    A slide is a bag's where it alone has the bag's name without suffix.
    """
    slides: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record.fields.get("kind") == "slide":
            slides[layouts.stem(record.key)].append(record)
    for record in records:
        own = slides.get(layouts.stem(record.key), [])
        if record.fields.get("kind") != "bag" or len(own) != 1 or "#" in record.key:
            yield record
            continue
        (slide,) = own
        scale = {name: slide.fields.get(name) for name in ("mpp_x", "mpp_y")}
        known = {n: v for n, v in scale.items() if v is not None}
        nameless = NO_PATIENT in record.findings and NO_PATIENT not in slide.findings
        yield replace(
            record,
            files=(*record.files, *slide.files),
            fields={**record.fields, **known},
            patient=slide.patient,
            site=slide.site or record.site,
            findings=tuple(f for f in record.findings if not (nameless and f == NO_PATIENT)),
        )


_SIZES = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "NumberOfFrames")
_PLAIN = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")  # no compression
_DEFLATED = ("1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.8.1")
_LAST_ITEM = b"\xfe\xff\xdd\xe0\0\0\0\0"  # ends compressed frames
_TAIL = 1 << 16  # bytes behind them, of padding and signatures


def _cut_short(path: Path, header: Any) -> bool:
    """Whether a file ends before its pixels do: OpenSlide opens it, and misses blocks later."""
    syntax, size = str(header.file_meta.TransferSyntaxUID), path.stat().st_size
    if syntax in _PLAIN:
        bits = math.prod(int(header.get(name) or 1) for name in _SIZES)
        return size < bits // 8
    if syntax in _DEFLATED:
        return False
    with path.open("rb") as file:
        file.seek(max(size - _TAIL, 0))
        return _LAST_ITEM not in file.read()


def _dicom(
    root: Path, unit: Unit, told: float | None, mpp: float | None
) -> Iterator[Record | Reject]:
    """One record for each series of whole-slide images in a folder."""
    import pydicom

    wanted = ["SOPClassUID", "SeriesInstanceUID", "PatientID", "TotalPixelMatrixColumns", *_SIZES]
    series: dict[str, list[tuple[int, str]]] = defaultdict(list)
    patients: dict[str, str] = {}
    for file in unit.files:
        try:
            header = pydicom.dcmread(
                root / file.path, stop_before_pixels=True, specific_tags=wanted
            )
            uid = str(header.SeriesInstanceUID)
            slide = str(header.SOPClassUID) == _WSI
            cut = slide and _cut_short(root / file.path, header)
        except Exception:  # pydicom raises many kinds on damaged files
            yield Reject(file.path, "unreadable", "Its DICOM header cannot be read.")
            continue
        if not slide:
            yield Reject(file.path, "not-a-slide", "DICOM, but no whole-slide image.")
            continue
        if cut:
            reason = "It is cut short: its pixels lie behind the end of the file. Copy it again."
            yield Reject(file.path, "truncated", reason)
            continue
        series[uid].append((-int(header.get("TotalPixelMatrixColumns") or 0), file.path))
        patients.setdefault(uid, str(header.get("PatientID") or "").strip())
    for uid, members in series.items():
        files = tuple(path for _, path in sorted(members))  # the largest level first
        found = _slide(root, files[0], files, told, mpp)
        if isinstance(found, Record) and patients[uid]:
            rest = tuple(name for name in found.findings if name != "no-patient-id")
            found = Record(found.key, files, patients[uid], None, found.fields, findings=rest)
        yield found
