"""Names of files that are no UTF-8, as old disks and foreign systems have them, from index to
prediction."""

from __future__ import annotations

import gzip
import os
import shutil
import zipfile
from pathlib import Path

import h5py
import numpy as np
import polars as pl
import pytest
import written
from hypothesis import given
from hypothesis import strategies as st

import medcl
from medcl import recipe as recipes
from medcl.archive.index import Index, build
from medcl.archive.store import prepare
from medcl.engine.pretrain import pretrain
from medcl.errors import UsageError
from medcl.retrieval.query import _by_path
from medcl.strings import original, storable
from medcl_biosignals.plugin import plugin

TINY = [
    "encoder={name: resnet1d, channels: 2, widths: [8, 16], blocks: 1, stride: 4}",
    "trainer={steps: 2, batch_size: 8}",
    "prepare.fs=100", "views.fs=100", "dataset.seconds=4", "dataset.stride=4", "dataset.quality=0",
    "monitor={every: 100, samples: 32}",
]  # fmt: skip


@given(st.binary(max_size=30), st.text(max_size=10))
def test_names_are_stored_and_found_again(name: bytes, text: str) -> None:
    for path in (os.fsdecode(name), text, f"{text}\ufdd0{text}\ufdd0ff", os.fsdecode(name) + text):
        storable(path).encode("utf-8")
        if not any(0xD800 <= ord(c) < 0xDC80 or 0xDCFF < ord(c) <= 0xDFFF for c in path):
            assert original(storable(path)) == path
    assert storable("a/b.edf") == "a/b.edf"


@pytest.fixture(scope="module")
def archive(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording a format, each with a byte of Latin-1 in its name or that of its folder."""
    import edfio

    root = tmp_path_factory.mktemp("bytes") / "archive"
    root.mkdir()
    x = np.cumsum(np.random.default_rng(0).integers(-20, 21, (2, 5000)), axis=1)

    def put(name: bytes, content: bytes) -> None:
        path = os.fsencode(root) + b"/" + name
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as handle:
            handle.write(content)

    try:
        put(b"a\xff.xml", written.muse(list(x), ["I", "II"]))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    for suffix in ("hea", "dat", "atr"):
        content = (sample / f"101.{suffix}").read_bytes()
        put(b"Pati\xebnt/101." + suffix.encode(), content)
        if suffix == "hea":
            content = content.replace(b"101 ", b"M\xfcller ", 1).replace(b"101.", b"M\xfcller.")
        put(b"M\xfcller." + suffix.encode(), content)
    for file in sample.glob("114.*"):  # FLAC
        put(b"Pati\xebnt/" + file.name.encode(), file.read_bytes())
    scratch = tmp_path_factory.mktemp("scratch")
    signal = edfio.EdfSignal(x[0] / 1000, 250, label="ECG II", physical_dimension="mV")
    edfio.Edf([signal]).write(scratch / "a.edf")
    table = pl.DataFrame({"time [s]": np.arange(5000) / 250, "II [mV]": x[0] / 1000})
    table.write_csv(scratch / "a.csv")
    table.write_parquet(scratch / "a.parquet")
    np.savez(scratch / "a.npz", ecg=x[0] / 1000, fs=250)
    with h5py.File(scratch / "a.h5", "w") as file:
        file["II"] = x[0] / 1000
        file["II"].attrs.update(fs=250, units="mV")
    with zipfile.ZipFile(scratch / "a.zip", "w") as packed:
        packed.write(scratch / "a.csv", "a.csv")
    (scratch / "a.csv.gz").write_bytes(gzip.compress((scratch / "a.csv").read_bytes()))
    (scratch / "a.ecg").write_bytes(written.ishne(x, ["V1", "V5"]))
    shutil.copy(Path(__file__).parents[1] / "fixtures/signals/biosig2.gdf", scratch / "a.gdf")
    for file in scratch.iterdir():
        name = b"\xe9" + file.name.replace(".", "-", file.name.count(".") - 1).encode()
        put(b"\xe9.csv.gz" if file.name == "a.csv.gz" else name, file.read_bytes())
    return root


@pytest.mark.slow
def test_they_are_indexed_prepared_and_predicted(archive: Path, tmp_path: Path) -> None:
    out = tmp_path / "index"
    files = [name for _, _, names in os.walk(os.fsencode(archive)) for name in names]
    made = build(archive, out, plugin)
    assert (made.items, made.rejects) == (len(files) - 3 * 2, {})  # two files beside each header
    index = Index.open(out)
    named = {file for item in index.items["id"] for file in index.files(item)}
    assert named == {
        os.fsdecode(os.path.relpath(os.path.join(folder, name), os.fsencode(archive)))
        for folder, _, names in os.walk(os.fsencode(archive)) for name in names
    }  # fmt: skip
    prepared = prepare(index, plugin, {"fs": 100.0})
    assert (len(prepared.items), len(prepared.rejects)) == (made.items, 0)
    again = build(archive, out, plugin)
    assert (again.scanned, again.reused) == (0, made.scanned)
    assert _by_path(index, "a\udcff.xml") is not None

    with pytest.raises(UsageError, match="not UTF-8"):
        build(archive, tmp_path / "out\udcff", plugin)
    run = pretrain(recipes.load("simclr-ecg", TINY), out, tmp_path / "run")
    done = medcl.predict(run, archive / "M\udcfcller.hea", tmp_path / "one.parquet", workers=1)
    assert (done.records, done.rejects) == (1, {})
    whole = medcl.predict(run, archive, tmp_path / "all.parquet", paths=True, workers=1)
    assert (whole.records, whole.rejects) == (made.items, {})
    assert pl.read_parquet(tmp_path / "all.parquet")["record"].n_unique() == made.items
