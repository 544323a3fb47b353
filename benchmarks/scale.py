"""CPU seconds and memory of every step at growing sizes of an archive, with exponents.

    python benchmarks/scale.py                              # 10³ … 10⁵, about an hour
    python benchmarks/scale.py index dicom --sizes 1000 10000
    python benchmarks/scale.py search --sizes 10000 100000 1000000

All data are synthetic: recordings of ten seconds of a made-up ECG (EDF, ten of a person),
headers of CT slices whose pixels are holes of the file system (a hundred to a series), and random
embeddings of 256 numbers in clusters. A step runs in a process of its own: its CPU time (user and
system, children included) and the largest resident memory of it or a child. The exponent of a step
is the slope of log(CPU seconds) over the two largest sizes, both less those at the smallest, so
that the program's own start does not hide it. What a step needs of an earlier one is not counted.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from medcl.plugin import FileStat, Record, Unit

HERE = Path(__file__).resolve().parent
DIM, EACH, SLICES, NEAR, WINDOWS = 256, 10, 100, 0.05, 10_000
SIZES = (1_000, 10_000, 100_000)


# --- made-up data ---------------------------------------------------------------------------------


def recordings(archive: Path, count: int) -> None:
    """EDF files of ten seconds, ten of each person."""
    from many_small_files import FS, SECONDS, edf

    rng = np.random.default_rng(0)
    t = np.arange(FS * SECONDS) / FS
    for n in range(count):
        folder = archive / f"site{n % 7}" / f"person{n // EACH:06d}"
        if n % EACH < 7:
            folder.mkdir(parents=True, exist_ok=True)
        beats = np.exp(-0.5 * (((t * (0.9 + 0.4 * rng.random())) % 1 - 0.5) / 0.02) ** 2)
        edf(folder / f"r{n:07d}", beats + 0.03 * rng.standard_normal(len(t)))


def slices(archive: Path, count: int) -> None:
    """CT slices by their headers alone: the pixels are a hole."""
    import io

    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    data = Dataset()
    data.SOPClassUID = CTImageStorage
    data.SOPInstanceUID, data.SeriesInstanceUID, data.StudyInstanceUID = (
        "1.2.1111111",
        "1.2.2222222",
        "1.2.3333333",
    )
    data.PatientID, data.Modality, data.Manufacturer = "P4444444", "CT", "SIEMENS"
    data.FrameOfReferenceUID, data.InstanceNumber = "1.2.5555555", "6666666"
    data.ImagePositionPatient, data.ImageOrientationPatient = ["0", "0", "7777777"], list("100010")
    data.PixelSpacing, data.SliceThickness, data.KVP = ["0.7", "0.7"], "1.0", "120"
    data.Rows = data.Columns = 512
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.RescaleIntercept, data.RescaleSlope, data.ImageType = (
        "-1024",
        "1",
        ["ORIGINAL", "PRIMARY", "AXIAL"],
    )
    data.PixelData = b"\0" * (512 * 512 * 2)
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = CTImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = "1.2.1111111"
    out = io.BytesIO()
    data.save_as(out, enforce_file_format=True)
    whole = out.getvalue()
    head = whole[: len(whole) - 512 * 512 * 2]
    for n in range(count):
        series = n // SLICES
        values = {
            "1" * 7: n,
            "2" * 7: series,
            "3" * 7: series,
            "4" * 7: series // 2,
            "5" * 7: series,
        }
        values |= {"6" * 7: n % SLICES + 1, "7" * 7: n % SLICES}
        own = head
        for mark, value in values.items():
            own = own.replace(mark.encode(), f"{value + 1_000_000:07d}".encode())
        path = archive / f"s{series:06d}" / f"{n:07d}.dcm"
        if n % SLICES == 0:
            path.parent.mkdir(parents=True)
        with path.open("wb") as handle:
            handle.write(own)
            handle.truncate(len(whole))


def embeddings(count: int) -> np.ndarray:
    """(N, 256) rows in clusters around a common mean; every tenth is a near copy of another."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((max(count // 100, 4), DIM), dtype=np.float32)
    x = rng.standard_normal((count, DIM), dtype=np.float32)
    x *= 0.7
    x += centres[rng.integers(0, len(centres), count)]
    x += 2
    copies = np.arange(9, count, 10)
    x[copies] = x[copies - 5] + 0.02 * rng.standard_normal((len(copies), DIM), dtype=np.float32)
    return x


