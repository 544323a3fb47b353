"""Tiles per second from real slides: medcl beside a plain OpenSlide loop, and histolab.

    python benchmarks/pathology_tiles.py SLIDE.svs [...] [--histolab VENV/bin/python] [--rounds 5]

All read the same corners of every slide, as RGB arrays of 256 pixels: at the slide's own scale, and
at half of it, for which the plain loop reads twice the span and resizes it with Pillow. histolab
reads a level as it is, so that only the first is compared. Contenders take turns, each in a fresh
process whose cache is cold. Rates are of processor time, since the machine may be busy, and ratios
are those of the medians. "batch" also makes float batches of 64, (B, 3, 256, 256), which the others
do not.

histolab lives in an environment of its own: python -m venv VENV && VENV/bin/pip install histolab
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIZE = 256
PAIRS = (
    ("medcl", "loop"),
    ("medcl half", "loop half"),
    ("medcl", "histolab"),
    ("medcl batch", "loop"),
)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("slides", type=Path, nargs="+")
    options.add_argument("--histolab", type=Path)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--job")
    chosen = options.parse_args()
    if chosen.job:
        print(json.dumps(JOBS[chosen.job](chosen.slides[0])))
        return
    for slide in chosen.slides:
        contenders = {name: sys.executable for name in JOBS if name != "histolab"}
        if chosen.histolab:
            contenders["histolab"] = str(chosen.histolab)
        times: dict[str, list[float]] = {name: [] for name in contenders}
        counts: dict[str, int] = {}
        for _ in range(chosen.rounds):
            for name, python in contenders.items():
                command = [python, __file__, str(slide), "--job", name]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                found = json.loads(done.stdout.strip().splitlines()[-1])
                times[name].append(found["seconds"])
                counts[name] = found["tiles"]
        print(slide.name)
        for name, seconds in times.items():
            rate = counts[name] / statistics.median(seconds)
            spread = f"{min(seconds):.2f} to {max(seconds):.2f} s"
            print(f"  {name:24} {counts[name]:5} tiles  {rate:7.1f} tiles/s  ({spread})")
        for ours, theirs in PAIRS:
            if theirs in times:
                ratio = statistics.median(times[theirs]) / statistics.median(times[ours])
                print(f"  {ours} against {theirs}: {ratio:.2f} ×")


def corners(width: int, height: int, span: int) -> list[tuple[int, int]]:
    """Everywhere, half overlapping."""
    step = span // 2
    return [
        (x, y) for y in range(0, height - span + 1, step) for x in range(0, width - span + 1, step)
    ]


def loop(path: Path, factor: int = 1) -> dict[str, float]:
    """What people write."""
    import numpy as np
    import openslide
    from PIL import Image

    slide = openslide.OpenSlide(str(path))
    span = SIZE * factor
    level = slide.get_best_level_for_downsample(factor + 0.01)
    size = round(span / slide.level_downsamples[level])
    places = corners(*slide.dimensions, span)
    start = time.process_time()
    for place in places:
        tile = slide.read_region(place, level, (size, size)).convert("RGB")
        if size != SIZE:
            tile = tile.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        np.asarray(tile)
    return {"seconds": time.process_time() - start, "tiles": len(places)}


def ours(path: Path, factor: int = 1) -> dict[str, float]:
    """`medcl_pathology.tiles`, a tile after the other."""
    from medcl_pathology.reader import open_slide
    from medcl_pathology.tiles import Grid, read_tile

    slide = open_slide(path)
    grid = Grid(SIZE, (SIZE * factor, SIZE * factor))
    places = corners(*slide.about.levels[0], SIZE * factor)
    start = time.process_time()
    for x, y in places:
        read_tile(slide, x, y, grid)
    return {"seconds": time.process_time() - start, "tiles": len(places)}


def batch(path: Path) -> dict[str, float]:
    """`medcl_pathology.dataset`, in batches of 64."""
    import numpy as np

    samples = _samples(path, 1)
    start = time.process_time()
    for first in range(0, len(samples), 64):
        samples.read(np.arange(first, min(first + 64, len(samples))))
    return {"seconds": time.process_time() - start, "tiles": len(samples)}


class Held:
    """What `prepare` would have stored, with the corners of the loop."""

    def __init__(self, path: Path, factor: int) -> None:
        import numpy as np
        import openslide

        span = SIZE * factor
        self.path = path
        places = np.array(corners(*openslide.OpenSlide(str(path)).dimensions, span))
        self.arrays = {"coords": places, "grid": np.array([SIZE, span, span, 0.5 * factor])}

    def __call__(self, item: str) -> dict:
        return self.arrays

    def files(self, item: str) -> tuple[Path, ...]:
        return (self.path,)


def _samples(path: Path, factor: int):
    import polars as pl

    from medcl_pathology.dataset import dataset

    items = pl.DataFrame({"id": ["i"], "patient": ["p"], "kind": ["slide"]})
    return dataset(items, Held(path, factor))


def histolab(path: Path) -> dict[str, float]:
    """Its own reader of one tile, level 0, without its check for tissue."""
    import numpy as np
    from histolab.slide import Slide
    from histolab.types import CP

    slide = Slide(str(path), tempfile.mkdtemp())
    places = corners(*slide.dimensions, SIZE)
    start = time.process_time()
    for x, y in places:
        tile = slide.extract_tile(CP(x, y, x + SIZE, y + SIZE), (SIZE, SIZE), level=0)
        np.asarray(tile.image.convert("RGB"))
    return {"seconds": time.process_time() - start, "tiles": len(places)}


JOBS = {
    "medcl": ours,
    "medcl batch": batch,
    "loop": loop,
    "histolab": histolab,
    "medcl half": lambda path: ours(path, 2),
    "loop half": lambda path: loop(path, 2),
}


if __name__ == "__main__":
    main()
