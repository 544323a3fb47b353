"""A slide → where its tiles lie; a tile → its pixels; a file of features → its bag.

Of a slide only coordinates are kept unless ``pixels`` asks for more: tiles are read from the slide
when they are needed (`medcl_pathology.dataset`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medcl.archive.array_set import SOURCE
from medcl.archive.policies import Policy, policies, refuse
from medcl.errors import MedclError, UsageError
from medcl.plugin import MEMBER
from medcl_pathology import bagfiles, layouts, medmnist, multiplex
from medcl_pathology.findings import FINDINGS, GIVE_MPP
from medcl_pathology.overview import overview
from medcl_pathology.reader import BadSlide, Slide, open_slide
from medcl_pathology.tiles import Grid, covered, read_tile
from medcl_pathology.tissue import ARTEFACTS, Artefact, Method, dab, segment

if TYPE_CHECKING:
    from PIL.Image import Image

_IN_MEMORY = 256 * 1024 * 1024  # bytes of tile pixels
_ALIKE = 0.02  # a plain tile whose scale differs by less is left as it is


def prepare(
    root: Path,
    files: Sequence[str],
    fields: Mapping[str, object],
    *,
    mpp: float = 0.5,
    size: int = 256,
    overlap: float = 0.0,
    tissue: float = 0.5,
    method: Method = "auto",
    leave_out: tuple[Artefact, ...] = ("border", "pen", "blur", "fold"),
    mask_mpp: float = 8.0,
    smallest: float = 10000.0,
    pixels: bool = False,
    verify: bool = False,
    policy: Mapping[str, Policy] | None = None,
) -> dict[str, np.ndarray]:
    """Find the tissue and the tiles of a slide; decode a tile; read a bag.

    Args:
        root: the archive.
        files: of the item.
        fields: its row in the index; ``kind``, ``findings``, ``mpp_x`` and ``mpp_y`` are used.
        mpp: µm per pixel of the tiles; the right level is chosen and resampled exactly.
        size: pixels along each side of a tile.
        overlap: of neighbouring tiles, as a share of their side.
        tissue: the least share of a tile that is tissue.
        method: how tissue is found; see `medcl_pathology.tissue.tissue`.
        leave_out: what looks like tissue and is none: border, pen, blur, fold.
        mask_mpp: µm per pixel of the tissue mask.
        smallest: pieces of tissue of fewer µm² are dropped.
        pixels: keep the tiles' pixels too (uint8, 200 kB for each tile of 256 pixels).
        verify: read every tile once, with more care, so that damaged ones are left out beforehand.
        policy: finding → reject, accept or resample, over the defaults of
            `medcl_pathology.findings`.

    Returns:
        of a slide: ``coords`` (N, 2) the top left corners x, y in full-size pixels; ``tissue`` (N,)
        shares; ``grid`` (4,) size, span along x and y in full-size pixels, mpp; ``mask`` (H, W) and
        ``mask_scale`` (2,); ``dab`` the share of brown in what is stained; ``failed`` (K, 2)
        corners of damaged tiles (verify, pixels); ``left_out`` (4,) shares of what is stained that
        were left out as border, pen, blur and fold; with ``pixels`` (N, size, size, 3). Of an image
        of channels: see `medcl_pathology.multiplex.prepare`. Of a plain tile: ``pixels``
        (1, H, W, 3); of a block of MedMNIST's ``pixels`` (n, H, W, 3) and ``label`` (n,). Of a bag:
        ``features`` (I, F) and perhaps ``coords`` (I, 2), in full-size pixels where the scale is
        known.

    Raises:
        UsageError: for a setting that makes no sense.
        MedclError: if the scale is unknown, there is no tissue, a finding's policy is to reject, or
            a bag holds NaN.
    """
    if mpp <= 0 or size < 1 or not 0 <= overlap < 1 or not 0 <= tissue <= 1 or mask_mpp <= 0:
        raise UsageError(
            "prepare.mpp, size and mask_mpp are positive, overlap is in [0, 1), tissue in [0, 1]."
        )
    rules = policies(policy or {}, FINDINGS)
    findings: Sequence[str] = fields.get("findings") or ()  # type: ignore[assignment]
    if fields.get("kind") == "bag":
        refuse(findings, rules, FINDINGS, "slide")
        return _bag(root, files, fields)
    refuse(findings, rules, FINDINGS, "slide")
    if fields.get("source") == SOURCE:
        return medmnist.load(root, files[0])
    source = _scale(fields, rules)
    kind = fields.get("kind")
    slide = open_slide(root / files[0]) if kind in ("slide", "multiplex") else None
    if slide is None:
        return {"pixels": _picture(root / files[0], source, mpp)[None]}
    if source is None:
        raise MedclError(f"missing-mpp: this slide's scale is unknown. {GIVE_MPP}")
    grid = Grid.at(mpp, size, source)
    if kind == "multiplex":
        return multiplex.prepare(
            root / files[0],
            grid,
            source,
            mpp=mpp,
            overlap=overlap,
            least=tissue,
            mask_mpp=mask_mpp,
            smallest=smallest,
        )
    return _slide(
        root / files[0],
        slide,
        grid,
        source,
        mpp=mpp,
        overlap=overlap,
        least=tissue,
        method=method,
        leave_out=leave_out,
        mask_mpp=mask_mpp,
        smallest=smallest,
        pixels=pixels,
        verify=verify,
    )


def _scale(fields: Mapping[str, object], rules: Mapping[str, Policy]) -> tuple[float, float] | None:
    """µm per full-size pixel along x and y, as the index has it."""
    x, y = fields.get("mpp_x"), fields.get("mpp_y")
    if not isinstance(x, float) or not isinstance(y, float):
        return None
    return (x, x) if rules["anisotropic-mpp"] == "accept" else (x, y)


def _slide(
    path: Path,
    slide: Slide,
    grid: Grid,
    source: tuple[float, float],
    *,
    mpp: float,
    overlap: float,
    least: float,
    method: Method,
    leave_out: Sequence[Artefact],
    mask_mpp: float,
    smallest: float,
    pixels: bool,
    verify: bool,
) -> dict[str, np.ndarray]:
    small = overview(slide, mask_mpp / source[0])
    mask, taken = segment(
        small,
        method=method,
        reject=leave_out,
        closing=16.0 / mask_mpp,
        smallest=smallest / mask_mpp**2,
        holes=smallest / mask_mpp**2,
    )
    if not mask.any():
        gone = [f"{name} {share:.0%}" for name, share in taken.items() if share > 0.01]
        why = f" (left out: {', '.join(gone)}; see prepare.leave_out)" if gone else ""
        raise MedclError(f"no-tissue: nothing on this slide is coloured like stained tissue{why}.")
    width, height = slide.about.levels[0]
    scale = (width / small.shape[1], height / small.shape[0])
    corners = grid.corners(slide.about, overlap)
    share = covered(corners, grid, mask, scale)
    chosen = share >= max(least, 1e-6)
    if not chosen.any():
        raise MedclError(
            f"no-tiles: no tile of {grid.size} pixels at {mpp} µm holds {least:.0%} tissue. "
            "Lower prepare.tissue or prepare.size."
        )
    corners, share = corners[chosen], share[chosen]
    arrays: dict[str, np.ndarray] = {
        "grid": np.array([grid.size, *grid.span, mpp]),
        "mask": mask.astype(np.uint8),
        "mask_scale": np.array(scale),
        "dab": np.array(dab(small)),
        "left_out": np.array([taken.get(name, 0.0) for name in ARTEFACTS]),
    }
    if pixels or verify:
        good, held = _read_all(path, corners, grid, keep=pixels, verify=verify)
        if not good.any():
            raise MedclError("damaged: none of its tiles can be read. Copy the slide again.")
        arrays["failed"] = corners[~good]
        corners, share = corners[good], share[good]
        if held is not None:
            arrays["pixels"] = held[: len(corners)]
    return {**arrays, "coords": corners, "tissue": share}


def _read_all(
    path: Path, corners: NDArray[np.int64], grid: Grid, *, keep: bool, verify: bool
) -> tuple[NDArray[np.bool_], NDArray[np.uint8] | None]:
    """Which tiles can be read (N,), and the pixels of those, one after the other."""
    held = _room((len(corners), grid.size, grid.size, 3)) if keep else None
    good = np.zeros(len(corners), dtype=bool)
    careful = open_slide(path, careful=True) if verify else None
    slide, count = open_slide(path), 0
    for n, (x, y) in enumerate(corners.tolist()):
        try:
            if careful is not None:
                read_tile(careful, x, y, grid)
            if held is not None:
                held[count] = read_tile(slide, x, y, grid)
        except BadSlide:
            continue
        good[n] = True
        count += 1
    return good, held


def _room(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """An array, in memory or, if it is large, in a temporary file that vanishes with it."""
    if int(np.prod(shape)) <= _IN_MEMORY:
        return np.empty(shape, dtype=np.uint8)
    with tempfile.TemporaryFile() as handle:
        return np.memmap(handle, dtype=np.uint8, mode="w+", shape=shape)


def _picture(path: Path, source: tuple[float, float] | None, mpp: float) -> NDArray[np.uint8]:
    """A plain tile (H, W, 3), at the scale asked for where its own is known."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as opened:
            image = _on_white(opened)
    except (OSError, ValueError, UnidentifiedImageError):
        # TIFF of a kind that Pillow does not decode
        try:
            slide = open_slide(path)
            width, height = slide.about.levels[0]
            image = Image.fromarray(slide.region(0, 0, 0, width, height))
        except BadSlide as error:
            if error.code == "unsupported":
                raise MedclError(f"unsupported: {error}") from None
            raise MedclError("damaged: its pixels cannot be decoded. Copy it again.") from None
    if source is not None:
        ratio = source[0] / mpp, source[1] / mpp
        if max(abs(r - 1) for r in ratio) > _ALIKE:
            wide, high = (max(round(n * r), 1) for n, r in zip(image.size, ratio, strict=True))
            image = image.resize((wide, high), Image.Resampling.BICUBIC)
    return np.asarray(image)


