"""Reading CT: headers into an index, and random crops out of the store, beside what users have now.

    python benchmarks/ct_io.py SLICES_FOLDER VOLUME.nii.gz [--files 4000] [--crops 200]

Ratios of one run; the seconds depend on the machine. ``SLICES_FOLDER`` holds real
DICOM files. Their headers, with other UIDs and heights, are written until there are enough files;
the pixels of these are holes, which read as zeros, so that they fit on a disk.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

PROCESSES = 2
SIZE = (96, 96, 96)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("slices", type=Path)
    options.add_argument("volume", type=Path)
    options.add_argument("--files", type=int, default=4000)
    options.add_argument("--crops", type=int, default=200)
    options.add_argument("--repeats", type=int, default=3)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as work:
        headers(chosen.slices, Path(work), chosen.files, chosen.repeats)
        crops(chosen.volume, Path(work), chosen.crops, chosen.repeats)
        streaming(chosen.slices, Path(work))


def timed(name: str, work: Callable[[], object], repeats: int, count: int, unit: str) -> float:
    """The best of some runs, in seconds; the runs of rivals are interleaved by the caller."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    best = min(seconds)
    spread = statistics.median(seconds) / best
    print(f"  {name:42s} {count / best:10,.0f} {unit}/s   (median {spread:.2f} × best)")
    return best


# --- headers --------------------------------------------------------------------------------------


def headers(source: Path, work: Path, count: int, repeats: int) -> None:
    """Files a second with 2 processes, all of indexing against nothing but reading."""
    from medcl.archive.index import build
    from medcl.plugin import get

    folder = work / "slices"
    write_many(source, folder, count)
    files = [str(p) for p in sorted(folder.rglob("*.dcm"))]
    for path in files:  # the disk is not what is compared
        Path(path).read_bytes()
    print(f"Headers of {count:,} real files, {PROCESSES} processes")
    plugin = get("ct")

    def ours() -> None:
        build(folder, work / "idx", plugin, workers=PROCESSES, rescan=True)

    base = timed("pydicom.dcmread", partial(loop, files, {}), repeats, count, "files")
    stop = timed(
        "pydicom.dcmread, stop_before_pixels",
        partial(loop, files, {"stop_before_pixels": True}),
        repeats,
        count,
        "files",
    )
    mine = timed("medcl: walk, read, join, write the index", ours, repeats, count, "files")
    print(f"  ratio to dcmread {base / mine:.1f}, to stop_before_pixels {stop / mine:.1f}\n")


def write_many(source: Path, folder: Path, count: int) -> None:
    """Series of 200 slices with the headers of real files."""
    import pydicom

    template = pydicom.dcmread(next(iter(sorted(source.rglob("*.dcm")))))
    size = len(template.PixelData)
    template.PixelData = b""
    for n in range(count):
        template.SOPInstanceUID = f"1.2.826.0.1.3680043.8.498.{n}"
        template.SeriesInstanceUID = f"1.2.826.0.1.3680043.8.499.{n // 200}"
        template.PatientID = f"case{n // 200}"
        x, y, _ = template.ImagePositionPatient
        template.ImagePositionPatient = [x, y, float(n % 200)]
        target = folder / f"series{n // 200:04d}" / f"{n:06d}.dcm"
        target.parent.mkdir(parents=True, exist_ok=True)
        template.save_as(target)
        with target.open("r+b") as handle:  # the length of the pixels stands last
            end = handle.seek(-4, 2)
            handle.write(size.to_bytes(4, "little"))
            handle.truncate(end + 4 + size)


def loop(files: list[str], settings: dict[str, bool]) -> None:
    """What a user would write: a pool over dcmread."""
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        chunks = [files[n::PROCESSES] for n in range(PROCESSES)]
        for _ in pool.map(partial(read_all, settings), chunks):
            pass


def read_all(settings: dict[str, bool], files: list[str]) -> int:
    import pydicom

    return sum(len(pydicom.dcmread(path, **settings)) > 0 for path in files)


# --- crops ----------------------------------------------------------------------------------------


