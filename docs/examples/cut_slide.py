"""Cut one real slide into small ones, as an archive for the tutorial: ``cut_slide.py SLIDE OUT``.

Each piece with tissue becomes a TIFF of its own with its resolution, and ``OUT.csv`` has a label
for each: whether more of its tissue is blue (nuclei) than of the median piece's. The pixels are
real. Pieces as patients, and that label, are invented for the tutorial.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import openslide
import tifffile

ACROSS, DOWN = 5, 7


def cut(path: Path, out: Path) -> None:
    """Write the pieces and their table."""
    slide = openslide.OpenSlide(str(path))
    mpp = float(slide.properties[openslide.PROPERTY_NAME_MPP_X])
    width, height = (
        side // count for side, count in zip(slide.dimensions, (ACROSS, DOWN), strict=True)
    )
    out.mkdir(parents=True, exist_ok=True)
    blue = {}
    for n in range(ACROSS * DOWN):
        corner = (n % ACROSS * width, n // ACROSS * height)
        pixels = np.asarray(slide.read_region(corner, 0, (width, height)).convert("RGB"))
        red, _, other = pixels.astype(float).transpose(2, 0, 1)
        stained = pixels.min(axis=2) < 210
        if stained.mean() < 0.3:
            continue
        blue[f"piece{n:02}"] = float((red < other - 20)[stained].mean())
        tifffile.imwrite(
            out / f"piece{n:02}.tif",
            pixels,
            photometric="rgb",
            tile=(256, 256),
            compression="jpeg",
            resolution=(1e4 / mpp, 1e4 / mpp),
            resolutionunit="CENTIMETER",
        )
    median = float(np.median([*blue.values()]))
    with out.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["key", "patient", "nuclei"])
        for name, share in blue.items():
            table.writerow([name, f"of {name}", "many" if share > median else "few"])


if __name__ == "__main__":
    cut(Path(sys.argv[1]), Path(sys.argv[2]))
