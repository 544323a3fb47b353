"""Folders as a newcomer has them, made of real archives: ``newcomer_data.py DATA OUT``.

``DATA`` holds ``ct``, ``ecg``, ``mil``, ``ppg`` and ``wsi``. Each modality gets a folder of files
under names that say nothing, and a table of labels: scans/ and scans.csv, ecgs/ and
ecgs.csv, features/ and features.csv, slides/, ppg/ and ppg.csv.
"""

from __future__ import annotations

import csv
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pydicom

RECORDINGS = 300
"""Of PTB-XL's subset."""
SEGMENTS = 60
"""Of ten seconds, of each person's pulse."""


def main(data: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for made in (scans, ecgs, features, slides, ppg):
        made(data, out)
        print(f"made {made.__name__}")


def scans(data: Path, out: Path) -> None:
    """DICOM of several scanners in one folder, numbered as a PACS does, and two NIfTI files."""
    (out / "scans").mkdir()
    makers: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as unpacked:
        for name in ("series_ge_head", "series_lung_a0002", "slices_ny_sbu"):
            _unpack(data / "ct" / f"{name}.tar.xz", Path(unpacked))
        found = [*Path(unpacked).rglob("*.dcm"), *(data / "ct" / "series_siemens").glob("*.dcm")]
        order = np.random.default_rng(0).permutation(len(found))
        for n, path in enumerate(sorted(found)):
            header = pydicom.dcmread(path, stop_before_pixels=True)
            maker = "GE" if header.Manufacturer.startswith("GE") else "other"
            if header.get("PatientID"):
                makers.setdefault(header.PatientID, maker)
            folder = out / "scans" / f"DIR{order[n] % 4:03}"
            folder.mkdir(exist_ok=True)
            shutil.copyfile(path, folder / f"IM{order[n]:06}")
    for name in ("abdomen_ct.nii.gz", "aorta_ct.nii.gz"):
        shutil.copyfile(data / "ct" / name, out / "scans" / name)
    _table(out / "scans.csv", ("patient", "maker"), sorted(makers.items()))


def ecgs(data: Path, out: Path) -> None:
    """Ten-second ECGs of 12 leads in one folder, and who is who and which is normal."""
    (out / "ecgs").mkdir()
    with tempfile.TemporaryDirectory() as unpacked:
        _unpack(data / "ecg" / "ptbxl_develop.tar.xz", Path(unpacked))
        (database,) = Path(unpacked).rglob("ptbxl_database.csv")
        with database.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))[:RECORDINGS]
        for row in rows:
            for suffix in (".hea", ".dat"):
                source = database.parent / f"{row['filename_lr']}{suffix}"
                shutil.copyfile(source, out / "ecgs" / source.name)
    labels = [
        (Path(r["filename_lr"]).name, r["patient_id"], "normal" if r["NORM"] == "1" else "not")
        for r in rows
    ]
    _table(out / "ecgs.csv", ("filename", "patient_id", "finding"), labels)


def features(data: Path, out: Path) -> None:
    """Bags of ELEPHANT as CLAM's folder of features, and its table."""
    (out / "features" / "h5_files").mkdir(parents=True)
    bags = np.load(data / "mil" / "elephant.npz")
    rows = []
    for n, label in enumerate(bags["y"]):
        x = bags["X"][bags["bag"] == n].astype(np.float32)
        with h5py.File(out / "features" / "h5_files" / f"S{n:04}.h5", "w") as file:
            file["features"] = x
            file["coords"] = 256 * np.stack([np.arange(len(x)) % 4, np.arange(len(x)) // 4], axis=1)
        rows.append((f"C{n:04}", f"S{n:04}.svs", "elephant" if label else "none"))
    _table(out / "features.csv", ("case_id", "slide_id", "label"), rows)


def slides(data: Path, out: Path) -> None:
    """Two whole slides, of which one does not say how large its pixels are."""
    (out / "slides").mkdir()
    for path in (data / "wsi").glob("*.svs"):
        shutil.copyfile(path, out / "slides" / path.name)


def ppg(data: Path, out: Path) -> None:
    """Pulses of people as CSV without times, and who is mostly in atrial fibrillation."""
    (out / "ppg").mkdir()
    rows = []
    with tempfile.TemporaryDirectory() as unpacked:
        _unpack(data / "ppg" / "liu2022_develop.tar.xz", Path(unpacked))
        for n, path in enumerate(sorted(Path(unpacked).rglob("*.npz"))):
            held = np.load(path)
            x = held["ppg"][:SEGMENTS].reshape(-1) * held["scale"]
            name = f"watch{n:02}.csv"
            np.savetxt(out / "ppg" / name, x, header="PPG", comments="", fmt="%.4f")
            rows.append((name, "AF" if (held["labels"][:SEGMENTS] == 5).mean() > 0.5 else "other"))
    _table(out / "ppg.csv", ("file", "rhythm"), rows)


def _unpack(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")


def _table(path: Path, columns: tuple[str, ...], rows: list[tuple[str, str]] | list) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