def crops(volume: Path, work: Path, count: int, repeats: int) -> None:
    """Random 96³ boxes of 4 prepared volumes, one at a time, from memory and from the disk."""
    from monai.data import PersistentDataset
    from monai.transforms import Compose, EnsureChannelFirst, LoadImage, RandSpatialCrop, Spacing

    from medcl.archive.index import Index, build
    from medcl.archive.store import prepare
    from medcl.plugin import get
    from medcl_ct.dataset import dataset

    folder = work / "volumes"
    folder.mkdir()
    for n in range(4):
        shutil.copy(volume, folder / f"case{n}.nii.gz")
    plugin = get("ct")
    build(folder, work / "vidx", plugin)
    spec = {"spacing": (1.0, 1.0, 1.0), "crop": "none"}
    start = time.perf_counter()
    made = prepare(Index.open(work / "vidx"), plugin, spec)
    print(
        f"Crops of {SIZE}: preparing 4 volumes took {time.perf_counter() - start:.1f} s", end="; "
    )
    found = dataset(made.items, made.arrays, kind="crop", size=SIZE, crops=max(1, count // 4))
    shape = made.arrays(made.items["id"][0])["hu0"].shape
    transform = Compose(
        [
            LoadImage(image_only=True),
            EnsureChannelFirst(),
            Spacing(pixdim=(1.0, 1.0, 1.0)),
            RandSpatialCrop(roi_size=SIZE, random_size=False),
        ]
    )
    paths = [str(p) for p in sorted(folder.iterdir())]
    start = time.perf_counter()
    rival = PersistentDataset(paths, transform, cache_dir=str(work / "monai"))
    for n in range(4):
        rival[n]  # fills its cache
    print(f"MONAI {time.perf_counter() - start:.1f} s. Volumes are {shape}.")
    order = np.random.default_rng(0).permutation(len(found))
    store = list((work / "vidx" / "store").rglob("*.safetensors"))
    cache = list((work / "monai").rglob("*.pt"))

    def ours() -> None:
        for n in order:
            found.read(np.array([n]))

    def theirs() -> None:
        for n in order:
            rival[int(n) % 4]

    mine = timed("medcl store, memory-mapped int16", ours, repeats, count, "crops")
    base = timed("MONAI PersistentDataset + RandSpatialCrop", theirs, repeats, count, "crops")
    print(f"  ratio {base / mine:.1f}, pages in memory")
    few = order[:12]
    with evicting(store) as forget:
        mine = timed(
            "the same, pages dropped before each",
            lambda: cold(forget, found.read, few),
            1,
            12,
            "crops",
        )
    with evicting(cache) as forget:
        base = timed(
            "MONAI, pages dropped before each",
            lambda: cold(forget, lambda n: rival[int(n[0]) % 4], few),
            1,
            12,
            "crops",
        )
    print(f"  ratio {base / mine:.1f}, from the disk\n")


@contextlib.contextmanager
def evicting(files: list[Path]) -> Iterator[Callable[[], None]]:
    """A function that asks the system to forget the files' pages."""
    import os

    handles = [os.open(p, os.O_RDONLY) for p in files]

    def forget() -> None:
        for handle in handles:
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)

    try:
        for handle in handles:
            os.fsync(handle)
        yield forget
    finally:
        for handle in handles:
            os.close(handle)


def cold(
    forget: Callable[[], None], read: Callable[[np.ndarray], object], order: np.ndarray
) -> None:
    for n in order:
        forget()
        read(np.array([n]))


# --- memory ---------------------------------------------------------------------------------------

STREAM = """
import sys
from pathlib import Path
from medcl_ct.prepare import prepare
files = sorted(str(p.relative_to(sys.argv[1])) for p in Path(sys.argv[1]).rglob("*.dcm"))
made = prepare(Path(sys.argv[1]), files, {}, spacing=(0.0, 0.0, 0.0), crop="none")
held = sum(int(l.split()[1]) for l in open("/proc/self/smaps_rollup") if l.startswith("Anonymous"))
print(made["hu0"].shape, held)
"""


def streaming(source: Path, work: Path) -> None:
    """What preparing a series of many slices holds, beside what the slices weigh."""
    import pydicom

    original = next(p for p in sorted(source.rglob("*.dcm")))
    for count in (50, 500, 2000):
        folder = work / f"long{count}"
        folder.mkdir()
        template = pydicom.dcmread(original)
        x, y, z = template.ImagePositionPatient
        for n in range(count):
            template.ImagePositionPatient = [x, y, float(z) + 0.5 * n]
            template.SliceThickness = 0.5
            template.save_as(folder / f"{n:05d}.dcm")
        run = [sys.executable, "-c", STREAM, str(folder)]
        start = time.perf_counter()
        out = subprocess.run(run, capture_output=True, text=True, check=True).stdout.split()
        seconds, held = time.perf_counter() - start, int(out[-1]) / 1000
        size = count * template.Rows * template.Columns * 2 / 1e6
        print(f"Preparing {count:5d} slices ({size:,.0f} MB): {held:,.0f} MB held, {seconds:.1f} s")
        shutil.rmtree(folder)
    print(
        f"Peak of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:,.0f} MB"
    )


if __name__ == "__main__":
    main()