# --- steps ----------------------------------------------------------------------------------------


def index(count: int, folder: Path, kind: str = "records") -> dict[str, Callable[[], None]]:
    """Index first, again, and after one file was touched; then the splits."""
    from medcl import plugin as plugins
    from medcl.archive.index import Index, build
    from medcl.archive.splits import split

    plugin = plugins.get("biosignals" if kind == "records" else "ct")
    archive, out = folder / "archive", folder / "index"
    if not archive.is_dir():
        (recordings if kind == "records" else slices)(archive, count)

    def first() -> None:
        shutil.rmtree(out, ignore_errors=True)
        build(archive, out, plugin)

    def touched() -> None:
        os.utime(next(path for path in archive.rglob("*") if path.is_file()))
        build(archive, out, plugin)

    return {
        "index": first,
        "index, unchanged": lambda: build(archive, out, plugin) and None,
        "index, one touched": touched,
        "splits": lambda: split(Index.open(out).items) and None,
    }


def memory(count: int, folder: Path) -> dict[str, Callable[[], None]]:
    """The index of EDF files that are made up in memory: eleven columns, nothing is read."""
    from medcl import plugin as plugins
    from medcl.archive import index
    from medcl.archive.walk import Walked

    archive, out = folder / "archive", folder / "index"
    archive.mkdir(exist_ok=True)
    (archive / "x").touch()

    def walk(root: Path, skip: Path | None = None, *, follow: bool = False) -> Walked:
        paths = ((f"site{n % 7}/person{n // EACH:06d}/r{n:07d}.edf", n) for n in range(count))
        return Walked([FileStat(path, n, 10**18 + n) for path, n in sorted(paths)])

    def scan(root: Path, unit: Unit) -> Iterator[Record]:
        (file,) = unit.files
        fields = {"format": "EDF", "fs": 100.0, "seconds": 10 + file.size % 100 / 100, "bits": 16}
        fields |= {"channels": 1, "leads": "II", "start": None, "gain": 1e3, "unit": "mV"}
        fields |= {"missing": file.size % 3 == 0, "amplitude": 1 + file.size / 10**6}
        site, patient, _ = file.path.split("/")
        yield Record(file.path, (file.path,), patient, site, fields)

    def first() -> None:
        shutil.rmtree(out, ignore_errors=True)
        index.walk = walk
        units = lambda files: [Unit(file.path, (file,)) for file in files]  # noqa: E731
        plugin = replace(plugins.get("biosignals"), units=units, scan=scan, assemble=None)
        index.build(archive, out, plugin)

    return {"index of records in memory": first}


def dicom(count: int, folder: Path) -> dict[str, Callable[[], None]]:
    """The same of DICOM headers."""
    return {f"{name} (DICOM)": step for name, step in index(count, folder, "dicom").items()}


