"""A synthetic pyramid of 40,000 × 40,000: preparing it, its memory, and tiles beside OpenSlide's.

    python benchmarks/pathology_pyramid.py --folder /tmp/pyramid

The slide is made here (JPEG tiles of 256, four levels of a quarter each, 0.25 µm): glass with six
discs of noise in the colours of H&E, of 64 different tiles; no histology. Preparing is
`medcl_pathology.prepare` at 0.5 µm with default settings, in a process of its own: processor time
without imports, and peak memory with them. Tiles of 256 pixels are read at the slide's scale and
at half of it, the same 600 places side by side in tissue, by medcl and by the loop over OpenSlide
that people write, each in a fresh process.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

SIDE, TILE, DOWN, LEVELS, MPP = 40_000, 256, 4, 4, 0.25
PLACES = 600
JOBS = ("prepare", "medcl 1", "loop 1", "medcl 2", "loop 2")


def inside(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether places, in pixels of the first level, lie on tissue."""
    out = np.zeros(np.broadcast(x, y).shape, dtype=bool)
    for n in range(6):
        centre = (0.2 + 0.3 * (n % 3)) * SIDE, (0.3 + 0.4 * (n // 3)) * SIDE
        out |= (x - centre[0]) ** 2 + (y - centre[1]) ** 2 < (0.11 * SIDE) ** 2
    return out


def make(path: Path) -> None:
    """Write the slide."""
    import imagecodecs
    import tifffile

    random = np.random.default_rng(0)

    def encoded(tissue: bool, level: int) -> bytes:
        pixels = np.full((TILE, TILE, 3), 244, dtype=np.int16)
        if tissue:
            coarse = 2 ** max(3 - level, 0)
            purple = random.random((TILE // coarse, TILE // coarse)) < 0.4
            purple = purple.repeat(coarse, 0).repeat(coarse, 1)
            pixels = np.where(purple[..., None], (120, 70, 150), (220, 130, 175))
        noisy = pixels + random.integers(-6, 7, (TILE, TILE, 1))
        return imagecodecs.jpeg8_encode(noisy.clip(0, 255).astype(np.uint8), level=80)

    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        for level in range(LEVELS):
            side = SIDE // DOWN**level
            many = -(-side // TILE)
            held = {kind: [encoded(kind, level) for _ in range(32)] for kind in (False, True)}
            middle = (np.arange(many) + 0.5) * TILE * DOWN**level
            tissue = inside(middle[None], middle[:, None])

            def tiles(tissue: np.ndarray = tissue, held: dict = held) -> Iterator[bytes]:
                for n, kind in enumerate(tissue.ravel().tolist()):
                    yield held[kind][n % 32]

            step = MPP * DOWN**level
            writer.write(
                tiles(),
                shape=(side, side, 3),
                dtype=np.uint8,
                tile=(TILE, TILE),
                compression="jpeg",
                photometric="ycbcr",
                subfiletype=int(level > 0),
                resolution=(1e4 / step, 1e4 / step),
                resolutionunit=3,
                metadata=None,
            )


def places(factor: int) -> list[tuple[int, int]]:
    """Corners in the first disc, row by row."""
    span = TILE * factor
    first = np.arange(0, SIDE - span, span)
    x, y = np.meshgrid(first, first)
    chosen = inside(x + span / 2, y + span / 2).ravel()
    return list(zip(x.ravel()[chosen][:PLACES].tolist(), y.ravel()[chosen][:PLACES].tolist(),
                    strict=True))  # fmt: skip


def job(name: str, path: Path) -> dict[str, float]:
    """One measurement, in this process."""
    from pathology_tiles import SIZE

    from medcl_pathology.prepare import prepare
    from medcl_pathology.reader import open_slide
    from medcl_pathology.tiles import Grid, read_tile

    what, _, scale = name.partition(" ")
    if what == "prepare":
        fields = {"kind": "slide", "findings": [], "mpp_x": MPP, "mpp_y": MPP}
        start = time.process_time()
        made = prepare(path.parent, [path.name], fields)
        seconds, count = time.process_time() - start, len(made["coords"])
    elif what == "medcl":
        slide, factor = open_slide(path), int(scale)
        grid = Grid(SIZE, (SIZE * factor, SIZE * factor))
        read_tile(slide, 0, 0, grid)  # what is imported at the first
        start = time.process_time()
        for x, y in (found := places(factor)):
            read_tile(slide, x, y, grid)
        seconds, count = time.process_time() - start, len(found)
    else:
        import openslide
        from PIL import Image

        whole, factor = openslide.OpenSlide(str(path)), int(scale)
        level = whole.get_best_level_for_downsample(factor + 0.01)
        size = round(SIZE * factor / whole.level_downsamples[level])
        start = time.process_time()
        for place in (found := places(factor)):
            tile = whole.read_region(place, level, (size, size)).convert("RGB")
            if size != SIZE:
                tile = tile.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
            np.asarray(tile)
        seconds, count = time.process_time() - start, len(found)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "tiles": count, "peak_mb": peak}


def main() -> None:
    """Make the slide, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--job", choices=JOBS)
    asked = parser.parse_args()
    path = asked.folder / "pyramid.tif"
    if asked.job:
        print(json.dumps(job(asked.job, path)))
        return
    asked.folder.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        make(path)
    best: dict[str, float] = {}
    for name in JOBS:
        for _ in range(asked.rounds):
            command = [sys.executable, __file__, "--folder", str(asked.folder), "--job", name]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found = json.loads(done.stdout.strip().splitlines()[-1])
            best[name] = min(best.get(name, np.inf), found["seconds"])
        print(name, {**found, "seconds": round(best[name], 2)}, flush=True)
    for factor in (1, 2):
        ratio = best[f"loop {factor}"] / best[f"medcl {factor}"]
        print(f"at 1/{factor} of the scale: {ratio:.2f} × the loop")


if __name__ == "__main__":
    main()