def _on_white(image: Image) -> Image:
    """RGB; what is transparent is white, as on slides.

    Raises:
        MedclError: for pixels of more than 8 bits, of which Pillow shows the lowest as white.
    """
    from PIL.Image import new

    if image.mode.startswith(("I", "F")):
        raise MedclError(
            "unsupported: its pixels have more than 8 bits, and how bright white is is not known. "
            "Export it in 8 bits a colour."
        )
    if "A" not in image.getbands() and "transparency" not in image.info:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    white = new("RGBA", rgba.size, (255, 255, 255, 255))
    white.alpha_composite(rgba)
    return white.convert("RGB")


def _bag(root: Path, files: Sequence[str], fields: Mapping[str, object]) -> dict[str, np.ndarray]:
    path, _, part = files[0].partition(MEMBER)
    places = layouts.coordinates(files[1:])
    try:
        bag = bagfiles.load(root / path, part or None, None if places is None else root / places)
    except bagfiles.NoBag as error:
        raise MedclError(f"{error.code}: {error}") from None
    arrays: dict[str, Any] = {"features": bag.features}
    if bag.coords is not None:
        scale = pixels_per_unit(fields)
        arrays["coords"] = bag.coords if scale is None else (bag.coords * scale).astype(np.float32)
    return arrays


def pixels_per_unit(fields: Mapping[str, object]) -> NDArray[np.float64] | None:
    """Full-size pixels for each unit of a bag's coordinates, along x and y; None: not known."""
    if fields.get("unit") not in ("um", "tiles"):
        return np.ones(2)
    if fields.get("unit") == "tiles":
        return None
    x, y = fields.get("mpp_x"), fields.get("mpp_y")
    return 1 / np.array([x, y]) if isinstance(x, float) and isinstance(y, float) else None
