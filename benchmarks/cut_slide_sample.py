"""The sample of the pathology plugin: strips of one real slide, ``cut_slide_sample.py SLIDE OUT``.

Three strips of OpenSlide's CMU-1-Small-Region (CC0), as TIFFs with the slide's resolution.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import openslide
import tifffile

STRIPS, QUALITY = 3, 60


def main(path: Path, out: Path) -> None:
    slide = openslide.OpenSlide(str(path))
    mpp = float(slide.properties[openslide.PROPERTY_NAME_MPP_X])
    width, height = slide.dimensions[0] // STRIPS, slide.dimensions[1]
    out.mkdir(parents=True, exist_ok=True)
    for n in range(STRIPS):
        pixels = np.asarray(slide.read_region((n * width, 0), 0, (width, height)).convert("RGB"))
        tifffile.imwrite(
            out / f"strip-{'abc'[n]}.tif",
            pixels,
            photometric="rgb",
            tile=(256, 256),
            compression="jpeg",
            compressionargs={"level": QUALITY},
            resolution=(1e4 / mpp, 1e4 / mpp),
            resolutionunit="CENTIMETER",
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