def train(count: int, folder: Path) -> dict[str, Callable[[], None]]:
    """Prepare a tenth of the recordings, and pretrain for one step on what is prepared."""
    import medcl
    from medcl import recipe as recipes
    from medcl.archive.index import Index, build
    from medcl.archive.store import prepare
    from medcl.report.report import write
    from medcl.run import Run
    from medcl_biosignals.plugin import plugin

    settings = ["prepare.fs=100", "trainer.steps=1", "trainer.batch_size=16", "dataset.seconds=5"]
    recipe = recipes.load("biosignals/simclr-ecg", settings)
    archive, out = folder / "tenth", folder / "index-tenth"
    if not archive.is_dir():
        recordings(archive, count // 10)
        build(archive, out, plugin)

    def start() -> None:
        shutil.rmtree(folder / "run", ignore_errors=True)
        medcl.pretrain("biosignals/simclr-ecg", out, folder / "run", settings=settings)

    return {
        "prepare a tenth": lambda: prepare(Index.open(out), plugin, recipe.prepare) and None,
        "pretrain to the first step": start,
        "embed a tenth": lambda: medcl.embed(folder / "run", out, out=folder / "x") and None,
        "report": lambda: write(Run.open(folder / "run"), folder / "report.html") and None,
    }


def samples(count: int, folder: Path) -> dict[str, Callable[[], None]]:
    """So many overlapping windows of few long recordings, and a tiny encoder."""
    from many_small_files import FS, edf

    import medcl
    from medcl import recipe as recipes
    from medcl.archive.index import Index, build
    from medcl.archive.store import prepare
    from medcl.report.report import write
    from medcl.run import Run
    from medcl_biosignals.plugin import plugin

    settings = ["prepare.fs=100", "dataset.seconds=1", "dataset.stride=0.1", "dataset.quality=0"]
    settings += ["trainer.steps=1", "trainer.batch_size=16"]
    settings += ["encoder.widths=[8,16]", "encoder.blocks=1", "encoder.kernel=5"]
    archive, out, run = folder / "archive", folder / "index", folder / "run"
    if not archive.is_dir():
        rng = np.random.default_rng(0)
        for n in range(count // WINDOWS):
            (archive / f"person{n}").mkdir(parents=True)
            edf(archive / f"person{n}" / "r", 0.1 * rng.standard_normal((WINDOWS // 10 + 1) * FS))
        build(archive, out, plugin)
        prepare(Index.open(out), plugin, recipes.load("biosignals/simclr-ecg", settings).prepare)

    def start() -> None:
        shutil.rmtree(run, ignore_errors=True)
        medcl.pretrain("biosignals/simclr-ecg", out, run, settings=settings)

    return {
        "pretrain to the first step (windows)": start,
        "embed (windows, tiny encoder)": lambda: medcl.embed(run, out, out=folder / "x") and None,
        "report (windows)": lambda: write(Run.open(run), folder / "report.html") and None,
    }


def curate(count: int, folder: Path) -> dict[str, Callable[[], None]]:
    """Near-duplicates across items: of embeddings, and of codes of which a third are air."""
    import polars as pl

    from medcl import nearest
    from medcl.curate.across import across
    from medcl.curate.within import Reduced

    zeros = np.zeros(1, np.uint64)
    names = [f"i{n:08d}" for n in range(count)]
    frame = pl.DataFrame({"id": names})

    def by_embeddings() -> None:
        x = embeddings(count)
        reduced = [Reduced(name, np.zeros(1), zeros, [0], []) for name in names]
        features = {name: x[n : n + 1] for n, name in enumerate(names)}
        dropped = sum(1 for _ in across(reduced, frame, NEAR, "embedding", features=features))
        print(f"  {dropped:,} of {count:,} dropped", file=sys.stderr)

    def by_codes() -> None:
        codes = np.random.default_rng(0).integers(0, 2**63, count).astype(np.uint64)
        codes[::3] = 7
        reduced = [
            Reduced(name, np.zeros(1), codes[n : n + 1], [0], []) for n, name in enumerate(names)
        ]
        for _ in across(reduced, frame, 6, "dhash"):
            pass

    def recall() -> None:
        """Queries at distances up to the limit from a row each, against all rows exactly."""
        x = embeddings(count)
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        rng = np.random.default_rng(1)
        rows = x[rng.integers(0, count, 1024)]
        away = rng.standard_normal(rows.shape, dtype=np.float32)
        away -= (away * rows).sum(1, keepdims=True) * rows
        away /= np.linalg.norm(away, axis=1, keepdims=True)
        cosine = 1 - NEAR * rng.random((len(rows), 1), dtype=np.float32)
        rows = cosine * rows + np.sqrt(1 - cosine**2) * away
        known = nearest.Embeddings(NEAR, x)
        pairs: set[tuple[int, int]] = set()
        for start in range(0, count, 16_384):
            block = x[start : start + 16_384]
            known.add(block)
            near = nearest.close(rows, block, NEAR)
            pairs |= set(zip(near.query.tolist(), (near.row + start).tolist(), strict=True))
        found = known.near(rows)
        same = pairs & set(zip(found.query.tolist(), found.row.tolist(), strict=True))
        print(f"  {len(same):,} of {len(pairs):,} pairs found", file=sys.stderr)

    return {"curate embeddings": by_embeddings, "curate codes": by_codes, "curate, recall": recall}


def search(count: int, folder: Path) -> dict[str, Callable[[], None]]:
    """The first query builds what is searched; the second opens it and answers."""
    import polars as pl

    from medcl.archive.index import Index
    from medcl.embeddings.embeddings import Embeddings
    from medcl.retrieval.bank import Bank

    place = folder / "embeddings"
    if not place.is_dir():
        ids = [f"s{n}" for n in range(count)]
        patients = [f"p{n // EACH}" for n in range(count)]
        Embeddings(ids, ids, patients, embeddings(count)).save(place)
    facts = {"plugin": "biosignals"}
    tables = Index(folder, facts, pl.DataFrame({"id": ["s0"]}), pl.DataFrame())

    def query() -> None:
        bank = Bank(tables, Embeddings.load(place), place)
        groups = bank.by_sample
        rng = np.random.default_rng(1)
        groups.similar(groups.directions(np.array([0]))[0], 40, np.ones(count, bool))
        times = []
        for row in rng.integers(0, count, 20):
            asked = groups.directions(np.array([row]))[0]
            begin = time.perf_counter()
            groups.similar(asked, 40, groups.owners != groups.owners[row])
            times.append(time.perf_counter() - begin)
        print(f"  a query: {1000 * sorted(times)[10]:.1f} ms", file=sys.stderr)

    return {"search, first": query, "search, second": query}


def knn(count: int, folder: Path) -> dict[str, Callable[[], None]]:
    """The probe's neighbours of a tenth, and an interval where each sample is its own patient."""
    from medcl.embeddings.embeddings import evenly
    from medcl.embeddings.knn import LARGEST_BANK, neighbours
    from medcl.metrics.bootstrap import bootstrap

    def near() -> None:
        x = embeddings(count)
        bank = evenly(np.arange(count), LARGEST_BANK, 0)
        neighbours(x[: count // 10], x[bank])

    def interval() -> None:
        score = np.random.default_rng(0).standard_normal(count)
        total = np.ones(count)
        bootstrap(
            lambda weight: {"mean": weight.total(score) / weight.total(total)},
            np.arange(count),
            resamples=200,
        )

    return {"kNN of a tenth": near, "bootstrap, 200 resamples": interval}


PARTS = {
    "index": index,
    "memory": memory,
    "dicom": dicom,
    "train": train,
    "samples": samples,
    "curate": curate,
    "search": search,
    "knn": knn,
}


# --- measuring ------------------------------------------------------------------------------------


def measured(part: str, step: str, count: int, folder: Path) -> tuple[float, float]:
    """CPU seconds and MiB of a step in a process of its own."""
    command = [sys.executable, __file__, part, "--step", step, "--sizes", str(count)]
    done = subprocess.run([*command, "--keep", str(folder)], check=True, stdout=subprocess.PIPE)
    seconds, mebibytes = json.loads(done.stdout.splitlines()[-1])
    return float(seconds), float(mebibytes)


def here(part: str, step: str, count: int, folder: Path) -> None:
    """Run a step; its CPU seconds, and the largest memory, of which what came before is a part."""
    steps = PARTS[part](count, folder / f"{part}-{count}")
    before = spent()
    steps[step]()
    peak = max(resource.getrusage(who).ru_maxrss for who in _WHO) / 1024
    print(json.dumps([spent() - before, peak]))


_WHO = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


def spent() -> float:
    used = [resource.getrusage(who) for who in _WHO]
    return sum(each.ru_utime + each.ru_stime for each in used)


def exponent(sizes: list[int], seconds: list[float]) -> float:
    """The slope over the two largest sizes: of seconds and sizes less those of the smallest."""
    if len(sizes) < 3:
        return math.nan
    two = [max(value - seconds[0], 1e-3) for value in seconds[-2:]]
    more = [size - sizes[0] for size in sizes[-2:]]
    return math.log(two[1] / two[0]) / math.log(more[1] / more[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=list(PARTS))
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--keep", type=Path, help="a folder to work in, which stays")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        if options.step:
            here(options.parts[0], options.step, options.sizes[0], folder)
            return
        print("| step | " + " | ".join(f"{size:,}" for size in options.sizes) + " | exponent |")
        print("|---" * (len(options.sizes) + 2) + "|")
        for part in options.parts:
            (folder / f"{part}-{options.sizes[0]}").mkdir(parents=True, exist_ok=True)
            for step in PARTS[part](options.sizes[0], folder / f"{part}-{options.sizes[0]}"):
                found = []
                for size in options.sizes:
                    (folder / f"{part}-{size}").mkdir(parents=True, exist_ok=True)
                    found.append(measured(part, step, size, folder))
                cells = [f"{seconds:.2f} s, {mib:,.0f} MiB" for seconds, mib in found]
                slope = exponent(options.sizes, [seconds for seconds, _ in found])
                print(f"| {step} | {' | '.join(cells)} | {slope:.2f} |", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.path.insert(0, str(HERE))
    main()
